"""The fast twin of the pair in rotary.py: a complex product, in one pass over memory.

Two features (a, b) next to each other in memory are the complex number a + ib, and cosine
and sine next to each other are e^(i angle). Their product is the rotated pair:

    (a + ib)(cos + i sin) = (a cos - b sin) + i (a sin + b cos)
"""

from ..backend.arrays import Array, get_xp


def as_complex(x: Array) -> Array:
    """(..., 2n) real  ->  (..., n) complex, of the same precision (at least that of float32)."""
    size = max(x.itemsize, 4)
    return get_xp(x).asanyarray(x, f"f{size}", order="C").view(f"c{2 * size}")


def rotary_fast_forward(x: Array, rotation: Array) -> tuple[Array, Array]:
    """x (..., N, E), rotation (N, E/2, 2)  ->  y (..., N, E), cache."""
    z = as_complex(x)
    y = z * as_complex(rotation)[..., 0].astype(z.dtype, copy=False)
    return y.view(z.real.dtype).astype(x.dtype, copy=False), rotation


def rotary_fast_backward(dy: Array, rotation: Array) -> Array:
    """dy (..., N, E), rotation from forward  ->  dx (..., N, E): the opposite angle."""
    z = as_complex(dy)
    dx = z * as_complex(rotation)[..., 0].astype(z.dtype, copy=False).conj()
    return dx.view(z.real.dtype).astype(dy.dtype, copy=False)
