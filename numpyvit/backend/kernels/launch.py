"""From CUDA code to a call. The code of a kernel is written for a type T, which is the arrays' own."""

from functools import cache
from typing import Any

import numpy as np

from ..arrays import Array, get_xp

TYPES = {"float32": "float", "float64": "double"}
THREADS, WARP = 256, 32

# Sums over a warp's 32 threads, each of which gets the sum.
WARP_SUM = """
__device__ __forceinline__ T warp_sum(T x) {
    for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(0xffffffffu, x, lanes);
    return x;
}
__device__ __forceinline__ T warp_max(T x) {
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        T other = __shfl_xor_sync(0xffffffffu, x, lanes);
        x = x > other || x != x ? x : other;                              // NaN stays
    }
    return x;
}
"""


@cache
def kernel(code: str, name: str, dtype: str) -> Any:
    import cupy

    return cupy.RawKernel(f"typedef {TYPES[dtype]} T;\n{code}", name, ("--std=c++17",))


def launch(code: str, name: str, blocks: int, threads: int, *args: Any, dtype: Any) -> None:
    """Run a kernel of `code` on so many blocks of so many threads; dtype: T. Whole numbers go as long long."""
    if blocks:
        kind = np.dtype(dtype).type
        given = (
            np.int64(a)
            if isinstance(a, int | np.integer)
            else kind(a)
            if isinstance(a, float | np.floating)
            else a
            for a in args
        )
        kernel(code, name, np.dtype(dtype).name)((blocks,), (threads,), tuple(given))


def by_rows(code: str, name: str, rows: int, *args: Any, dtype: Any) -> None:
    """A warp for each row."""
    launch(code, name, -(-rows * WARP // THREADS), THREADS, *args, rows, dtype=dtype)


def by_elements(code: str, name: str, size: int, *args: Any, dtype: Any) -> None:
    """A thread for each element."""
    launch(code, name, -(-size // THREADS), THREADS, *args, size, dtype=dtype)


def solid(x: Array) -> Array:
    """x, contiguous: kernels take plain pointers."""
    return get_xp(x).ascontiguousarray(x)
