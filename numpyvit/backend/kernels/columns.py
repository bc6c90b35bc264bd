"""Sums over rows: col_sum, and the two sums of layer norm's gradient in one pass."""

from ..arrays import Array, as_rows, contiguous, get_xp
from .launch import THREADS, launch

CHUNK = 256  # the rows that one block adds up

CODE = """
// A block adds up `chunk` rows of 32 columns: its 8 warps go down the rows, then their sums
// are added.
extern "C" __global__ void column_sums(
        const T* x, const T* factor, T* sums, long long both, long long D, long long rows,
        long long chunk) {
    __shared__ T found[2][8][32];
    long long groups = (D + 31) / 32, part = blockIdx.x / groups;
    long long parts = (rows + chunk - 1) / chunk;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    long long column = 32 * (blockIdx.x % groups) + lane;
    long long end = (part + 1) * chunk < rows ? (part + 1) * chunk : rows;
    T a = 0, b = 0;
    if (column < D)
        for (long long r = part * chunk + warp; r < end; r += 8) {
            T value = x[r * D + column];
            a += value;
            if (both) b += value * factor[r * D + column];
        }
    found[0][warp][lane] = a, found[1][warp][lane] = b;
    __syncthreads();
    if (warp <= both && column < D) {
        T sum = 0;
        for (int w = 0; w < 8; w++) sum += found[warp][w][lane];
        sums[(warp * parts + part) * D + column] = sum;
    }
}
"""


def column_sums(x: Array, factor: Array | None = None) -> Array:
    """x (..., D), factor (..., D) or None  ->  (1, D), or with a factor (2, D).

    The first row is the sum of x over all rows, the second that of x * factor.
    """
    both = factor is not None
    x = contiguous(as_rows(x))
    factor = x if factor is None else contiguous(factor)
    rows, D = x.shape
    parts = -(-rows // CHUNK)
    blocks = -(-D // 32) * parts
    sums: Array = get_xp(x).empty((1 + both, parts, D), x.dtype)
    sizes = (int(both), D, rows, CHUNK)
    launch(CODE, "column_sums", blocks, THREADS, x, factor, sums, *sizes, dtype=x.dtype)
    return sums[:, 0] if parts == 1 else sums.sum(1)


def col_sum(x: Array) -> Array:
    """x (..., D)  ->  (D,)."""
    return column_sums(x)[0]
