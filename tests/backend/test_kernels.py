"""The CUDA kernels against the readable functions that they replace.

On a machine without a GPU the kernels are compiled by g++ and run on the host.
"""

import numpy as np
import pytest
from both import READABLE, assert_agree, assert_pair_agrees, dtypes, shapes, to_gpu
from hypothesis import given, settings
from hypothesis import strategies as st

from numpyvit import losses
from numpyvit.backend import kernels
from numpyvit.backend.device import to_host
from numpyvit.backend.kernels import KERNELS
from numpyvit.backend.ops import col_sum
from numpyvit.engine.cuda_graph import Tape
from numpyvit.layers import (
    attention,
    attention_fast,
    attention_pool,
    dropout,
    gelu,
    layernorm,
    linear,
    patch_dropout,
    rotary,
    softmax,
)
from numpyvit.layers.dropout import draw_mask
from numpyvit.losses import as_probabilities
from numpyvit.optim import muon
from numpyvit.testing import assert_gradients, normal, seeds


@given(shapes, dtypes, seeds)
@settings(max_examples=15)
def test_layernorm(cupy, shape, dtype, seed):
    x = normal(shape, seed, dtype)
    gamma, beta = (normal(shape[-1:], seed + i, dtype) for i in (1, 2))
    assert_pair_agrees(layernorm, "layernorm", [x, gamma, beta, 0.1], dtype, seed)


@given(shapes, dtypes, seeds)
@settings(max_examples=15)
def test_gelu(cupy, shape, dtype, seed):
    assert_pair_agrees(gelu, "gelu_tanh", [4 * normal(shape, seed, dtype)], dtype, seed)


@given(shapes, dtypes, seeds)
@settings(max_examples=15)
def test_softmax(cupy, shape, dtype, seed):
    assert_pair_agrees(softmax, "softmax", [5 * normal(shape, seed, dtype)], dtype, seed)


@given(
    st.integers(0, 9),
    st.integers(1, 40),
    st.booleans(),
    st.sampled_from([0.0, 0.1]),
    st.sampled_from([None, 20]),
    dtypes,
    seeds,
)
@settings(max_examples=25)
def test_cross_entropy(cupy, B, K, soft, smoothing, count, dtype, seed):
    """With labels, and with rows of positive numbers that need not sum to 1."""
    logits = 5 * normal((B, K), seed, dtype)
    if soft:
        targets = abs(normal((B, K), seed + 1, dtype))
    else:
        targets = np.random.default_rng(seed).integers(0, K, B)
    t = as_probabilities(logits, targets)
    assert np.array_equal(to_host(as_probabilities(*to_gpu(logits, targets))), t)
    options = {"smoothing": smoothing, "count": count}
    assert_pair_agrees(losses, "cross_entropy", [logits, t], dtype, seed, **options)


@given(st.integers(1, 5), st.integers(1, 40), dtypes, seeds)
@settings(max_examples=10)
def test_the_cross_entropy_kernel_does_not_change_its_inputs(cupy, B, K, dtype, seed):
    logits, t = normal((B, K), seed, dtype), abs(normal((B, K), seed + 1, dtype))
    logits_there, t_there = to_gpu(logits, t)
    _, cache = KERNELS["cross_entropy_forward"](logits_there, t_there, smoothing=0.5)
    before = [to_host(a).copy() for a in cache[:3]]
    KERNELS["cross_entropy_backward"](1.0, cache)
    assert np.array_equal(to_host(logits_there), logits)
    assert np.array_equal(to_host(t_there), t)
    assert all(np.array_equal(to_host(a), b) for a, b in zip(cache[:3], before, strict=True))


@given(st.integers(1, 5), st.integers(1, 40), dtypes, seeds)
@settings(max_examples=10)
def test_the_cross_entropy_kernel_multiplies_by_the_gradient_of_the_loss(cupy, B, K, dtype, seed):
    logits, t = normal((B, K), seed, dtype), abs(normal((B, K), seed + 1, dtype))
    _, cache = READABLE["cross_entropy_forward"](logits, t)
    _, cache_there = KERNELS["cross_entropy_forward"](*to_gpu(logits, t))
    wanted = READABLE["cross_entropy_backward"](0.3, cache)
    assert_agree(KERNELS["cross_entropy_backward"](0.3, cache_there), wanted, dtype)


@given(
    st.integers(0, 2),
    st.integers(1, 3),
    st.sampled_from([1, 2, 5, 33]),
    st.booleans(),
    st.sampled_from([1, 40, 2**26]),
    dtypes,
    seeds,
)
@settings(max_examples=25)
def test_attention(cupy, B, h, N, dropped, stored, dtype, seed):
    """Also if there are too many scores to keep, so that they are computed in parts."""
    q, k, v, do = (normal((B, h, N, 3), seed + i, dtype) for i in range(4))
    rng = np.random.default_rng(seed)
    mask = attention.attention_mask(rng, 0.3, q) if dropped else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels.attention, "STORED", stored)
        assert_pair_agrees(attention, "attention", [q, k, v, mask], dtype, seed)
        _, cache = KERNELS["attention_forward"](*to_gpu(q, k, v, mask))
        dqkv = KERNELS["attention_backward"](*to_gpu(do), cache)
    assert (cache[3] is None) == (B * h * N * N > stored)
    assert dqkv.shape == (3, B, h, N, 3)


@given(st.integers(1, 2), st.integers(1, 3), st.integers(1, 5), st.booleans(), dtypes, seeds)
@settings(max_examples=15)
def test_attention_equals_the_fast_twin(cupy, B, h, N, dropped, dtype, seed):
    q, k, v, do = (normal((B, h, N, 3), seed + i, dtype) for i in range(4))
    rng = np.random.default_rng(seed)
    mask = attention.attention_mask(rng, 0.3, q) if dropped else None
    o, cache = attention_fast.attention_fast_forward(q, k, v, mask)
    o_there, cache_there = attention.attention_forward(*to_gpu(q, k, v, mask))
    assert_agree(o_there, o, dtype)
    dqkv = attention_fast.attention_fast_backward(do, cache)
    assert_agree(attention.attention_backward(*to_gpu(do), cache_there), dqkv, dtype)


def test_merging_the_heads_of_the_attention_kernels_needs_no_copy(cupy):
    q, k, v, do = to_gpu(*(normal((2, 3, 5, 4), i) for i in range(4)))
    o, cache = KERNELS["attention_forward"](q, k, v)
    dqkv = KERNELS["attention_backward"](do, cache)
    assert o.transpose(0, 2, 1, 3).flags.c_contiguous
    assert dqkv.transpose(1, 3, 0, 2, 4).flags.c_contiguous


@given(
    st.sampled_from([(), (0,), (1,), (5,), (2, 3)]),
    st.integers(1, 9),
    st.integers(1, 40),
    st.booleans(),
    dtypes,
    seeds,
)
@settings(max_examples=25)
def test_linear(cupy, lead, I, O, bias, dtype, seed):
    x, w = normal((*lead, 2, I), seed, dtype), normal((I, O), seed + 1, dtype)
    b = normal((O,), seed + 2, dtype)
    assert_pair_agrees(linear, "linear", [x, w, b if bias else None], dtype, seed)
    dy = normal((*lead, 2, O), seed + 3, dtype)
    x_there, w_there, dy_there = to_gpu(x, w, dy)
    _, cache = linear.linear_forward(x_there, w_there, None)
    dx, dw, db = linear.linear_backward(dy_there, cache, need_dx=False)
    assert dx is db is None
    assert_agree(dw, x.reshape(-1, I).T @ dy.reshape(-1, O), dtype)


@given(
    st.integers(0, 40),
    st.sampled_from([1, 32, 33, 70]),
    st.booleans(),
    st.sampled_from([1, 3, 256]),
    dtypes,
    seeds,
)
@settings(max_examples=25)
def test_column_sums(cupy, rows, D, both, chunk, dtype, seed):
    """Also of more rows than one block adds up."""
    x, factor = normal((rows, D), seed, dtype), normal((rows, D), seed + 1, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels.columns, "CHUNK", chunk)
        found = kernels.columns.column_sums(*to_gpu(x, factor)[: 1 + both])
        assert_agree(col_sum(*to_gpu(x[None])), x.sum(0), dtype)
    wanted = np.array([x.sum(0), (x * factor).sum(0)])
    assert_agree(found, wanted[: 1 + both], dtype)


@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(3, 6),
    st.sampled_from([1, 2, 3]),
    st.booleans(),
    st.booleans(),
    dtypes,
    seeds,
)
@settings(max_examples=25)
def test_attention_pool(cupy, B, h, N, M, bias, dropped, dtype, seed):
    """It has no kernel, but its products and sums do."""
    D = 4 * h
    q, x = normal((B, M, D), seed, dtype), normal((B, N, D), seed + 1, dtype)
    wk, wv = (normal((D, D), seed + i, dtype) for i in (2, 3))
    bv = normal((D,), seed + 4, dtype) if bias else None
    mask = draw_mask(np.random.default_rng(seed), (N, B, h, M), 0.3, x) if dropped else None
    inputs = [q, x, wk, wv, bv, h, mask]
    assert_pair_agrees(attention_pool, "attention_pool", inputs, dtype, seed)


@given(st.integers(0, 3), st.integers(1, 3), st.integers(1, 6), dtypes, seeds)
@settings(max_examples=15)
def test_rotary(cupy, B, h, N, dtype, seed):
    """It has no kernel; its fast twin is what runs on a GPU too."""
    x = normal((B, h, N, 8), seed, dtype)
    rotation = rotary.rotation_table((1, N), 8, dtype=dtype)
    assert_pair_agrees(rotary, "rotary", [x, rotation], dtype, seed)


@given(
    st.integers(0, 5),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([1, 2, 9, 2**64]),
    seeds,
)
@settings(max_examples=25)
def test_choose_patches(cupy, B, n, m, high, seed):
    """Also with equal numbers: those that come first are chosen."""
    bits = np.random.default_rng(seed).integers(0, high, (B, n), np.uint64)
    m = min(m, n)
    found = KERNELS["choose_patches"](*to_gpu(bits), m)
    assert np.array_equal(to_host(found), READABLE["choose_patches"](bits, m))
    assert found.dtype == np.int64
    assert np.array_equal(to_host(patch_dropout.choose_patches(*to_gpu(bits), m)), to_host(found))


@given(
    st.integers(0, 3),
    st.integers(1, 6),
    st.integers(1, 40),
    st.sampled_from([0.0, 0.3]),
    st.booleans(),
    dtypes,
    seeds,
)
@settings(max_examples=40)
def test_dropout(cupy, B, N, D, p, in_training, dtype, seed):
    """The masks are the same, whether the random bits are drawn on the host or lie on the GPU."""
    x, dy = (normal((B, N, D), seed + i, dtype) for i in range(2))
    y, mask = READABLE["dropout_forward"](
        x, p, np.random.default_rng(seed) if in_training else None
    )
    dx = READABLE["dropout_backward"](dy, mask)
    generators = [None]
    if in_training:
        generators = [
            np.random.default_rng(seed),
            Tape(np.random.default_rng(seed), cupy),
        ]
    for rng in generators:
        x_there, dy_there = to_gpu(x, dy)
        y_there, cache = KERNELS["dropout_forward"](x_there, p, rng)
        assert_agree(y_there, y, dtype)
        assert_agree(KERNELS["dropout_backward"](dy_there, cache), dx, dtype)
        assert np.array_equal(to_host(x_there), x)
        assert (cache is None) == (mask is None)


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 9), dtypes, seeds)
@settings(max_examples=15)
def test_drop_path(cupy, B, N, D, dtype, seed):
    """It has no kernel; the mask, one value for each image, comes from the same draws."""
    x = normal((B, N, D), seed, dtype)
    y, mask = dropout.drop_path_forward(x, 0.4, np.random.default_rng(seed))
    rng = Tape(np.random.default_rng(seed), cupy)
    y_there, mask_there = dropout.drop_path_forward(*to_gpu(x), 0.4, rng)
    assert_agree(y_there, y, dtype)
    wanted = dropout.drop_path_backward(x, mask)
    assert_agree(dropout.drop_path_backward(*to_gpu(x), mask_there), wanted, dtype)


@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), dtypes, seeds)
@settings(max_examples=15)
def test_orthogonalise(cupy, n, I, O, dtype, seed):
    m = normal((n, I, O), seed, dtype)
    constants = (muon.COEFFICIENTS, muon.ITERATIONS)
    (m_there,) = to_gpu(m)
    found = to_host(KERNELS["orthogonalise"](m_there, *constants))
    wanted = [muon.orthogonalise(matrix) for matrix in m]
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)
    assert np.array_equal(to_host(m_there), m)


@given(st.integers(0, 300), st.booleans(), st.sampled_from([0.0, 0.2]), dtypes, seeds)
@settings(max_examples=15)
def test_adamw(cupy, n, average, weight_decay, dtype, seed):
    arrays = [normal((n,), seed + i, dtype) for i in range(5)]  # p, g, m, v, average
    arrays[3] **= 2
    here, there = [a.copy() for a in arrays], to_gpu(*arrays)
    numbers = (0.1, 0.2, 1e-3, 0.9)
    ways = (READABLE["adamw_update"], here, np), (KERNELS["adamw_update"], there, cupy)
    for update, state, xp in ways:
        update(
            *state[:4],
            state[4] if average else None,
            scale=xp.asarray(np.array(0.3, dtype)),
            betas=(0.9, 0.999),
            numbers=xp.asarray(np.array(numbers, dtype)),
            weight_decay=weight_decay,
        )
    for found, wanted in zip(there, here, strict=True):
        assert_agree(found, wanted, dtype)
    assert np.array_equal(to_host(there[1]), arrays[1])


@pytest.mark.parametrize("name", ["layernorm", "gelu_tanh", "softmax"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_infinite_and_large_values_give_the_results_of_the_readable_function(cupy, name, bad):
    x = normal((3, 40), 0, np.float32)
    x[1, 35] = bad
    others = []
    if name == "layernorm":
        others = [np.ones(40, np.float32), np.zeros(40, np.float32), 1e-6]
    with np.errstate(all="ignore"):
        wanted, _ = READABLE[f"{name}_forward"](x, *others)
    found, _ = KERNELS[f"{name}_forward"](*to_gpu(x, *others))
    np.testing.assert_allclose(to_host(found), wanted, rtol=1e-4, atol=1e-6)


def test_gradients_of_the_kernels_by_finite_differences(cupy):
    x, gamma, beta = to_gpu(normal((2, 3, 6), 0), normal((6,), 1), normal((6,), 2))

    def layernorm_forward(*inputs):
        return KERNELS["layernorm_forward"](*inputs, 0.1)

    assert_gradients(layernorm_forward, KERNELS["layernorm_backward"], x, gamma, beta)
    for name in ("gelu_tanh", "softmax"):
        assert_gradients(KERNELS[f"{name}_forward"], KERNELS[f"{name}_backward"], x)
    logits = x[:, 0]
    t = as_probabilities(logits, *to_gpu(np.array([0, 5])))

    def cross_entropy_forward(logits):
        return KERNELS["cross_entropy_forward"](logits, t, smoothing=0.1)

    assert_gradients(cross_entropy_forward, KERNELS["cross_entropy_backward"], logits)
    q, k, v = to_gpu(*(normal((2, 2, 3, 4), i) for i in range(3)))

    def attention_backward(do, cache):
        return tuple(KERNELS["attention_backward"](do, cache))

    assert_gradients(KERNELS["attention_forward"], attention_backward, q, k, v)
