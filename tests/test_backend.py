import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit.backend import as_rows, col_sum, get_xp, row_dot, row_sum
from numpyvit.testing import close, normal, seeds

shapes = st.lists(st.integers(0, 4), min_size=1, max_size=4).map(lambda lead: (*lead, 3))


@given(shapes, seeds)
def test_the_tricks_equal_their_plain_formulas(shape, seed):
    a, b = normal(shape, seed), normal(shape, seed + 1)
    assert close(row_sum(a), a.sum(-1, keepdims=True))
    assert close(row_dot(a, b), (a * b).sum(-1, keepdims=True))
    assert close(col_sum(a), a.sum(tuple(range(a.ndim - 1))))
    assert as_rows(a).shape == (int(np.prod(shape[:-1])), 3)


def test_what_is_not_an_array_is_refused():
    assert get_xp(np.zeros(2)) is np
    with pytest.raises(TypeError, match="expected a NumPy array, got list"):
        get_xp([1, 2])
