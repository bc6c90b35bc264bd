"""The error function erf(x) = 2/√π ∫₀ˣ exp(-t²) dt, which NumPy lacks.

A series computes it to the last digits of any dtype. For float32 and float64 a polynomial
is fitted to that series on first use, so there is no table of constants to trust.
"""

from functools import lru_cache

import numpy as np

from .arrays import Array, get_xp

# m in u = (x² - m) / (x² + m) below. With 20 the fit needs 11 terms in float32 and 27 in
# float64; with 5 it would need 15 and 44.
MIDDLE = 20.0


def erf_series(x: Array) -> Array:
    """Return erf(x) to within about 10 eps in any dtype, slowly: x (...)  ->  (...).

    erf(x) = 2/√π exp(-x²) Σ_n 2ⁿ x²ⁿ⁺¹ / (1·3·...·(2n+1))            (DLMF 7.6.2)

    All terms of the sum have the same sign, so nothing cancels. Beyond `limit`, erf(x) is
    1 to within eps.
    """
    xp = get_xp(x)
    eps = np.finfo(x.dtype).eps
    limit = xp.sqrt(-xp.log(xp.asarray(eps / 8, x.dtype)))  # erfc(x) < exp(-x²)
    x = xp.clip(x, -limit, limit)
    t = 2 * x * x
    term, total = x, x
    n = 0
    while (abs(term) > eps / 8 * abs(total)).any():
        n += 1
        term = term * (t / (2 * n + 1))
        total = total + term
    pi = xp.arccos(xp.asarray(-1, x.dtype))  # math.pi has the digits of a double only
    return xp.clip(2 / xp.sqrt(pi) * xp.exp(-x * x) * total, -1, 1)


@lru_cache(maxsize=2)
def chebyshev_fit(dtype: str) -> tuple[float, float, tuple[float, ...]]:
    """Fit erf(x) / x by Chebyshev polynomials to the precision of `dtype`.

    Returns (limit, top, c) with erf(x) / x = Σ_k c_k T_k(v) for |x| <= limit. The function
    is smooth and even, so it is fitted over u = (x² - m) / (x² + m), whose values from -1
    to `top` are stretched onto v in [-1, 1]. The coefficients are a cosine sum over the
    Chebyshev points (Trefethen, Approximation Theory and Approximation Practice, ch. 3-4).
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
    """Return erf(x) to within a few eps of the dtype, longdouble included: x (...)  ->  (...)."""
    if x.dtype.itemsize > 8:
        return erf_series(x)
    xp = get_xp(x)
    limit, top, c = chebyshev_fit(x.dtype.name)
    x = xp.clip(x, -limit, limit)
    t = x * x
    v2 = 4 / (top + 1) * ((t - MIDDLE) / (t + MIDDLE) + 1) - 2  # 2v
    b, b_next = xp.full_like(x, c[-1]), xp.zeros_like(x)
    for c_k in c[-2:0:-1]:  # Clenshaw's recurrence: b_k = c_k + 2v b_k+1 - b_k+2
        b, b_next = c_k + v2 * b - b_next, b
    y = xp.clip(x * (c[0] + v2 / 2 * b - b_next), -1, 1)
    return xp.where(abs(x) < x.dtype.type(limit), y, xp.sign(x))
