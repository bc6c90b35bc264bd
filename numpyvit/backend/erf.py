"""The error function, erf(x) = 2 / sqrt(pi) * integral from 0 to x of exp(-t^2), which NumPy does not have.

Two ways: a series that is right to the last digits of whatever dtype it is given, and for float32 and float64 a
polynomial that is fitted to that series on first use, so that no table of constants has to be believed.
"""

from functools import lru_cache

import numpy as np

from .arrays import Array, get_xp


def erf_series(x: Array) -> Array:
    """erf to within some 10 eps in any dtype, slowly: x (...)  ->  (...).

    erf(x) = 2 / sqrt(pi) * exp(-x^2) * sum_n  2^n x^(2n+1) / (1 * 3 * ... * (2n+1))    (DLMF 7.6.2)

    All terms of the sum have one sign, so nothing cancels. Beyond `limit`, erf(x) is 1 to within eps.
    """
    xp = get_xp(x)
    eps = np.finfo(x.dtype).eps
    limit = xp.sqrt(-xp.log(xp.asarray(eps / 8, x.dtype)))  # erfc(x) < exp(-x^2)
    x = xp.clip(x, -limit, limit)
    t = 2 * x * x
    term, total, n = x, x, 0
    while (abs(term) > eps / 8 * abs(total)).any():
        n += 1
        term = term * (t / (2 * n + 1))
        total = total + term
    pi = xp.arccos(xp.asarray(-1, x.dtype))  # math.pi has only a double's digits
    return xp.clip(2 / xp.sqrt(pi) * xp.exp(-x * x) * total, -1, 1)


MIDDLE = (
    20.0  # of u in x^2, see below: 11 terms in float32, 27 in float64; with 5 it would be 15 and 44
)


@lru_cache(maxsize=2)
def chebyshev_fit(dtype: str) -> tuple[float, float, tuple[float, ...]]:
    """(limit, u at limit, coefficients c) with erf(x) / x = sum_k c_k T_k(v) on |x| <= limit, to the dtype's eps.

    erf(x) / x is smooth and even, so it is fitted over u = (x^2 - m) / (x^2 + m), stretched onto v in [-1, 1];
    the coefficients are a cosine sum over the Chebyshev points (Trefethen, Approximation Theory and Practice, ch. 3-4).
    """
    eps, points, m = float(np.finfo(dtype).eps), 64, np.longdouble(MIDDLE)
    limit = np.sqrt(-np.log(np.longdouble(eps) / 8))
    angle = np.arccos(np.longdouble(-1)) * (np.arange(points) + np.longdouble(0.5)) / points
    top = (limit**2 - m) / (limit**2 + m)
    u = (np.cos(angle) + 1) / 2 * (top + 1) - 1
    x = np.sqrt(m * (1 + u) / (1 - u))
    values = erf_series(x) / x
    c = [2 * float(np.mean(values * np.cos(k * angle))) for k in range(points)]
    c[0] /= 2
    terms = max(k for k in range(points) if abs(c[k]) > eps / 16) + 1
    return float(limit), float(top), tuple(c[:terms])


def erf(x: Array) -> Array:
    """erf to within a few eps of x's dtype, `longdouble` included: x (...)  ->  (...)."""
    if x.dtype.itemsize > 8:
        return erf_series(x)
    xp = get_xp(x)
    limit, top, c = chebyshev_fit(x.dtype.name)
    x = xp.clip(x, -limit, limit)
    t = x * x
    v2 = 4 / (top + 1) * ((t - MIDDLE) / (t + MIDDLE) + 1) - 2  # 2 v
    b, b_next = xp.full_like(x, c[-1]), xp.zeros_like(x)
    for c_k in c[-2:0:-1]:  # Clenshaw: b_k = c_k + 2 v b_k+1 - b_k+2
        b, b_next = c_k + v2 * b - b_next, b
    y = xp.clip(x * (c[0] + v2 / 2 * b - b_next), -1, 1)
    return xp.where(abs(x) < x.dtype.type(limit), y, xp.sign(x))
