"""The twins of layers/linear.py: cuBLAS, and sums over rows."""

from typing import Any

from ..backend import Array, as_rows, get_xp
from .launch import THREADS, launch, solid
from .products import matmul

Cache = tuple[Array, Array, bool]
CHUNK = 256          # rows that one block adds up

CODE = """
// A block takes 32 columns of `chunk` rows: 8 warps go down the rows, and then their sums are added.
extern "C" __global__ void column_sums(const T* x, T* sums, long long D, long long rows, long long chunk) {
    __shared__ T found[8][32];
    long long groups = (D + 31) / 32, part = blockIdx.x / groups;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    long long column = 32 * (blockIdx.x % groups) + lane;
    long long end = (part + 1) * chunk < rows ? (part + 1) * chunk : rows;
    T sum = 0;
    if (column < D)
        for (long long r = part * chunk + warp; r < end; r += 8) sum += x[r * D + column];
    found[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && column < D) {
        for (int w = 1; w < 8; w++) sum += found[w][lane];
        sums[part * D + column] = sum;
    }
}
"""


def column_sums(x: Array) -> Array:
    """x (..., D)  ->  (D,)."""
    x = solid(as_rows(x))
    rows, D = x.shape
    parts = -(-rows // CHUNK)
    sums = get_xp(x).empty((parts, D), x.dtype)
    launch(CODE, "column_sums", -(-D // 32) * parts, THREADS, x, sums, D, rows, CHUNK, dtype=x.dtype)
    return sums[0] if parts == 1 else sums.sum(0)


def linear_forward(x: Array, w: Array, b: Array | None) -> tuple[Array, Cache]:
    """x (..., I), w (I, O), b (O,) or None  ->  y (..., O), cache."""
    y = matmul(as_rows(x), w)
    if b is not None:
        y += b
    return y.reshape(*x.shape[:-1], w.shape[1]), (x, w, b is not None)


def linear_backward(dy: Array, cache: Cache, need_dx: bool = True) -> tuple[Array | Any, Array, Array | Any]:
    """dy (..., O)  ->  dx (..., I) or None, dw (I, O), db (O,) or None."""
    x, w, has_bias = cache
    dy_rows = as_rows(dy)
    dx = matmul(dy_rows, w.T).reshape(x.shape) if need_dx else None
    return dx, matmul(as_rows(x).T, dy_rows), column_sums(dy) if has_bias else None
