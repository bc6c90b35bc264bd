"""The fused kernels against the readable functions whose twins they are, on the host: CUDA compiled by g++."""

import inspect
import shutil
import subprocess

import numpy as np
import pytest
from conftest import is_standin
from hypothesis import given, settings
from hypothesis import strategies as st
from standin import blas, compiled, strict

from numpyvit import losses
from numpyvit.backend import arrays as backend
from numpyvit.backend import kernels
from numpyvit.backend.arrays import col_sum, fused, get_xp, matmul
from numpyvit.backend.device import to, to_host
from numpyvit.backend.kernels import TWINS, launch
from numpyvit.backend.kernels import gemm as products
from numpyvit.engine.cuda_graph import Tape
from numpyvit.errors import UserError
from numpyvit.layers import attention_fast as keys_first
from numpyvit.layers import attention_pool as few_queries
from numpyvit.layers import dropout, gelu, layernorm, linear, patch_dropout, softmax
from numpyvit.layers.dropout import draw_mask
from numpyvit.optim import adamw as optim
from numpyvit.optim import muon
from numpyvit.testing import assert_gradients, normal, seeds

PAGES = backend, dropout, layernorm, gelu, softmax, losses, keys_first, optim, muon, patch_dropout
READABLE = {name: getattr(page, name) for page in PAGES for name in TWINS if hasattr(page, name)}
NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


def there(*arrays):
    return [to(a, "cuda") for a in arrays]


def assert_agree(found, wanted, dtype):
    eps = np.finfo(dtype).eps
    assert found.dtype == dtype
    np.testing.assert_allclose(
        to_host(found), wanted, rtol=200 * eps, atol=100 * eps * (1 + abs(wanted).max(initial=0))
    )


def assert_same_there(page, name, inputs, dtype, seed, **options):
    """A page's pair on the host, and what runs on a GPU in its place, its twins if it has any: they agree."""
    f, b = getattr(page, f"{name}_forward"), getattr(page, f"{name}_backward")
    f2, b2 = (fused(g, *there(np.zeros(1, dtype))) for g in (f, b))
    y, cache = f(*inputs, **options)
    on_gpu = [to(a, "cuda") if isinstance(a, np.ndarray) else a for a in inputs]
    y2, cache2 = f2(*on_gpu, **options)
    assert_agree(y2, y, dtype)
    dy = np.asarray(normal(np.shape(y), seed + 9, dtype)) if np.shape(y) else 1.0
    grads = b(dy, cache)
    grads2 = b2(to(dy, "cuda") if np.shape(y) else 1.0, cache2)
    grads, grads2 = (g if isinstance(g, tuple) else (g,) for g in (grads, grads2))
    for found, wanted in zip(grads2, grads, strict=True):
        assert (found is None) == (wanted is None)
        if found is not None:
            assert_agree(found, wanted, dtype)


dtypes = st.sampled_from([np.float32, np.float64])
shapes = st.tuples(st.integers(0, 5), st.integers(1, 9), st.sampled_from([1, 2, 31, 32, 33, 70]))


@given(shapes, dtypes, seeds)
@settings(max_examples=15)
def test_layernorm(cupy, shape, dtype, seed):
    x, gamma, beta = (
        normal(shape, seed, dtype),
        normal(shape[-1:], seed + 1, dtype),
        normal(shape[-1:], seed + 2, dtype),
    )
    assert_same_there(layernorm, "layernorm", [x, gamma, beta, 0.1], dtype, seed)


@given(shapes, dtypes, seeds)
@settings(max_examples=15)
def test_gelu(cupy, shape, dtype, seed):
    assert_same_there(gelu, "gelu_tanh", [4 * normal(shape, seed, dtype)], dtype, seed)


@given(shapes, dtypes, seeds)
@settings(max_examples=15)
def test_softmax(cupy, shape, dtype, seed):
    assert_same_there(softmax, "softmax", [normal(shape, seed, dtype) * 5], dtype, seed)


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
    logits = normal((B, K), seed, dtype) * 5
    targets = (
        abs(normal((B, K), seed + 1, dtype))
        if soft
        else np.random.default_rng(seed).integers(0, K, B)
    )
    assert_same_there(
        losses, "cross_entropy", [logits, targets], dtype, seed, smoothing=smoothing, count=count
    )
    before = targets.copy()
    (moved,) = there(targets)
    TWINS["cross_entropy_forward"](to(logits, "cuda"), moved, smoothing=0.5)
    assert np.array_equal(to_host(moved), before)


@given(
    st.integers(0, 2),
    st.integers(1, 3),
    st.integers(1, 5),
    st.sampled_from([1, 5, 33]),
    st.booleans(),
    st.sampled_from([1, 40, 2**26]),
    dtypes,
    seeds,
)
@settings(max_examples=25)
def test_attention(cupy, B, h, M, N, dropped, stored, dtype, seed):
    """Also where the scores are too many to be kept, and are made for a few queries at a time."""
    q, k, v, do = (normal((B, h, n, 3), seed + i, dtype) for i, n in enumerate((M, N, N, M)))
    mask = draw_mask(np.random.default_rng(seed), (N, B, h, M), 0.3, q) if dropped else None
    wanted, found = (
        [np.empty_like(x) for x in (q, k, v)],
        there(*(np.empty_like(x) for x in (q, k, v))),
    )
    o, cache = keys_first.keys_first_forward(q, k, v, mask)
    keys_first.keys_first_backward(do, cache, wanted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels.attention, "STORED", stored)
        o2, cache2 = TWINS["keys_first_forward"](
            *there(q, k, v), None if mask is None else to(mask, "cuda")
        )
        TWINS["keys_first_backward"](to(do, "cuda"), cache2, found)
    assert (cache2[3] is None) == (B * h * M * N > stored)
    assert_agree(o2, o, dtype)
    for a, b in zip(found, wanted, strict=True):
        assert_agree(a, b, dtype)


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
    x, w, b = (
        normal((*lead, 2, I), seed, dtype),
        normal((I, O), seed + 1, dtype),
        normal((O,), seed + 2, dtype),
    )
    assert_same_there(linear, "linear", [x, w, b if bias else None], dtype, seed)
    x2, w2, dy = there(x, w, normal((*lead, 2, O), seed + 3, dtype))
    dx, dw, db = linear.linear_backward(dy, linear.linear_forward(x2, w2, None)[1], need_dx=False)
    assert dx is db is None
    assert_agree(dw, x.reshape(-1, I).T @ to_host(dy).reshape(-1, O), dtype)


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
    """Also of more rows than a block adds up."""
    x, factor = normal((rows, D), seed, dtype), normal((rows, D), seed + 1, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels.columns, "CHUNK", chunk)
        found = kernels.columns.column_sums(*there(x, factor)[: 1 + both])
        assert_agree(col_sum(*there(x[None])), x.sum(0), dtype)
    assert_agree(found, np.array([x.sum(0), (x * factor).sum(0)][: 1 + both]), dtype)


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
def test_few_queries(cupy, B, h, N, rows, bias, dropped, dtype, seed):
    D = 4 * h
    x, w, b = (normal(s, seed + i, dtype) for i, s in enumerate([(B, N, D), (D, 3 * D), (3 * D,)]))
    mask = draw_mask(np.random.default_rng(seed), (N, B, h, rows), 0.3, x) if dropped else None
    assert_same_there(
        few_queries, "few_queries", [x, w, b if bias else None, h, rows, mask], dtype, seed
    )


@given(
    st.integers(0, 5),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([1, 2, 9, 2**64]),
    seeds,
)
@settings(max_examples=25)
def test_choose_patches(cupy, B, n, patches, high, seed):
    """Also where numbers are the same: those that come first stay."""
    bits = np.random.default_rng(seed).integers(0, high, (B, n), np.uint64)
    found = to_host(TWINS["choose_patches"](*there(bits), min(patches, n)))
    assert np.array_equal(found, patch_dropout.choose_patches(bits, min(patches, n)))
    assert found.dtype == np.int64


@given(
    st.integers(0, 3),
    st.integers(1, 6),
    st.integers(1, 40),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([0.0, 0.4]),
    st.sampled_from([1, 2, None]),
    st.booleans(),
    dtypes,
    seeds,
)
@settings(max_examples=40)
def test_add_branch(cupy, B, N, D, p, path, rows, draws, dtype, seed):
    """The same masks, whether they are drawn on the host or lie on the GPU."""
    x, a, dy = (normal((B, N, D), seed + i, dtype)[:, :rows] for i in range(3))
    rng = np.random.default_rng(seed) if draws else None
    y, cache = dropout.add_branch_forward(x, a, p, path, rng, (B, N, D))
    da = dropout.add_branch_backward(dy, cache)
    tape = Tape(np.random.default_rng(seed), cupy) if draws else None
    for rng in [np.random.default_rng(seed) if draws else None, tape]:
        y2, cache2 = TWINS["add_branch_forward"](*there(x, a), p, path, rng, (B, N, D))
        assert_agree(y2, y, dtype)
        assert_agree(TWINS["add_branch_backward"](*there(dy), cache2), da, dtype)


@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), dtypes, seeds)
@settings(max_examples=15)
def test_orthogonal(cupy, n, I, O, dtype, seed):
    m = normal((n, I, O), seed, dtype)
    found = to_host(TWINS["orthogonal"](*there(m)))
    np.testing.assert_allclose(found, [muon.orthogonal(one) for one in m], rtol=1e-3, atol=1e-3)


layouts = st.sampled_from(["rows", "columns", "part", "heads", "steps", "same"])


def lay(x, layout):
    """x, in another place, with other strides: its columns, or a part of something larger, or with gaps, or of one row."""
    *lead, r, c = x.shape
    xp = get_xp(x)
    if layout == "columns":
        y = xp.empty((*lead, c, r), x.dtype).swapaxes(-1, -2)
    elif layout == "part":
        y = xp.empty((*lead, r, c + 3), x.dtype)[..., 1 : 1 + c]
    elif layout == "heads" and lead:
        y = xp.empty((*lead[:-1], r, lead[-1], c), x.dtype).swapaxes(-2, -3)
    elif layout == "steps":
        y = xp.empty((*lead, 2 * r, 2 * c), x.dtype)[..., ::2, ::2]
    else:
        y = xp.empty_like(x)
    y[...] = x
    return y


@given(
    st.sampled_from([(), (1,), (3,), (2, 3)]),
    st.integers(1, 5),
    st.integers(0, 5),
    st.integers(1, 5),
    layouts,
    layouts,
    layouts,
    st.sampled_from([1.0, 0.3]),
    st.sampled_from([0.0, 1.0, -2.0]),
    dtypes,
    seeds,
)
@settings(max_examples=100)
def test_products_of_any_layout(cupy, lead, m, k, n, of_a, of_b, of_out, alpha, beta, dtype, seed):
    a, b, y = (normal((*lead, *s), seed + i, dtype) for i, s in enumerate([(m, k), (k, n), (m, n)]))
    wanted = dtype(alpha) * (a @ b) + dtype(beta) * y
    a2, b2, out = (
        lay(x, layout) for x, layout in zip(there(a, b, y), (of_a, of_b, of_out), strict=True)
    )
    found = products.product(a2, b2, out, alpha, beta)
    assert found is out
    assert_agree(out, wanted, dtype)
    assert matmul(a2, b2, out) is out
    for y in (out, matmul(*there(a, b))):
        assert_agree(y, a @ b, dtype)


def test_products_refuse_what_does_not_fit(cupy):
    a, b = there(normal((2, 3), 0), normal((3, 4), 1))
    with pytest.raises(ValueError, match="does not make"):
        matmul(b, a)
    with pytest.raises(ValueError, match="float32 times float64"):
        matmul(a.astype("f4"), b)


@pytest.mark.parametrize(
    ("name", "low", "high"), [("float32", 0, 1e-6), ("tf32", 1e-5, 1e-3), ("float16", 1e-5, 1e-3)]
)
def test_products_in_a_lower_precision_are_so_far_off(cupy, name, low, high):
    a, b = normal((40, 50), 0, np.float32), normal((50, 60), 1, np.float32)
    exact = a.astype("f8") @ b.astype("f8")
    with products.precision(name):
        found = to_host(matmul(*there(a, b)))
        double = to_host(matmul(*there(a.astype("f8"), b.astype("f8"))))
    assert (
        (low if is_standin(cupy) else 0)
        <= np.linalg.norm(found - exact) / np.linalg.norm(exact)
        < high
    )
    assert np.allclose(double, exact, rtol=1e-12)
    assert found.dtype == np.float32


def test_an_unknown_precision_is_refused():
    with pytest.raises(UserError, match="precision"), products.precision("float8"):
        pass


def test_cublas_is_called_as_its_header_says():
    assert products.PROTOTYPES == blas.PROTOTYPES


@given(st.integers(0, 300), st.booleans(), st.sampled_from([0.0, 0.2]), dtypes, seeds)
@settings(max_examples=15)
def test_adamw(cupy, n, average, weight_decay, dtype, seed):
    arrays = [normal((n,), seed + i, dtype) for i in range(5)]
    arrays[3] **= 2
    here, on_gpu = [a.copy() for a in arrays], there(*arrays)
    numbers = (0.1, 0.2, 1e-3, 0.9)
    for f, group, move in (
        (optim.adamw_update, here, np.asarray),
        (TWINS["adamw_update"], on_gpu, cupy.asarray),
    ):
        f(
            *group[:4],
            group[4] if average else None,
            scale=move(np.array(0.3, dtype)),
            betas=(0.9, 0.999),
            numbers=move(np.array(numbers, dtype)),
            weight_decay=weight_decay,
        )
    for found, wanted in zip(on_gpu, here, strict=True):
        assert_agree(found, wanted, dtype)


@pytest.mark.parametrize("name", ["layernorm", "gelu_tanh", "softmax"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_what_is_not_finite_or_large_is_as_in_the_readable_function(cupy, name, bad):
    x = normal((3, 40), 0, np.float32)
    x[1, 35] = bad
    rest = [np.ones(40, np.float32), np.zeros(40, np.float32), 1e-6] if name == "layernorm" else []
    with np.errstate(all="ignore"):
        wanted, _ = READABLE[f"{name}_forward"](x, *rest)
    found, _ = TWINS[f"{name}_forward"](
        *(to(a, "cuda") if isinstance(a, np.ndarray) else a for a in [x, *rest])
    )
    np.testing.assert_allclose(to_host(found), wanted, rtol=1e-4, atol=1e-6)


def test_each_twin_has_the_name_and_signature_of_its_readable_function():
    assert set(READABLE) == set(TWINS)
    for name, f in TWINS.items():
        ours, theirs = (inspect.signature(g).parameters.values() for g in (f, READABLE[name]))
        assert [(p.name, p.kind, p.default) for p in ours] == [
            (p.name, p.kind, p.default) for p in theirs
        ]


def test_they_are_found_on_a_gpu_only_and_for_the_dtypes_they_have(cupy):
    f, x = softmax.softmax_forward, np.ones((2, 3), np.float32)
    assert fused(f, x) is f
    assert fused(f, to(x, "cuda")) is TWINS["softmax_forward"]
    assert fused(f, to(x.astype(np.float16), "cuda")) is f
    assert fused(gelu.gelu_erf_forward, to(x, "cuda")) is gelu.gelu_erf_forward


def test_gradients_of_the_twins_by_differences(cupy):
    x, gamma, beta = there(normal((2, 3, 6), 0), normal((6,), 1), normal((6,), 2))
    assert_gradients(
        lambda *a: TWINS["layernorm_forward"](*a, 0.1), TWINS["layernorm_backward"], x, gamma, beta
    )
    for name in ("gelu_tanh", "softmax"):
        assert_gradients(TWINS[f"{name}_forward"], TWINS[f"{name}_backward"], x)
    (labels,) = there(np.array([0, 5]))
    assert_gradients(
        lambda x: TWINS["cross_entropy_forward"](x, labels, smoothing=0.1),
        TWINS["cross_entropy_backward"],
        x[:, 0],
    )


CODES = {name: page.CODE for name, page in vars(kernels).items() if hasattr(page, "CODE")}


@pytest.mark.parametrize("page", CODES)
@pytest.mark.parametrize("dtype", launch.TYPES)
def test_nvcc_takes_the_code(page, dtype, tmp_path):
    if NVCC is None:
        pytest.skip("nvcc is not here")
    (tmp_path / "kernel.cu").write_text(f"typedef {launch.TYPES[dtype]} T;\n{CODES[page]}")
    done = subprocess.run(
        [NVCC, "-ptx", "-std=c++17", "-Werror", "all-warnings", "kernel.cu"],
        cwd=tmp_path,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


BARRIER = """
extern "C" __global__ void turn(const T* x, T* y, long long n) {
    __shared__ T s[64];
    if (threadIdx.x < n) s[threadIdx.x] = x[threadIdx.x];
    %s
    if (threadIdx.x < n) y[threadIdx.x] = s[n - 1 - threadIdx.x];
}
"""


def test_the_host_sees_a_missing_barrier_and_one_that_not_all_reach(standin):
    x, y = there(np.arange(64.0), np.zeros(64))

    def turn(barrier):
        launch.launch(BARRIER % barrier, "turn", 1, 64, x, y, 64, dtype=np.float64)
        return to_host(y).tolist()

    assert turn("__syncthreads();") == list(range(63, -1, -1))
    assert turn("") != list(range(63, -1, -1))
    with pytest.raises(strict.Refused, match="threads wait for others that never come"):
        turn("if (threadIdx.x == 0) __syncthreads(); else __syncwarp();")


@pytest.mark.parametrize(
    "args",
    [
        lambda x: (x.astype(np.float32), x, np.int64(3)),
        lambda x: (x, x, np.int32(3)),
        lambda x: (x, x, 3),
        lambda x: (x[::2], x, np.int64(3)),
        lambda x: (np.ones(64), x, np.int64(3)),
        lambda x: (x, x),
    ],
)
def test_the_host_refuses_what_cuda_would_take_in_silence(standin, args):
    if compiled.CXX is None:
        pytest.skip("g++ is not here")
    (x,) = there(np.arange(64.0))
    with pytest.raises(strict.Refused):
        launch.kernel(BARRIER % "", "turn", "float64")((1,), (64,), args(x))
