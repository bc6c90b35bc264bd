"""The twins of add_branch in layers/dropout.py: the masks are made of their random bits on the way, and are not stored."""

from typing import Any

import numpy as np

from ..arrays import Array, get_xp
from .launch import by_elements, solid

Drop = tuple[Array, int, float]  # random bits, those below which are dropped, what the others count

CODE = """
// Element i of (B, rows, D): image i / part, whose bits begin at i / part * whole.
__device__ __forceinline__ T kept(const unsigned short* bits, const unsigned short* paths, long long threshold, T factor,
                                  long long path_threshold, T path_factor, long long part, long long whole, long long i) {
    T f = 1;
    if (threshold) f = bits[i / part * whole + i % part] < threshold ? 0 : factor;
    if (path_threshold) f *= paths[i / part] < path_threshold ? 0 : path_factor;
    return f;
}
extern "C" __global__ void add_branch_forward(const T* x, const T* a, T* y, const unsigned short* bits,
        const unsigned short* paths, long long threshold, T factor, long long path_threshold, T path_factor, long long part,
        long long whole, long long size) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) y[i] = x[i] + a[i] * kept(bits, paths, threshold, factor, path_threshold, path_factor, part, whole, i);
}
extern "C" __global__ void add_branch_backward(const T* dy, T* da, const unsigned short* bits, const unsigned short* paths,
        long long threshold, T factor, long long path_threshold, T path_factor, long long part, long long whole,
        long long size) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) da[i] = dy[i] * kept(bits, paths, threshold, factor, path_threshold, path_factor, part, whole, i);
}
"""


def draw(xp: Any, rng: Any, size: int, p: float) -> Drop:
    """The bits that draw_mask compares with a threshold, as it draws them."""
    threshold = round(p * 65536)
    if rng is None or p == 0:
        return xp.empty(1, "u2"), 0, 1.0
    bits = rng.integers(0, 2**64, (size + 3) // 4, np.uint64, endpoint=False)
    return xp.asarray(bits).view("u2"), threshold, 65536 / (65536 - threshold)


def add_branch_forward(
    x: Array,
    a: Array,
    dropout: float,
    drop_path: float,
    rng: np.random.Generator | None,
    shape: tuple[int, ...],
) -> tuple[Array, tuple]:
    """x (B, rows, D), a (B, rows, D)  ->  y (B, rows, D), cache."""
    xp, (B, N, D) = get_xp(x), shape
    bits, threshold, factor = draw(xp, rng, B * N * D, dropout)
    paths, path_threshold, path_factor = draw(xp, rng, B, drop_path)
    how = bits, paths, threshold, factor, path_threshold, path_factor, x.shape[1] * D, N * D
    x, y = solid(x), xp.empty(x.shape, x.dtype)
    by_elements(CODE, "add_branch_forward", x.size, x, solid(a), y, *how, dtype=x.dtype)
    return y, how


def add_branch_backward(dy: Array, cache: tuple) -> Array:
    """dy (B, rows, D)  ->  da (B, rows, D)."""
    if not cache[2] and not cache[4]:
        return dy
    dy = solid(dy)
    da = get_xp(dy).empty_like(dy)
    by_elements(CODE, "add_branch_backward", dy.size, dy, da, *cache, dtype=dy.dtype)
    return da
