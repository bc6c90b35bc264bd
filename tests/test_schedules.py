from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit import warmup_cosine


@given(st.floats(1e-5, 1), st.integers(0, 20), st.integers(1, 100), st.floats(0, 1e-5))
def test_up_then_down(peak, warmup, more, final):
    steps = warmup + more
    rate = warmup_cosine(peak, warmup, steps, final)
    rates = [rate(step) for step in range(steps)]
    assert all(0 < r <= peak * (1 + 1e-12) for r in rates)
    assert all(a < b for a, b in pairwise(rates[:warmup]))
    assert rates[warmup] == pytest.approx(peak)
    assert all(a >= b for a, b in pairwise(rates[warmup:]))
    assert rate(steps) == rate(10 * steps) == pytest.approx(final, abs=1e-12)
    assert rate(warmup + more / 2) == pytest.approx((peak + final) / 2)
