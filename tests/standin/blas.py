"""cuBLAS without a GPU: the functions that gemm.py calls, computed by NumPy in host memory.

They refuse what cuBLAS refuses, such as leading dimensions that are too short and dtypes
that do not fit. For products of float32 in a lower precision, the inputs are rounded to
that precision, as cuBLAS does.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from .capture import flush, not_while_capturing, now_or_later
from .cuda import get_current_stream

P, I, LL = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong
# fmt: off
PROTOTYPES = {  # from cublas_api.h
    "cublasCreate_v2": (P,),
    "cublasSetStream_v2": (P, P),
    "cublasSetWorkspace_v2": (P, P, ctypes.c_size_t),
    "cublasGemmEx": (P, I, I, I, I, I, P, P, I, I, P, I, I, P, P, I, I, I, I),
    "cublasGemmStridedBatchedEx": (
        P, I, I, I, I, I, P, P, I, I, LL, P, I, I, LL, P, P, I, I, LL, I, I, I,
    ),
}
# fmt: on
DTYPES: dict[int, Any] = {0: np.dtype("f4"), 1: np.dtype("f8"), 2: np.dtype("f2")}
COMPUTE_32F, COMPUTE_64F, COMPUTE_TF32 = 68, 70, 77  # cublasComputeType_t
SUCCESS, INVALID_VALUE = 0, 7  # cublasStatus_t


def at(
    pointer: int, dtype: np.dtype, rows: int, columns: int, ld: int, step: int, batch: int
) -> np.ndarray:
    """Return the matrices (batch, rows, columns) at an address, stored by columns."""
    size = (batch - 1) * step + (columns - 1) * ld + rows
    memory: Any = (ctypes.c_char * (size * dtype.itemsize)).from_address(pointer)
    flat = np.frombuffer(memory, dtype)
    s = dtype.itemsize
    return np.lib.stride_tricks.as_strided(
        flat, (batch, rows, columns), (step * s, s, ld * s), writeable=True
    )


def tf32(x: np.ndarray) -> np.ndarray:
    """Return x rounded to 10 fraction bits, halves to even."""
    bits = x.astype("f4").view("u4")
    last = (bits >> np.uint32(13)) & np.uint32(1)  # of the bits that are kept
    rounded = bits + np.uint32(0x0FFF) + last
    return (rounded & np.uint32(0xFFFFE000)).view("f4")


class Library:
    """The library as ctypes would load it, with the conversions of the prototypes."""

    def __init__(self) -> None:
        self.streams: dict[int, int] = {}
        self.workspaces: dict[int, int] = {}
        for name, kinds in PROTOTYPES.items():
            f: Callable[..., int] = getattr(self, name[6:].split("_")[0].lower())
            setattr(self, name, ctypes.CFUNCTYPE(I, *kinds)(f))

    def create(self, place: int) -> int:
        not_while_capturing("cublasCreate", "it waits for the device")
        ctypes.c_void_p.from_address(place).value = len(self.streams) + 1
        self.streams[len(self.streams) + 1] = 0
        return SUCCESS

    def setstream(self, handle: int, stream: int) -> int:
        self.streams[handle] = stream
        self.workspaces.pop(handle, None)  # as in cuBLAS
        return SUCCESS

    def setworkspace(self, handle: int, place: int, size: int) -> int:
        self.workspaces[handle] = size
        return SUCCESS

    # fmt: off
    def gemmex(
        self, handle: int, op_a: int, op_b: int, m: int, n: int, k: int, alpha: int,
        a: int, kind_a: int, lda: int, b: int, kind_b: int, ldb: int, beta: int,
        c: int, kind_c: int, ldc: int, compute: int, algorithm: int,
    ) -> int:
        return self.gemmstridedbatchedex(
            handle, op_a, op_b, m, n, k, alpha, a, kind_a, lda, 0, b, kind_b, ldb, 0, beta,
            c, kind_c, ldc, 0, 1, compute, algorithm,
        )

    def gemmstridedbatchedex(
        self, handle: int, op_a: int, op_b: int, m: int, n: int, k: int, alpha: int,
        a: int, kind_a: int, lda: int, step_a: int,
        b: int, kind_b: int, ldb: int, step_b: int, beta: int,
        c: int, kind_c: int, ldc: int, step_c: int, batch: int, compute: int, algorithm: int,
    ) -> int:
        fits = (
            handle in self.workspaces
            and self.streams[handle] == get_current_stream().ptr
            and kind_a == kind_b
            and (kind_a, kind_c, compute)
            in [(0, 0, COMPUTE_32F), (0, 0, COMPUTE_TF32), (1, 1, COMPUTE_64F), (2, 0, COMPUTE_32F)]
            and min(m, n, k, batch) > 0
            and algorithm == -1
            and op_a in (0, 1)
            and op_b in (0, 1)
            and lda >= (k if op_a else m)
            and ldb >= (n if op_b else k)
            and ldc >= m
        )
        if not fits:
            return INVALID_VALUE
        number: Any = ctypes.c_double if compute == COMPUTE_64F else ctypes.c_float
        # cuBLAS reads the factors when it is called, not when the work is done.
        scale = number.from_address(alpha).value
        keep = number.from_address(beta).value
        x = at(a, DTYPES[kind_a], *((k, m) if op_a else (m, k)), lda, step_a, batch)
        y = at(b, DTYPES[kind_b], *((n, k) if op_b else (k, n)), ldb, step_b, batch)
        z = at(c, DTYPES[kind_c], m, n, ldc, step_c, batch)
        x, y = (x.swapaxes(1, 2) if op_a else x), (y.swapaxes(1, 2) if op_b else y)

        def work() -> None:
            left, right = (
                (tf32(x), tf32(y))
                if compute == COMPUTE_TF32
                else (x.astype(z.dtype), y.astype(z.dtype))
            )
            with np.errstate(all="ignore"):
                found = scale * (left @ right)
                z[...] = found + keep * z if keep else found
            flush(z)

        now_or_later(work)
        return SUCCESS
    # fmt: on
