"""GELU, the nonlinearity of the MLP (Hendrycks and Gimpel, 2016).

    y = x Φ(x),    Φ(x) the probability that a standard normal value is below x

Without a nonlinearity two linear layers in a row would be one linear layer. GELU passes
large positive values on (Φ ≈ 1), turns strongly negative values almost into 0 (Φ ≈ 0), and is
smooth in between, so every point has a derivative.

There are two forms: the exact one, in which Φ comes from the error function erf, and an
approximation by tanh, which is in the same paper and in the ViT paper's code. They differ
by at most 0.0005. At -1, 0 and 1:

>>> import numpy as np
>>> x = np.array([-1.0, 0.0, 1.0])
>>> gelu_erf_forward(x)[0].round(4), gelu_tanh_forward(x)[0].round(4)
(array([-0.1587,  0.    ,  0.8413]), array([-0.1588,  0.    ,  0.8412]))
"""

import math

from ..backend.arrays import Array, get_xp
from ..backend.erf import erf
from ..backend.ops import on_gpu
from ..errors import check_choice
from ..params import Buffer

Cache = tuple[Array, ...]
C1 = math.sqrt(2 / math.pi)  # Python floats: a NumPy float64 would turn float32 into float64
C3 = 0.044715 * C1


@on_gpu
def gelu_tanh_forward(x: Array) -> tuple[Array, Cache]:
    """x (...)  ->  y (...), cache.

    y = x p,    p = (1 + tanh u) / 2,    u = C1 x + C3 x³,    C1 = √(2/π), C3 = 0.044715 C1.

    p stands for Φ(x); 0.044715 was fitted so that the two are close. p is computed in
    place, line by line, in a single array. For |x| up to 1e13 in float32, and 1e102 in
    float64, y and dx are finite; beyond, x³ overflows, and dx is NaN.
    """
    p = x * x  # x²; x³ is built from products: x**3 is 20 to 250 times slower
    p *= C3  # C3 x²
    p += C1  # C1 + C3 x²
    p *= x  # u
    get_xp(x).tanh(p, out=p)  # tanh u
    p *= 0.5  # tanh(u) / 2
    p += 0.5  # p
    y = x * p
    return y, (x, p, y)


@on_gpu
def gelu_tanh_backward(dy: Array, cache: Cache) -> Array:
    """dy (...)  ->  dx (...).

    By the product rule and the chain rule, ∂y/∂x = p + x ∂p/∂u ∂u/∂x. Because
    tanh' = 1 - tanh² and tanh u = 2p - 1, ∂p/∂u = (1 - tanh² u) / 2 = 2 p (1 - p). So

        ∂y/∂x = p + 2 x p (1 - p) (C1 + 3 C3 x²) = p + y (1 - p) (2 C1 + 6 C3 x²)

    because x p = y.
    """
    x, p, y = cache
    slope = x * x  # x²
    slope *= 6 * C3  # 6 C3 x²
    slope += 2 * C1  # 2 C1 + 6 C3 x²   = 2 ∂u/∂x
    slope *= y  # 2 y ∂u/∂x
    slope *= 1 - p  # 2 y (1 - p) ∂u/∂x
    slope += p  # ∂y/∂x
    slope *= dy  # dx
    return slope


def gelu_erf_forward(x: Array) -> tuple[Array, Cache]:
    """x (...)  ->  y (...), cache.    y = x Φ(x),    Φ(x) = (1 + erf(x / √2)) / 2."""
    phi = 0.5 + 0.5 * erf(x / get_xp(x).sqrt(x.dtype.type(2)))
    return x * phi, (x, phi)


def gelu_erf_backward(dy: Array, cache: Cache) -> Array:
    """dy (...)  ->  dx (...).

    ∂y/∂x = Φ(x) + x Φ'(x), and Φ' is the normal density exp(-x²/2) / √(2π).
    """
    x, phi = cache
    xp = get_xp(x)
    pi = xp.arccos(x.dtype.type(-1))  # π with all the digits of x's dtype
    density = xp.exp(-0.5 * (x * x)) / xp.sqrt(2 * pi)
    return dy * (phi + x * density)


class GELU:
    """form: "tanh" or "erf". It has no weights."""

    def __init__(self, form: str = "tanh") -> None:
        check_choice("gelu", form, ["tanh", "erf"])
        self.form = form

    def forward(self, params: Buffer, x: Array) -> tuple[Array, Cache]:
        """x (...)  ->  y (...), cache."""
        return gelu_tanh_forward(x) if self.form == "tanh" else gelu_erf_forward(x)

    def backward(self, dy: Array, cache: Cache, grads: Buffer) -> Array:
        """dy (...)  ->  dx (...)."""
        if self.form == "tanh":
            return gelu_tanh_backward(dy, cache)
        return gelu_erf_backward(dy, cache)
