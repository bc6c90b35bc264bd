"""The operations of backend/ops.py against their plain formulas, and the two decorators."""

import inspect
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit.backend.ops import (
    col_sum,
    fast_twin,
    filled,
    matmul,
    on_gpu,
    row_dot,
    row_mean,
    row_sum,
    textbook,
    transposed,
)
from numpyvit.testing import close, normal, seeds

widths = st.sampled_from([3, 40])  # row_dot changes its method above 32 columns
shapes = st.tuples(st.lists(st.integers(0, 4), min_size=1, max_size=4), widths).map(
    lambda s: (*s[0], s[1])
)


@given(shapes, seeds)
def test_the_operations_equal_their_plain_formulas(shape, seed):
    a, b = normal(shape, seed), normal(shape, seed + 1)
    assert close(row_sum(a), a.sum(-1, keepdims=True))
    assert close(row_mean(a), a.sum(-1, keepdims=True) / a.shape[-1])
    assert close(row_dot(a, b), (a * b).sum(-1, keepdims=True))
    assert close(col_sum(a), a.sum(tuple(range(a.ndim - 1))))
    t = transposed(a, 0.5)
    assert np.array_equal(t, 0.5 * a.swapaxes(-1, -2))
    assert t.flags.c_contiguous


@given(st.lists(st.integers(1, 3), max_size=2), *[st.integers(1, 4)] * 3, seeds)
def test_matmul_also_writes_to_a_given_array(lead, m, k, n, seed):
    a, b = normal((*lead, m, k), seed), normal((*lead, k, n), seed + 1)
    out = np.empty((*lead, m, n))
    assert np.array_equal(matmul(a, b), a @ b)
    assert matmul(a, b, out) is out
    assert np.array_equal(out, a @ b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_the_operations_keep_the_dtype(dtype):
    a = normal((2, 3, 5), 0, dtype)
    results = row_sum(a), row_mean(a), row_dot(a, a), col_sum(a), transposed(a, 0.5)
    assert {result.dtype for result in results} == {a.dtype}


def test_the_cached_vectors_cannot_be_changed():
    ones = filled(np, 3, np.dtype(np.float32))
    assert ones.tolist() == [1, 1, 1]
    assert filled(np, 3, np.dtype(np.float32)) is ones
    with pytest.raises(ValueError, match="read-only"):
        ones[0] = 2


def test_on_gpu_calls_the_readable_function_for_numpy_arrays():
    def double(x, cache=None):
        """Return 2 x."""
        return 2 * x

    double.__name__ = "softmax_forward"  # a kernel has this name
    decorated = on_gpu(double)
    assert decorated(np.ones(2)).tolist() == [2, 2]
    assert decorated(np.float32(1)) == 2
    assert decorated(1.0, (np.ones(2),)) == 2  # the gradient of a loss, and a cache
    assert inspect.unwrap(decorated) is double
    assert decorated.__doc__ == "Return 2 x."
    assert list(inspect.signature(decorated).parameters) == ["x", "cache"]


def test_fast_twin_runs_the_fast_function_and_keeps_the_textbook_one():
    def fast(x):
        return "fast"

    @fast_twin(fast)
    def textbook(x):
        """The textbook form."""
        return "textbook"

    assert textbook(0) == "fast"
    assert inspect.unwrap(textbook)(0) == "textbook"
    assert textbook.__doc__ == "The textbook form."


def test_textbook_mode_is_for_one_thread_and_ends():
    """It chooses the textbook function of every fast twin, and is nested and left safely."""

    @fast_twin(lambda: "fast")
    def f():
        return "textbook"

    def in_another_thread():
        found = []
        thread = threading.Thread(target=lambda: found.append(f()))
        thread.start()
        thread.join()
        return found[0]

    assert f() == "fast"
    with textbook():
        assert f() == "textbook"
        assert in_another_thread() == "fast"
        with textbook():
            assert f() == "textbook"
        assert f() == "textbook"
    assert f() == "fast"
    with pytest.raises(ZeroDivisionError), textbook():
        1 / 0  # noqa: B018
    assert f() == "fast"
