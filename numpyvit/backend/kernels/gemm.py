"""Products of matrices, by cuBLAS, called directly: CuPy refuses its own while a CUDA graph is being captured, and sets
their precision for a whole process only.

cuBLAS counts columns first: what is (r, c), row by row, is (c, r) to it, in the same memory. So y = a b is asked for as
y' = b' a', and nothing moves.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any

from ...errors import check_choice
from ..arrays import Array, get_xp

WORKSPACE = 32 * 2**20  # bytes: what NVIDIA asks for on Hopper
KINDS = {"float32": 0, "float64": 1, "float16": 2}  # cudaDataType of library_types.h
COMPUTE_32F, COMPUTE_64F, COMPUTE_TF32 = 68, 70, 77  # cublasComputeType_t of cublas_api.h
DEFAULT = -1  # cublasGemmAlgo_t
P, I, LL = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong
PROTOTYPES = {
    "cublasCreate_v2": (P,),
    "cublasSetStream_v2": (P, P),
    "cublasSetWorkspace_v2": (P, P, ctypes.c_size_t),
    "cublasGemmEx": (P, I, I, I, I, I, P, P, I, I, P, I, I, P, P, I, I, I, I),
    "cublasGemmStridedBatchedEx": (
        P,
        I,
        I,
        I,
        I,
        I,
        P,
        P,
        I,
        I,
        LL,
        P,
        I,
        I,
        LL,
        P,
        P,
        I,
        I,
        LL,
        I,
        I,
        I,
    ),
}
NUMBERS = {"float32": ctypes.c_float, "float64": ctypes.c_double}

# How products of float32 are made: as they are; of the first 10 bits after the point ("tf32"); or of what float16 can hold,
# 10 bits too, of numbers from 6e-8 to 65504. The sums are float32 in all of them. The gradients of the presets mnist and
# cifar10 are then off by at most 1e-6, 2e-3 and 2e-3 of their norm: tests/test_graph.py asserts it, with the rounding done
# on the host, and `python benchmarks/gpu.py --only correct` measures it on a GPU.
PRECISIONS = ["float32", "tf32", "float16"]
_chosen = "float32"


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Products of float32 in this precision. Raises UserError for an unknown one."""
    global _chosen
    check_choice("--precision", name, PRECISIONS)
    before, _chosen = _chosen, name
    try:
        yield
    finally:
        _chosen = before


@cache
def cublas() -> Any:
    """The library: the very one that CuPy has loaded, since it is found in CuPy's way."""
    from cuda.pathfinder import load_nvidia_dynamic_lib

    library = ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path)
    for name, kinds in PROTOTYPES.items():
        getattr(library, name).argtypes = kinds
    return library


def check(status: int) -> None:
    if status:
        raise RuntimeError(f"cuBLAS answers with status {status}")


class Handle:
    """A GPU's, with a workspace, which else would be found anew with each call in a CUDA graph."""

    def __init__(self) -> None:
        import cupy

        found = ctypes.c_void_p()
        check(cublas().cublasCreate_v2(ctypes.addressof(found)))
        self.number, self.workspace = found.value, cupy.empty(WORKSPACE, "u1")
        self.stream: int | None = None

    def on(self, stream: int) -> int | None:
        """The handle, for work on this stream."""
        if stream != self.stream:
            check(
                cublas().cublasSetStream_v2(self.number, stream)
            )  # and now it has forgotten its workspace
            check(cublas().cublasSetWorkspace_v2(self.number, address(self.workspace), WORKSPACE))
            self.stream = stream
        return self.number


@cache
def handle(device: int) -> Handle:
    return Handle()


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """The twin of backend.py's."""
    return product(a, b, out)


def product(
    a: Array, b: Array, out: Array | None = None, alpha: float = 1.0, beta: float = 0.0
) -> Array:
    """a (..., m, k), b (..., k, n)  ->  alpha a b + beta out, (..., m, n), in `out`, where that is given. Leading axes are
    the same in all. beta = 0: whatever `out` holds."""
    import cupy

    xp, m, n, k = get_xp(a), a.shape[-2], b.shape[-1], a.shape[-1]
    y = xp.empty((*a.shape[:-1], n), a.dtype) if out is None else out
    if not (
        a.shape[:-2] == b.shape[:-2] == y.shape[:-2] and b.shape[-2] == k and y.shape[-2:] == (m, n)
    ):
        raise ValueError(f"{a.shape} times {b.shape} does not make {y.shape}")
    if not a.dtype == b.dtype == y.dtype:
        raise ValueError(f"{a.dtype} times {b.dtype} does not make {y.dtype}")
    if y.size == 0 or k == 0:
        y[...] = beta * y if beta else 0
        return y
    kind = given = str(y.dtype)
    if given == "float32" and _chosen == "float16":
        a, b, given = a.astype("f2"), b.astype("f2"), "float16"
    compute = (
        COMPUTE_64F if kind == "float64" else COMPUTE_TF32 if _chosen == "tf32" else COMPUTE_32F
    )
    apart = not writable(y)
    target = xp.empty(y.shape, y.dtype) if apart else y
    (a, at, lda, step_a), (b, bt, ldb, step_b), (c, _, ldc, step_c) = (
        laid_out(a),
        laid_out(b),
        laid_out(target),
    )
    times, keep = NUMBERS[kind](alpha), NUMBERS[kind](0 if apart else beta)
    who = handle(cupy.cuda.Device().id).on(cupy.cuda.get_current_stream().ptr)
    which, times_at, keep_at = (
        (int(bt), int(at), n, m, k),
        ctypes.addressof(times),
        ctypes.addressof(keep),
    )
    if len(c) == 1:
        check(
            cublas().cublasGemmEx(
                who,
                *which,
                times_at,
                address(b),
                KINDS[given],
                ldb,
                address(a),
                KINDS[given],
                lda,
                keep_at,
                address(c),
                KINDS[kind],
                ldc,
                compute,
                DEFAULT,
            )
        )
    else:
        check(
            cublas().cublasGemmStridedBatchedEx(
                who,
                *which,
                times_at,
                address(b),
                KINDS[given],
                ldb,
                step_b,
                address(a),
                KINDS[given],
                lda,
                step_a,
                keep_at,
                address(c),
                KINDS[kind],
                ldc,
                step_c,
                len(c),
                compute,
                DEFAULT,
            )
        )
    if apart:
        y[...] = beta * y + target if beta else target
    return y


def address(x: Any) -> int:
    """Where it begins in the GPU's memory."""
    return int(x.data.ptr)


def writable(y: Array) -> bool:
    """Whether cuBLAS can write to y (..., m, n) as it lies: the leading axes go through memory as one would, and each row is
    a run of it."""
    axes = [
        (size, step) for size, step in zip(y.shape[:-2], y.strides[:-2], strict=True) if size > 1
    ]
    merge = all(step == size * next_step for (_, step), (size, next_step) in pairwise(axes))
    return merge and (y.strides[-1] == y.itemsize or y.shape[-1] == 1)


def laid_out(x: Array) -> tuple[Array, bool, int, int]:
    """x (..., r, c)  ->  x (batch, r, c), a copy where no other will do; whether its columns, not its rows, are runs of
    memory; the elements from one of these runs to the next, and from one matrix to the next."""
    r, c = x.shape[-2:]
    x = x.reshape(-1, r, c)
    step, by_row, by_column = (s // x.itemsize for s in x.strides)
    if (by_column == 1 or c == 1) and (by_row >= c or r == 1):
        return x, False, by_row if r > 1 else c, step
    if (by_row == 1 or r == 1) and (by_column >= r or c == 1):
        return x, True, by_column if c > 1 else r, step
    x = get_xp(x).ascontiguousarray(x)
    return x, False, c, r * c
