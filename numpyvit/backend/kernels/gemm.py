"""Matrix products on a GPU, by direct calls of cuBLAS.

CuPy's own products cannot be used: it refuses them while a CUDA graph is being captured,
and their precision can only be set for a whole process.

cuBLAS stores matrices by columns. An array (r, c) stored by rows is, in the same memory, a
matrix (c, r) stored by columns, that is, its transpose. So y = a b is requested as
yᵀ = bᵀ aᵀ, and no data move.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any

from ...errors import check_choice
from ..arrays import Array, get_xp

WORKSPACE = 32 * 2**20  # bytes, as NVIDIA recommends for Hopper GPUs
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
        *(P, I, I, I, I, I, P),
        *(P, I, I, LL, P, I, I, LL),
        *(P, P, I, I, LL, I, I, I),
    ),
}
NUMBERS = {"float32": ctypes.c_float, "float64": ctypes.c_double}

# How products of float32 are computed: in float32; with inputs rounded to 10 fraction bits
# ("tf32"); or with inputs as float16, which also has 10 fraction bits but a range from 6e-8
# to 65504. Sums are float32 in all of them. The gradients of the presets mnist and cifar10
# are then wrong by at most 1e-6, 2e-3 and 2e-3 of their norm: tests/engine/test_cuda_graph.py
# asserts this with the rounding done on the host, and `python benchmarks/gpu.py --only
# correct` measures it on a GPU.
PRECISIONS = ["float32", "tf32", "float16"]
_chosen = "float32"


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Compute products of float32 in this precision within a `with` block.

    Raises UserError for an unknown precision.
    """
    global _chosen
    check_choice("precision", name, PRECISIONS)
    before, _chosen = _chosen, name
    try:
        yield
    finally:
        _chosen = before


@cache
def cublas() -> Any:
    """Load cuBLAS: the library that CuPy has loaded, since it is found in CuPy's way."""
    from cuda.pathfinder import load_nvidia_dynamic_lib

    library = ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path)
    for name, kinds in PROTOTYPES.items():
        getattr(library, name).argtypes = kinds
    return library


def check(status: int) -> None:
    """Raise RuntimeError unless the status that cuBLAS returned means success."""
    if status:
        raise RuntimeError(f"cuBLAS returned status {status}")


class Handle:
    """A cuBLAS handle of one GPU, with a workspace.

    Without a workspace of our own, cuBLAS would allocate one in each call of a CUDA graph.
    """

    def __init__(self) -> None:
        import cupy

        found = ctypes.c_void_p()
        check(cublas().cublasCreate_v2(ctypes.addressof(found)))
        self.number, self.workspace = found.value, cupy.empty(WORKSPACE, "u1")
        self.stream: int | None = None

    def on(self, stream: int) -> int | None:
        """Return the handle, set to work on this stream."""
        if stream != self.stream:
            check(cublas().cublasSetStream_v2(self.number, stream))
            # Setting the stream resets the workspace.
            check(cublas().cublasSetWorkspace_v2(self.number, address(self.workspace), WORKSPACE))
            self.stream = stream
        return self.number


@cache
def handle(device: int) -> Handle:
    """Return the handle of a GPU, which is made once."""
    return Handle()


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """Return a @ b, in `out` if that is given."""
    return product(a, b, out)


def product(
    a: Array, b: Array, out: Array | None = None, alpha: float = 1.0, beta: float = 0.0
) -> Array:
    """a (..., m, k), b (..., k, n)  ->  alpha a b + beta out, (..., m, n), in `out` if given.

    The leading axes are the same in all arrays. With beta = 0 the content of `out` does not
    matter. Raises ValueError for shapes or dtypes that do not fit.
    """
    import cupy

    xp = get_xp(a)
    m, n, k = a.shape[-2], b.shape[-1], a.shape[-1]
    y = xp.empty((*a.shape[:-1], n), a.dtype) if out is None else out
    check_product(a, b, y)
    if y.size == 0 or k == 0:
        y[...] = beta * y if beta else 0
        return y
    kind = given = str(y.dtype)
    if given == "float32" and _chosen == "float16":
        a, b, given = a.astype("f2"), b.astype("f2"), "float16"
    compute = COMPUTE_64F if kind == "float64" else COMPUTE_32F
    if kind == "float32" and _chosen == "tf32":
        compute = COMPUTE_TF32
    direct = writable(y)  # otherwise cuBLAS writes to a new array, which is copied
    target = y if direct else xp.empty(y.shape, y.dtype)
    a, a_transposed, lda, stride_a = laid_out(a)
    b, b_transposed, ldb, stride_b = laid_out(b)
    c, _, ldc, stride_c = laid_out(target)
    alpha_c, beta_c = NUMBERS[kind](alpha), NUMBERS[kind](beta if direct else 0)
    alpha_at, beta_at = ctypes.addressof(alpha_c), ctypes.addressof(beta_c)
    stream = cupy.cuda.get_current_stream().ptr
    shape = (
        handle(cupy.cuda.Device().id).on(stream),
        int(b_transposed),
        int(a_transposed),
        n,
        m,
        k,
    )
    A, B, C = (address(a), KINDS[given]), (address(b), KINDS[given]), (address(c), KINDS[kind])
    if len(c) == 1:
        factors: tuple[int, ...] = (*B, ldb, *A, lda)
        result: tuple[int, ...] = (*C, ldc)
        gemm = cublas().cublasGemmEx
    else:
        factors = (*B, ldb, stride_b, *A, lda, stride_a)
        result = (*C, ldc, stride_c, len(c))
        gemm = cublas().cublasGemmStridedBatchedEx
    check(gemm(*shape, alpha_at, *factors, beta_at, *result, compute, DEFAULT))
    if not direct:
        y[...] = beta * y + target if beta else target
    return y


def check_product(a: Array, b: Array, y: Array) -> None:
    """Raise ValueError unless the shapes and dtypes of y = a b fit."""
    leading_axes_fit = a.shape[:-2] == b.shape[:-2] == y.shape[:-2]
    matrices_fit = a.shape[-1] == b.shape[-2] and y.shape[-2:] == (a.shape[-2], b.shape[-1])
    if not (leading_axes_fit and matrices_fit):
        raise ValueError(f"{a.shape} times {b.shape} does not make {y.shape}")
    if not a.dtype == b.dtype == y.dtype:
        raise ValueError(f"{a.dtype} times {b.dtype} does not make {y.dtype}")


def address(x: Any) -> int:
    """Return the address of x in the memory of the GPU."""
    return int(x.data.ptr)


def writable(y: Array) -> bool:
    """Return whether cuBLAS can write to y (..., m, n) in its memory layout.

    The leading axes must step through memory as a single one would, and the elements of a
    row must be adjacent.
    """
    leading = zip(y.shape[:-2], y.strides[:-2], strict=True)
    axes = [(size, step) for size, step in leading if size > 1]
    as_one = all(step == size * next_step for (_, step), (size, next_step) in pairwise(axes))
    return as_one and (y.strides[-1] == y.itemsize or y.shape[-1] == 1)


def laid_out(x: Array) -> tuple[Array, bool, int, int]:
    """Bring x (..., r, c) into a layout that cuBLAS can read, as (batch, r, c).

    It is copied only if that is necessary. Returns the array; whether the elements of its
    columns, not those of its rows, are adjacent; the number of elements from one such row
    or column to the next; and that from one matrix to the next.
    """
    r, c = x.shape[-2:]
    x = x.reshape(-1, r, c)
    step, by_row, by_column = (s // x.itemsize for s in x.strides)
    if (by_column == 1 or c == 1) and (by_row >= c or r == 1):
        return x, False, by_row if r > 1 else c, step
    if (by_row == 1 or r == 1) and (by_column >= r or c == 1):
        return x, True, by_column if c > 1 else r, step
    x = get_xp(x).ascontiguousarray(x)
    return x, False, c, r * c
