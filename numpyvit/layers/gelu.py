"""GELU (Hendrycks and Gimpel, 2016): y = x Phi(x), x times the chance that a standard normal value lies below it.

Two forms: by tanh, the approximation of that paper and of the ViT paper's code, and the exact one by erf.
"""

import math

from ..backend.arrays import Array, fused, get_xp
from ..backend.erf import erf
from ..errors import check_choice
from ..params import Buffer

Cache = tuple[Array, ...]
C1 = math.sqrt(2 / math.pi)  # a Python float: a NumPy float64 here would turn float32 into float64
C3 = 0.044715 * C1


def gelu_tanh_forward(x: Array) -> tuple[Array, Cache]:
    """x (...)  ->  y (...), cache.    y = x p,   p = (1 + tanh u) / 2,   u = sqrt(2/pi) (x + 0.044715 x^3)."""
    p = x * x  # x * x * x: x**3 is 20 to 250 times slower
    p *= C3
    p += C1
    p *= x
    get_xp(x).tanh(p, out=p)
    p *= 0.5
    p += 0.5
    y = x * p
    return y, (x, p, y)


def gelu_tanh_backward(dy: Array, cache: Cache) -> Array:
    """dy (...)  ->  dx (...).    dy/dx = p + x dp/du du/dx = p + y (1 - p) * 2 sqrt(2/pi) (1 + 3 * 0.044715 x^2).

    The product rule and the chain rule, with dp/du = 2 p (1 - p), because tanh' = 1 - tanh^2 and tanh u = 2 p - 1.
    """
    x, p, y = cache
    slope = x * x
    slope *= 6 * C3
    slope += 2 * C1  # 2 du/dx
    slope *= y
    slope *= 1 - p
    slope += p
    slope *= dy
    return slope


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
        return fused(gelu_tanh_forward, x)(x) if self.form == "tanh" else gelu_erf_forward(x)

    def backward(self, dy: Array, cache: Cache, grads: Buffer) -> Array:
        """dy (...)  ->  dx (...)."""
        return (
            fused(gelu_tanh_backward, dy)(dy, cache)
            if self.form == "tanh"
            else gelu_erf_backward(dy, cache)
        )
