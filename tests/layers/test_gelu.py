import math
from decimal import Decimal, getcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit.backend.erf import erf, erf_series
from numpyvit.errors import UserError
from numpyvit.gradcheck import SHARP
from numpyvit.layers.gelu import GELU, gelu_erf_forward, gelu_tanh_backward, gelu_tanh_forward
from numpyvit.testing import check_layer_contract, normal, seeds, shapes_BND

getcontext().prec = 60


def exact_erf(x: Decimal) -> Decimal:
    """Return 2/√π Σ (-1)ⁿ x²ⁿ⁺¹ / (n! (2n+1)) in 60 digits: another series than that of erf.py."""
    pi = Decimal("3.14159265358979323846264338327950288419716939937510582097494")
    power, total, n = x, Decimal(0), 0
    while n < 5 or abs(power) > Decimal(10) ** -50:
        total += power / (2 * n + 1)
        n += 1
        power *= -x * x / n
    return 2 / pi.sqrt() * total


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_erf_is_right_to_the_last_digits(dtype):
    x = np.arange(-113, 114).astype(dtype) / dtype(16)  # exact in every dtype
    wanted = np.array([dtype(str(exact_erf(Decimal(k) / 16))) for k in range(-113, 114)])
    for f in (erf, erf_series):
        y = f(x)
        assert y.dtype == dtype
        assert np.all(abs(y - wanted) <= 12 * np.finfo(dtype).eps * abs(wanted)), f


@given(st.floats(-10, 10, allow_subnormal=False))
def test_erf_agrees_with_math(x):
    assert erf(np.array([x]))[0] == pytest.approx(math.erf(x), rel=1e-14)


def test_erf_far_out_and_empty():
    x = np.array([-1e30, -50, 0, 50, 1e30], np.float32)
    assert erf(x).tolist() == [-1, -1, 0, 1, 1]
    assert erf(np.zeros((0, 3))).shape == (0, 3)


@given(shapes_BND(), st.sampled_from(["tanh", "erf"]), seeds)
def test_contract(shape, form, seed):
    check_layer_contract(GELU(form), normal(shape, seed), seed, tolerance=SHARP)


def test_the_two_forms_agree_where_they_should():
    x = np.linspace(-8, 8, 1001)
    exact, approximate = gelu_erf_forward(x)[0], gelu_tanh_forward(x)[0]
    assert np.allclose(exact, [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x], atol=1e-14)
    assert 1e-4 < abs(exact - approximate).max() < 5e-4


def test_an_unknown_form_is_named():
    with pytest.raises(UserError, match="did you mean 'tanh'"):
        GELU("tahn")


@pytest.mark.parametrize(("dtype", "largest"), [(np.float32, 1e13), (np.float64, 1e102)])
def test_the_documented_range_of_gelu_tanh(dtype, largest):
    x = np.array([largest, -largest, 1e-30, 0], dtype)
    y, cache = gelu_tanh_forward(x)
    assert np.allclose(y, [largest, 0, 0, 0])
    assert np.allclose(gelu_tanh_backward(np.ones_like(x), cache), [1, 0, 0.5, 0.5])
