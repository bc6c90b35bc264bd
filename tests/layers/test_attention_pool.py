import inspect

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from numpyvit.gradcheck import SHARP
from numpyvit.layers.attention import Attention, attention_backward, attention_forward, split_heads
from numpyvit.layers.attention_pool import (
    ClsAttention,
    attention_pool_backward,
    attention_pool_forward,
)
from numpyvit.params import Buffer, init
from numpyvit.testing import (
    check_layer_contract,
    check_pair_contract,
    close,
    normal,
    seeds,
    shapes_BNhE,
)


def draw(shape, M, bias, dropout, seed):
    """Draw q (B, M, D), x, wk, wv, bv or None, and a mask (N, B, h, M) or None."""
    B, N, h, E = shape
    D = h * E
    q, x = normal((B, M, D), seed), normal((B, N, D), seed + 1)
    wk, wv = normal((D, D), seed + 2), normal((D, D), seed + 3)
    bv = normal((D,), seed + 4) if bias else None
    mask = (normal((N, B, h, M), seed + 5) > 0) * 2.0 if dropout else None
    return q, x, wk, wv, bv, mask


@given(shapes_BNhE(), st.booleans(), st.booleans(), seeds)
def test_equals_the_textbook(shape, bias, dropout, seed):
    """With as many queries as tokens, keys and values are computed and attention is applied."""
    B, N, h, E = shape
    q, x, wk, wv, bv, mask = draw(shape, N, bias, dropout, seed)
    q_heads, k, v = split_heads(
        np.concatenate([q, x @ wk, x @ wv + (bv if bias else 0)], axis=2), 3, h
    )
    o, cache = inspect.unwrap(attention_forward)(
        q_heads, k, v, mask.transpose(1, 2, 3, 0) if dropout else None
    )
    pooled, pool_cache = attention_pool_forward(q, x, wk, wv, bv, h, mask)
    assert close(pooled, o.transpose(0, 2, 1, 3).reshape(B, N, h * E))

    do = normal(pooled.shape, seed + 6)
    dqkv = inspect.unwrap(attention_backward)(split_heads(do, 1, h)[0], cache)
    dq, dk, dv = (d.transpose(0, 2, 1, 3).reshape(B, N, h * E) for d in dqkv)
    found = attention_pool_backward(do, pool_cache)
    assert close(found[0], dq)
    assert close(found[1], dk @ wk.T + dv @ wv.T)
    assert close(found[2], np.einsum("bni,bno->io", x, dk))
    assert close(found[3], np.einsum("bni,bno->io", x, dv))
    assert found[4] is None if bv is None else close(found[4], dv.sum((0, 1)))


@given(shapes_BNhE(), st.integers(1, 3), st.booleans(), seeds)
def test_pair(shape, M, dropout, seed):
    *inputs, mask = draw(shape, M, True, dropout, seed)
    heads = shape[2]

    def forward(q, x, wk, wv, bv):
        typed = None if mask is None else mask.astype(q.dtype)
        return attention_pool_forward(q, x, wk, wv, bv, heads, typed)

    # With one key, or if everything is dropped, some inputs have no influence.
    zero = [f"input {i}" for i in range(5)]
    check_pair_contract(
        forward,
        attention_pool_backward,
        *inputs,
        seed=seed,
        zero=zero,
        splits=False,
        tolerance=SHARP,
    )


@given(shapes_BNhE(), st.booleans(), seeds)
def test_contract_of_the_class_tokens_attention(shape, bias, seed):
    B, N, h, E = shape
    layer = ClsAttention(h * E, h, qkv_bias=bias)
    check_layer_contract(layer, normal((B, N, h * E), seed), seed, tolerance=SHARP)


@given(shapes_BNhE(max_N=6), st.sampled_from([0.0, 0.4]), st.booleans(), seeds)
def test_the_class_tokens_attention_is_the_first_row_of_attention(shape, dropout, bias, seed):
    B, N, h, E = shape
    full = Attention(h * E, h, qkv_bias=bias, dropout=dropout)
    first = ClsAttention(h * E, h, qkv_bias=bias, dropout=dropout)
    x, params = normal((B, N, h * E), seed), init(full, seed, np.float64)
    params.flat += normal(params.flat.shape, seed) / 3
    y, cache = full.forward(params, x, np.random.default_rng(seed))
    params1 = Buffer(dict(zip(params, init(first).params.values(), strict=True)), params.flat)
    y1, cache1 = first.forward(params1, x, np.random.default_rng(seed))
    assert close(y1, y[:, :1])
    dy = np.zeros_like(y)
    dy[:, :1] = normal(y1.shape, seed)
    g, g1 = params.zeros_like(), params1.zeros_like()
    assert close(first.backward(dy[:, :1], cache1, g1), full.backward(dy, cache, g))
    assert close(g1.flat, g.flat)
