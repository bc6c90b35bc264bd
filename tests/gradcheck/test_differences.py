"""The slopes, estimates and kinks of functions whose derivatives are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit.gradcheck.differences import WIDE, differentiate, first_step, noise_of
from numpyvit.testing import normal, seeds


def slopes(f, x, wide, target=1e-14):
    """Return the slopes, estimates and kinks of an elementwise f at x (n,)."""
    at = x.astype(wide)

    def moved(i, t):
        y = at.copy()
        y[i] += t
        return f(y)

    with np.errstate(all="ignore"):
        noise = noise_of(lambda r: f(at * (1 + np.finfo(wide).eps * r)), x.size, 0)
        found = differentiate(moved, f(at), first_step(x, 0), noise, np.full(x.size, target))
    return [np.diag(a) for a in found]


FUNCTIONS = {
    "exp": (np.exp, np.exp),
    "flat": (lambda x: np.sin(1e-3 * x), lambda x: 1e-3 * np.cos(1e-3 * x)),
    "log": (lambda x: np.log(abs(x)), lambda x: 1 / x),
    "runge": (lambda x: 1 / (1 + 25 * x * x), lambda x: -50 * x / (1 + 25 * x * x) ** 2),
    "linear": (lambda x: 3 * x, lambda x: 3 + 0 * x),
}
BOTH = pytest.mark.parametrize("wide", [np.longdouble, np.float64])


@BOTH
@pytest.mark.parametrize("name", FUNCTIONS)
@given(seed=seeds)
def test_the_error_is_below_its_estimate(name, wide, seed):
    f, slope = FUNCTIONS[name]
    x = normal((4,), seed)
    found, estimates, kinks = slopes(f, x, wide)
    wanted = slope(x.astype(wide))
    assert not kinks.any()
    assert np.all(abs(found - wanted) <= 2 * estimates + 4 * np.finfo(wide).eps * abs(wanted))
    assert np.all(
        estimates
        <= max(2e-14, 1e5 * np.finfo(wide).eps) * (abs(wanted) + 1e-3 * abs(wanted).max() + 1)
    )


@BOTH
@given(log_frequency=st.floats(0, 7), seed=seeds)
def test_a_fast_wave_is_never_taken_for_a_slow_one(log_frequency, wide, seed):
    w = wide(10) ** wide(log_frequency)
    x = normal((4,), seed)
    found, estimates, kinks = slopes(lambda x: np.sin(w * x), x, wide, target=1e-14 * w)
    assert not kinks.any()
    assert np.all(abs(found - w * np.cos(w * x.astype(wide))) <= 64 * estimates)
    assert np.all(estimates <= 1e10 * np.finfo(wide).eps * w)


@given(st.floats(1e-9, 1, allow_subnormal=False), st.sampled_from([1.0, -1.0]))
def test_a_kink_beside_x_does_no_harm(distance, side):
    found, estimates, kinks = slopes(abs, np.array([distance * side]), WIDE)
    assert not kinks.any()
    assert abs(found[0] - side) <= 2 * estimates[0] <= 1e-6


@given(st.floats(-5, 5), st.floats(0.1, 3))
def test_a_kink_at_x(left, gap):
    found, estimates, kinks = slopes(
        lambda x: np.where(x < 0, left * x, (left + gap) * x), np.array([0.0, 1.0]), WIDE
    )
    assert kinks.tolist() == [True, False]
    assert float(found[0]) == pytest.approx(left + gap / 2, rel=1e-9, abs=1e-9)
    assert float(estimates[0]) == pytest.approx(gap / 2, rel=1e-9)


def test_nothing_is_known_where_a_function_is_not_finite():
    _, estimates, kinks = slopes(lambda x: np.where(x == 1, x, np.nan), np.array([1.0]), WIDE)
    assert np.isinf(estimates).all()
    assert not kinks.any()


def test_first_steps_are_a_fraction_of_x():
    x = normal((100,), 0) * 10.0 ** np.arange(-50, 50)
    h = first_step(x, 0)
    assert np.all(h <= 0.08 * np.maximum(abs(x), 1))
    assert np.all(h > 0.03 * np.maximum(abs(x), 1))
