import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit.backend.arrays import as_rows, col_sum, get_xp, row_dot, row_mean, row_sum, transposed
from numpyvit.testing import close, normal, seeds

widths = st.sampled_from([3, 40])  # row_dot takes another way from 33 on
shapes = st.tuples(st.lists(st.integers(0, 4), min_size=1, max_size=4), widths).map(
    lambda s: (*s[0], s[1])
)


@given(shapes, seeds)
def test_the_tricks_equal_their_plain_formulas(shape, seed):
    a, b = normal(shape, seed), normal(shape, seed + 1)
    assert close(row_sum(a), a.sum(-1, keepdims=True))
    assert close(row_mean(a), a.sum(-1, keepdims=True) / a.shape[-1])
    assert close(row_dot(a, b), (a * b).sum(-1, keepdims=True))
    assert close(col_sum(a), a.sum(tuple(range(a.ndim - 1))))
    assert as_rows(a).shape == (int(np.prod(shape[:-1])), shape[-1])
    t = transposed(a, 0.5)
    assert np.array_equal(t, 0.5 * a.swapaxes(-1, -2))
    assert t.flags.c_contiguous


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_the_tricks_keep_the_dtype(dtype):
    a = normal((2, 3, 5), 0, dtype)
    tricks = row_sum, row_mean, col_sum, lambda a: row_dot(a, a), lambda a: transposed(a, 0.5)
    assert {trick(a).dtype for trick in tricks} == {a.dtype}


def test_what_is_not_an_array_is_refused():
    assert get_xp(np.zeros(2)) is np
    with pytest.raises(TypeError, match="expected a NumPy array, got list"):
        get_xp([1, 2])
