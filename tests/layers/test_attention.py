import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit.gradcheck import SHARP, noisy
from numpyvit.layers.attention import Attention, attention_backward, attention_forward, split_heads
from numpyvit.layers.attention_fast import keys_first_backward, keys_first_forward
from numpyvit.layers.dropout import draw_mask
from numpyvit.layers.rotary import turns
from numpyvit.params import init
from numpyvit.testing import (
    assert_gradients,
    check_layer_contract,
    close,
    normal,
    seeds,
    shapes_BNhE,
)


def draw_qkv(shape, queries, seed, dropout):
    """q, k, v and a mask (B, h, M, N) or None."""
    B, N, h, E = shape
    q, k, v = (
        normal((B, h, queries, E), seed),
        normal((B, h, N, E), seed + 1),
        normal((B, h, N, E), seed + 2),
    )
    return q, k, v, (normal((B, h, queries, N), seed + 3) > 0) * 2.0 if dropout else None


@given(shapes_BNhE(), st.integers(1, 4), st.booleans(), seeds)
def test_textbook_gradients(shape, queries, dropout, seed):
    q, k, v, mask = draw_qkv(shape, queries, seed, dropout)
    assert_gradients(
        lambda q, k, v: attention_forward(q, k, v, mask),
        attention_backward,
        q,
        k,
        v,
        tolerance=SHARP,
        zero=["input 0", "input 1", "input 2"],
    )  # one key, or all dropped: nothing to learn


@given(shapes_BNhE(), st.integers(1, 4), st.booleans(), seeds)
def test_keys_first_equals_the_textbook(shape, queries, dropout, seed):
    q, k, v, mask = draw_qkv(shape, queries, seed, dropout)
    o, cache = attention_forward(q, k, v, mask)
    o_fast, cache_fast = keys_first_forward(
        q, k, v, None if mask is None else mask.transpose(3, 0, 1, 2)
    )
    assert close(o_fast, o)
    do = normal(o.shape, seed + 4)
    out = [np.empty_like(q), np.empty_like(k), np.empty_like(v)]
    keys_first_backward(do, cache_fast, out)
    for fast, plain in zip(out, attention_backward(do, cache), strict=True):
        assert close(fast, plain)


@given(shapes_BNhE(), st.booleans(), st.sampled_from([None, 1, 2]), seeds)
def test_contract(shape, bias, rows, seed):
    B, N, h, E = shape
    layer = Attention(h * E, h, qkv_bias=bias)
    x = normal((B, N, h * E), seed)
    check_layer_contract(layer, x, seed, rows=rows if rows and rows <= N else None, tolerance=SHARP)


@given(st.integers(1, 3), st.integers(1, 2), st.booleans(), seeds)
def test_contract_with_turned_queries_and_keys(B, heads, each_image, seed):
    layer, turn = Attention(4 * heads, heads), turns((2, 2), 4)
    x = normal((B, 4, 4 * heads), seed)
    if each_image:  # as after patch dropout
        turn = turn[np.random.default_rng(seed).integers(0, 4, (B, 4))]
    check_layer_contract(layer, x, seed, turn=turn, splits=not each_image, tolerance=SHARP)
    check_layer_contract(layer, x, seed, turn=turn, rows=2, splits=not each_image, tolerance=SHARP)
    params = init(layer, seed, np.float64)
    assert close(
        layer.forward(params, x, turn=turn, rows=2)[0],
        layer.forward(params, x, turn=turn)[0][:, :2],
    )


@given(shapes_BNhE(), st.sampled_from([None, 1]), seeds)
def test_contract_with_dropout_of_the_probabilities(shape, rows, seed):
    B, N, h, E = shape
    layer = Attention(h * E, h, dropout=0.4)
    check_layer_contract(
        layer,
        normal((B, N, h * E), seed),
        seed,
        splits=False,
        rows=rows,
        zero=["x", "qkv.w", "qkv.b", "proj.w"],  # all may be dropped
        rng=lambda: np.random.default_rng(seed),
        tolerance=SHARP,
    )


@given(shapes_BNhE(max_N=6), st.sampled_from([0.0, 0.4]), seeds)
def test_rows_are_the_first_rows(shape, dropout, seed):
    B, N, h, E = shape
    layer, x = Attention(h * E, h, dropout=dropout), normal((B, N, h * E), seed)
    params = init(layer, seed, np.float64)
    y, cache = layer.forward(params, x, np.random.default_rng(seed))
    y1, cache1 = layer.forward(params, x, np.random.default_rng(seed), rows=1)
    assert close(y1, y[:, :1])
    dy = np.zeros_like(y)
    dy[:, :1] = normal(y1.shape, seed)
    g, g1 = params.zeros_like(), params.zeros_like()
    assert close(layer.backward(dy[:, :1], cache1, g1), layer.backward(dy, cache, g))
    assert close(g1.flat, g.flat)


@given(shapes_BNhE(), seeds)
def test_the_layer_is_the_textbook_between_two_products(shape, seed):
    """With dropout: the mask that it draws is applied to the probabilities."""
    B, N, h, E = shape
    layer, x = Attention(h * E, h, dropout=0.5), normal((B, N, h * E), seed)
    params = noisy(layer, seed)
    mask = draw_mask(np.random.default_rng(seed), (N, B, h, N), 0.5, x).transpose(1, 2, 3, 0)
    q, k, v = split_heads(x @ params["qkv.w"] + params["qkv.b"], 3, h)
    o, _ = attention_forward(q, k, v, mask)
    wanted = o.transpose(0, 2, 1, 3).reshape(B, N, h * E) @ params["proj.w"] + params["proj.b"]
    assert close(layer.forward(params, x, np.random.default_rng(seed))[0], wanted)


@given(shapes_BNhE(), seeds)
def test_taps_are_probabilities(shape, seed):
    B, N, h, E = shape
    layer, taps = Attention(h * E, h), {}
    layer.forward(init(layer, seed, np.float64), normal((B, N, h * E), seed), taps=taps)
    assert taps["attention"].shape == (B, h, N, N)
    assert np.allclose(taps["attention"].sum(-1), 1)


def test_scores_are_scaled_by_the_heads_width():
    q, k = np.full((1, 2, 1, 4), 3.0), np.stack([np.zeros((1, 2, 4)), np.ones((1, 2, 4))], axis=2)
    v = np.stack([np.zeros((1, 2, 4)), np.ones((1, 2, 4))], axis=2)
    o, _ = attention_forward(q, k, v)
    assert o[0, 0, 0, 0] == pytest.approx(1 / (1 + np.exp(-12 / 2)))  # q.k = 12, sqrt(E) = 2


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_extreme_scores_stay_finite(scale):
    q, k, v = normal((1, 1, 3, 2), 0) * scale, normal((1, 1, 3, 2), 1), normal((1, 1, 3, 2), 2)
    o, cache = keys_first_forward(q, k, v)
    out = [np.empty_like(q), np.empty_like(k), np.empty_like(v)]
    keys_first_backward(np.ones_like(o), cache, out)
    assert all(np.isfinite(a).all() for a in (o, *out))
