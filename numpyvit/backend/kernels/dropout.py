"""Dropout on a GPU: the mask is computed from its random bits on the way and not stored."""

import numpy as np

from ..arrays import Array, contiguous, get_xp
from .launch import by_elements

# A mask: its random bits, the threshold below which an element is dropped, and the factor of
# the others.
Mask = tuple[Array, int, float]

CODE = """
extern "C" __global__ void dropout(
        const T* x, T* y, const unsigned short* bits, long long threshold, T factor,
        long long size) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) y[i] = bits[i] < threshold ? 0 : x[i] * factor;
}
"""


def dropout_forward(
    x: Array, p: float, rng: np.random.Generator | None
) -> tuple[Array, Mask | None]:
    """x (...)  ->  y (...), cache. The random bits are those that draw_mask draws."""
    if rng is None or p == 0:
        return x, None
    threshold = round(p * 65536)
    bits = rng.integers(0, 2**64, (x.size + 3) // 4, np.uint64, endpoint=False)
    mask = (get_xp(x).asarray(bits).view("u2"), threshold, 65536 / (65536 - threshold))
    return apply(x, mask), mask


def dropout_backward(dy: Array, mask: Mask | None) -> Array:
    """dy (...)  ->  dx (...)."""
    return dy if mask is None else apply(dy, mask)


def apply(x: Array, mask: Mask) -> Array:
    """Multiply x by the mask."""
    x = contiguous(x)
    y = get_xp(x).empty_like(x)
    by_elements(CODE, "dropout", x.size, x, y, *mask, dtype=x.dtype)
    return y
