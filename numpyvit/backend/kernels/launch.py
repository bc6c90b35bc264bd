"""From CUDA code to a call. A kernel is written for a type T, that of the arrays."""

from functools import cache
from typing import Any

import numpy as np

TYPES = {"float32": "float", "float64": "double"}
THREADS, WARP = 256, 32

# The sum and the maximum over the 32 threads of a warp; every thread gets the result.
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
    """Compile the kernel `name` of `code` for a dtype."""
    import cupy

    return cupy.RawKernel(f"typedef {TYPES[dtype]} T;\n{code}", name, ("--std=c++17",))


def launch(code: str, name: str, blocks: int, threads: int, *args: Any, dtype: Any) -> None:
    """Run a kernel on `blocks` blocks of `threads` threads each.

    dtype: T. Integers are passed as long long, floats as T, arrays as pointers.
    """
    if blocks:
        T = np.dtype(dtype).type
        passed = tuple(as_argument(a, T) for a in args)
        kernel(code, name, np.dtype(dtype).name)((blocks,), (threads,), passed)


def as_argument(a: Any, T: Any) -> Any:
    """Return an argument in the type that the kernel declares for it."""
    if isinstance(a, int | np.integer):
        return np.int64(a)
    if isinstance(a, float | np.floating):
        return T(a)
    return a


def by_rows(code: str, name: str, rows: int, *args: Any, dtype: Any) -> None:
    """Run a kernel with a warp for each row; it gets the number of rows last."""
    blocks = -(-rows * WARP // THREADS)
    launch(code, name, blocks, THREADS, *args, rows, dtype=dtype)


def by_elements(code: str, name: str, size: int, *args: Any, dtype: Any) -> None:
    """Run a kernel with a thread for each element; it gets the number of elements last."""
    blocks = -(-size // THREADS)
    launch(code, name, blocks, THREADS, *args, size, dtype=dtype)
