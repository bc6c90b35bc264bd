"""Matrix products by cuBLAS: memory layouts, precisions and errors."""

import numpy as np
import pytest
from both import assert_agree, dtypes, to_gpu
from conftest import is_standin
from hypothesis import given, settings
from hypothesis import strategies as st
from standin import blas

from numpyvit.backend.arrays import get_xp
from numpyvit.backend.device import to_host
from numpyvit.backend.kernels import gemm
from numpyvit.backend.ops import matmul
from numpyvit.errors import UserError
from numpyvit.testing import normal, seeds

layouts = st.sampled_from(["rows", "columns", "part", "heads", "steps", "same"])


def lay(x, layout):
    """Return a copy of x whose memory layout is of this kind.

    "columns": stored by columns; "part": a part of wider rows; "heads": with the last of the
    leading axes behind the rows; "steps": with a gap after each element and each row.
    """
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
    matrices = [(m, k), (k, n), (m, n)]
    a, b, y = (normal((*lead, *s), seed + i, dtype) for i, s in enumerate(matrices))
    wanted = dtype(alpha) * (a @ b) + dtype(beta) * y
    a_there, b_there, out = (
        lay(x, layout) for x, layout in zip(to_gpu(a, b, y), (of_a, of_b, of_out), strict=True)
    )
    assert gemm.product(a_there, b_there, out, alpha, beta) is out
    assert_agree(out, wanted, dtype)
    assert matmul(a_there, b_there, out) is out
    assert_agree(out, a @ b, dtype)
    assert_agree(matmul(*to_gpu(a, b)), a @ b, dtype)


def test_products_of_shapes_or_dtypes_that_do_not_fit_are_refused(cupy):
    a, b = to_gpu(normal((2, 3), 0), normal((3, 4), 1))
    with pytest.raises(ValueError, match="does not make"):
        matmul(b, a)
    with pytest.raises(ValueError, match="float32 times float64"):
        matmul(a.astype("f4"), b)


@pytest.mark.parametrize(
    ("name", "low", "high"), [("float32", 0, 1e-6), ("tf32", 1e-5, 1e-3), ("float16", 1e-5, 1e-3)]
)
def test_the_error_of_products_in_each_precision(cupy, name, low, high):
    a, b = normal((40, 50), 0, np.float32), normal((50, 60), 1, np.float32)
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    exact = a64 @ b64
    with gemm.precision(name):
        found = to_host(matmul(*to_gpu(a, b)))
        double = to_host(matmul(*to_gpu(a64, b64)))
    error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    assert error < high
    assert error >= low or not is_standin(cupy)  # a GPU may have no tf32
    assert np.allclose(double, exact, rtol=1e-12)
    assert found.dtype == np.float32


def test_an_unknown_precision_is_refused():
    with pytest.raises(UserError, match="precision"), gemm.precision("float8"):
        pass


def test_cublas_has_the_prototypes_of_its_header():
    assert gemm.PROTOTYPES == blas.PROTOTYPES
