"""GELU (Hendrycks and Gimpel, 2016): y = x Phi(x), x times the chance that a standard normal value lies below it.

Two forms: by tanh, the approximation of that paper and of the ViT paper's code, and the exact one by erf.
"""

import math

from ..backend import Array, get_xp
from ..errors import check_choice
from ..params import Buffer
from .erf import erf

Cache = tuple[Array, Array]
C1 = math.sqrt(2 / math.pi)      # a Python float: a NumPy float64 here would turn float32 into float64
C3 = 0.044715 * C1


def gelu_tanh_forward(x: Array) -> tuple[Array, Cache]:
    """x (...)  ->  y (...), cache.    y = x/2 (1 + t),   t = tanh(sqrt(2/pi) (x + 0.044715 x^3))."""
    t = get_xp(x).tanh(x * (C1 + C3 * (x * x)))                          # x * x * x: x**3 is 20 to 250 times slower
    half = 0.5 * x
    return half + half * t, (x, t)


def gelu_tanh_backward(dy: Array, cache: Cache) -> Array:
    """dy (...)  ->  dx (...).    dy/dx = (1 + t)/2 + x/2 (1 - t^2) (sqrt(2/pi) (1 + 3 * 0.044715 x^2)).

    The product rule, with tanh' = 1 - tanh^2 and the chain rule through the cubic.
    """
    x, t = cache
    slope = (0.5 * x) * (1 - t * t) * (C1 + 3 * C3 * (x * x))
    return dy * (0.5 + 0.5 * t + slope)


def gelu_erf_forward(x: Array) -> tuple[Array, Cache]:
    """x (...)  ->  y (...), cache.    y = x Phi(x),   Phi(x) = (1 + erf(x / sqrt(2))) / 2."""
    phi = 0.5 + 0.5 * erf(x / get_xp(x).sqrt(x.dtype.type(2)))
    return x * phi, (x, phi)


def gelu_erf_backward(dy: Array, cache: Cache) -> Array:
    """dy (...)  ->  dx (...).    dy/dx = Phi(x) + x Phi'(x),   and Phi' is the density exp(-x^2 / 2) / sqrt(2 pi)."""
    x, phi = cache
    xp = get_xp(x)
    density = xp.exp(-0.5 * (x * x)) / xp.sqrt(2 * xp.arccos(x.dtype.type(-1)))
    return dy * (phi + x * density)


class GELU:
    """form: "tanh" or "erf". No weights."""

    def __init__(self, form: str = "tanh") -> None:
        check_choice("gelu", form, ["tanh", "erf"])
        self.form = form

    def forward(self, params: Buffer, x: Array) -> tuple[Array, Cache]:
        """x (...)  ->  y (...), cache."""
        return gelu_tanh_forward(x) if self.form == "tanh" else gelu_erf_forward(x)

    def backward(self, dy: Array, cache: Cache, grads: Buffer) -> Array:
        """dy (...)  ->  dx (...)."""
        return gelu_tanh_backward(dy, cache) if self.form == "tanh" else gelu_erf_backward(dy, cache)
