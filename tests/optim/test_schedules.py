"""Learning rate schedules."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit import UserError, schedule, warmup_cosine


@given(
    st.sampled_from(["cosine", "linear"]),
    st.floats(1e-5, 1),
    st.integers(0, 20),
    st.integers(1, 100),
    st.floats(0, 1e-5),
)
def test_the_rate_rises_and_then_falls(shape, peak, warmup, more, final):
    steps = warmup + more
    rate = schedule(shape, peak, warmup, steps, final)
    rates = [rate(step) for step in range(steps)]
    assert all(0 < r <= peak * (1 + 1e-12) for r in rates)
    assert all(a < b for a, b in pairwise(rates[:warmup]))
    assert rates[warmup] == pytest.approx(peak)
    assert all(a >= b for a, b in pairwise(rates[warmup:]))
    assert rate(steps) == rate(10 * steps) == pytest.approx(final, abs=1e-12)
    assert rate(warmup + more / 2) == pytest.approx((peak + final) / 2)


@given(st.integers(0, 20), st.integers(1, 100))
def test_linear_and_constant(warmup, more):
    steps = warmup + more
    linear = schedule("linear", 0.5, warmup, steps)
    constant = schedule("constant", 0.5, warmup, steps)
    assert [linear(warmup + i) for i in range(more)] == pytest.approx(
        [0.5 * (1 - i / more) for i in range(more)]
    )
    assert {constant(step) for step in range(warmup, 2 * steps)} == {0.5}
    assert [constant(step) for step in range(warmup)] == [linear(step) for step in range(warmup)]


def test_warmup_cosine_is_the_cosine_schedule():
    usual = warmup_cosine(0.1, 3, 10, 0.01)
    cosine = schedule("cosine", 0.1, 3, 10, 0.01)
    assert [usual(i) for i in range(12)] == [cosine(i) for i in range(12)]
    assert usual(5) == pytest.approx(0.01 + 0.09 * 0.5 * (1 + math.cos(math.pi * 2 / 7)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cosin", 0.1, 3, 10), "schedule 'cosin' is unknown: did you mean 'cosine'"),
        (("cosine", -0.1, 3, 10), "peak is -0.1"),
        (("cosine", math.nan, 3, 10), "peak is nan"),
        (("cosine", 0.1, -3, 10), "warmup is -3"),
        (("cosine", 0.1, 3, 10.5), "steps is 10.5"),
        (("cosine", 0.1, 3, 10, "0"), "final is '0'"),
    ],
)
def test_wrong_arguments_are_refused_at_once(arguments, message):
    with pytest.raises(UserError, match=message):
        schedule(*arguments)
