"""The helpers of backend/arrays.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit.backend.arrays import (
    as_rows,
    contiguous,
    count_values,
    get_xp,
    on_host,
    read_only,
)
from numpyvit.testing import normal, seeds


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.integers(1, 5), seeds)
def test_as_rows_joins_the_leading_axes(lead, D, seed):
    x = normal((*lead, D), seed)
    rows = as_rows(x)
    assert rows.shape == (int(np.prod(lead)), D)
    assert np.array_equal(rows.reshape(x.shape), x)
    assert np.shares_memory(rows, x) or x.size == 0


def test_contiguous_copies_only_if_it_must():
    x = normal((3, 4), 0)
    assert contiguous(x) is x
    assert contiguous(x.T).flags.c_contiguous
    assert np.array_equal(contiguous(x.T), x.T)


def test_a_cached_table_cannot_be_changed():
    table = np.arange(3.0)
    copy = read_only(table, np, np.float32)
    assert copy.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        copy[0] = 1
    table[0] = 1  # the original is not affected


@given(st.integers(0, 50), st.integers(1, 9), seeds)
def test_count_values_is_bincount(m, n, seed):
    x = np.random.default_rng(seed).integers(0, n, m)
    assert np.array_equal(count_values(x, n), np.bincount(x, minlength=n))


def test_get_xp_refuses_anything_but_arrays():
    x = np.ones(3)
    assert get_xp(x) is get_xp(x.sum()) is np
    assert on_host(x)
    with pytest.raises(TypeError, match="expected a NumPy array, got list"):
        get_xp([1.0])
