import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit.gradcheck import SHARP, noisy
from numpyvit.layers.attention import (
    Attention,
    attention_backward,
    attention_forward,
    merge_heads,
    split_heads,
)
from numpyvit.layers.attention_fast import attention_fast_backward, attention_fast_forward
from numpyvit.layers.dropout import draw_mask
from numpyvit.testing import (
    check_layer_contract,
    check_pair_contract,
    close,
    normal,
    seeds,
    shapes_BNhE,
)

textbook_forward = inspect.unwrap(attention_forward)
textbook_backward = inspect.unwrap(attention_backward)
PAIRS = {
    "textbook": (textbook_forward, textbook_backward),
    "fast": (attention_fast_forward, attention_fast_backward),
}


def draw_qkv(shape, seed, dropout):
    """Draw q, k, v (B, h, N, E) and a mask (B, h, N, N) or None."""
    B, N, h, E = shape
    q, k, v = (normal((B, h, N, E), seed + i) for i in range(3))
    mask = (normal((B, h, N, N), seed + 3) > 0) * 2.0 if dropout else None
    return q, k, v, mask


def test_the_decorated_functions_are_the_fast_ones():
    assert textbook_forward is not attention_forward
    q, k, v, _ = draw_qkv((2, 3, 2, 2), 0, False)
    o, cache = attention_forward(q, k, v)
    o_fast, cache_fast = attention_fast_forward(q, k, v)
    assert np.array_equal(o, o_fast)
    assert len(cache) == len(cache_fast) != len(textbook_forward(q, k, v)[1])


@pytest.mark.parametrize("name", PAIRS)
@given(shape=shapes_BNhE(), dropout=st.booleans(), seed=seeds)
def test_pair(name, shape, dropout, seed):
    forward, backward = PAIRS[name]
    q, k, v, mask = draw_qkv(shape, seed, dropout)
    check_pair_contract(
        lambda q, k, v: forward(q, k, v, None if mask is None else mask.astype(q.dtype)),
        lambda do, cache: tuple(backward(do, cache)),
        q,
        k,
        v,
        seed=seed,
        # With one key, or if everything is dropped, q and k have no influence.
        zero=["input 0", "input 1", "input 2"],
        splits=False,
        tolerance=SHARP,
    )


@given(shapes_BNhE(), st.booleans(), seeds)
def test_fast_twin_equals_the_textbook(shape, dropout, seed):
    q, k, v, mask = draw_qkv(shape, seed, dropout)
    o, cache = textbook_forward(q, k, v, mask)
    o_fast, cache_fast = attention_fast_forward(q, k, v, mask)
    assert close(o_fast, o)
    do = normal(o.shape, seed + 4)
    assert close(attention_fast_backward(do, cache_fast), textbook_backward(do, cache))


@given(shapes_BNhE(), st.integers(1, 3), seeds)
def test_merge_heads_is_the_inverse_of_split_heads(shape, parts, seed):
    B, N, h, E = shape
    x = normal((B, N, parts * h * E), seed)
    heads = split_heads(x, parts, h)
    assert heads.shape == (parts, B, h, N, E)
    assert np.array_equal(merge_heads(heads), x)


@given(shapes_BNhE(), seeds)
def test_merging_the_fast_gradients_needs_no_copy(shape, seed):
    q, k, v, _ = draw_qkv(shape, seed, False)
    o, cache = attention_fast_forward(q, k, v)
    dqkv = attention_fast_backward(normal(o.shape, seed), cache)
    assert np.shares_memory(merge_heads(dqkv), dqkv)
    assert np.shares_memory(merge_heads(o[None]), o)


@given(shapes_BNhE(), st.booleans(), seeds)
def test_contract(shape, bias, seed):
    B, N, h, E = shape
    layer = Attention(h * E, h, qkv_bias=bias)
    check_layer_contract(layer, normal((B, N, h * E), seed), seed, tolerance=SHARP)


@given(shapes_BNhE(), seeds)
def test_contract_with_dropout(shape, seed):
    B, N, h, E = shape
    layer = Attention(h * E, h, dropout=0.4)
    check_layer_contract(
        layer,
        normal((B, N, h * E), seed),
        seed,
        splits=False,
        zero=["x", "qkv.w", "qkv.b", "proj.w"],  # everything may be dropped
        rng=lambda: np.random.default_rng(seed),
        tolerance=SHARP,
    )


@given(shapes_BNhE(), seeds)
def test_the_layer_is_the_textbook_between_two_linear_maps(shape, seed):
    """With dropout: the mask that the layer draws is applied to the probabilities."""
    B, N, h, E = shape
    layer, x = Attention(h * E, h, dropout=0.5), normal((B, N, h * E), seed)
    params = noisy(layer, seed)
    mask = draw_mask(np.random.default_rng(seed), (N, B, h, N), 0.5, x).transpose(1, 2, 3, 0)
    q, k, v = split_heads(x @ params["qkv.w"] + params["qkv.b"], 3, h)
    o, _ = textbook_forward(q, k, v, mask)
    wanted = o.transpose(0, 2, 1, 3).reshape(B, N, h * E) @ params["proj.w"] + params["proj.b"]
    assert close(layer.forward(params, x, np.random.default_rng(seed))[0], wanted)


@pytest.mark.parametrize("name", PAIRS)
def test_scores_are_scaled_by_the_width_of_a_head(name):
    q = np.full((1, 2, 2, 4), 3.0)
    k = np.stack([np.zeros((1, 2, 4)), np.ones((1, 2, 4))], axis=2)
    o, _ = PAIRS[name][0](q, k, k)
    assert o[0, 0, 0, 0] == pytest.approx(1 / (1 + np.exp(-12 / 2)))  # q · k = 12, √E = 2


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_extreme_scores_stay_finite(name, scale):
    forward, backward = PAIRS[name]
    q, k, v = normal((1, 1, 3, 2), 0) * scale, normal((1, 1, 3, 2), 1), normal((1, 1, 3, 2), 2)
    o, cache = forward(q, k, v)
    assert np.isfinite(o).all()
    assert np.isfinite(backward(np.ones_like(o), cache)).all()
