"""A stand-in for CuPy on machines without a GPU, stricter than CuPy itself.

Its arrays are in host memory. Code that works on it works on CuPy, as far as a host can
tell: it has only the functions, methods, attributes and parameters listed in api.json. It
refuses what would be an error in CuPy, and also what CuPy allows but our code must not do:

- NumPy functions on its arrays, and NumPy arrays among them, except in asarray, array and
  set, which upload;
- float(x), int(x), bool(x), x.item(), x.tolist() and indexing by a mask, all of which
  silently wait for the device. Deliberate reads, by get and asnumpy, are counted in `reads`.

While a stream is being captured nothing is computed but recorded; CuPy's own matrix products
and everything that would wait are refused.

As in CuPy, reductions and single elements are zero-dimensional arrays. Numbers too small for
a normal float become zero, as they may on a GPU, and new memory is filled with NaN.
"""

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from . import capture
from .arrays import API, call, index, inner, ndarray, outer
from .capture import Refused, now_or_later
from .cuda import Device, MemoryPool, cuda

__all__ = ["Device", "Refused", "cuda", "installed", "module", "ndarray"]


def __getattr__(name: str) -> Any:
    if name == "reads":  # it changes, so it cannot be imported
        return capture.reads
    raise AttributeError(name)


def empty(f: Any) -> Any:
    """Return a version of np.empty or np.empty_like that fills the array with NaN."""

    def made(*args: Any, **kwargs: Any) -> Any:
        a = f(*args, **kwargs)
        a.fill(
            np.nan
            if a.dtype.kind in "fc"
            else np.iinfo(a.dtype).max
            if a.dtype.kind in "iu"
            else True
        )
        return a

    return made


def function(name: str) -> Any:
    """Return the stand-in for the function `name` of CuPy."""
    f = getattr(np, name)
    f = empty(f) if name in ("empty", "empty_like") else f

    def run(*args: Any, **kwargs: Any) -> Any:
        return call("functions", name, f, args, kwargs)

    run.__name__ = name
    return run


def get_array_module(*args: Any) -> Any:
    """Return the stand-in if one of the arguments is on the device, otherwise NumPy."""
    return sys.modules["cupy"] if any(isinstance(a, ndarray) for a in args) else np


def add_at(a: Any, indices: Any, b: Any) -> None:
    """CuPy's add.at."""
    at, plain = index(indices), inner(b, "add.at")
    now_or_later(lambda: np.add.at(a._a, at, plain))


def windows(
    x: Any, window_shape: Any, axis: Any = None, *, subok: bool = False, writeable: bool = False
) -> Any:
    """CuPy's lib.stride_tricks.sliding_window_view."""
    return outer(
        np.lib.stride_tricks.sliding_window_view(
            inner(x, "sliding_window_view"), window_shape, axis
        )
    )


def module() -> Any:
    """Return the stand-in for the module `cupy`."""
    cupy: Any = types.ModuleType("cupy")
    cupy.ndarray, cupy.get_array_module, cupy.__version__ = (
        ndarray,
        get_array_module,
        API["version"],
    )
    for name in API["functions"]:
        if not name.startswith("_") and hasattr(np, name) and not hasattr(cupy, name):
            setattr(cupy, name, function(name))
    for name in (
        "float16",
        "float32",
        "float64",
        "int32",
        "int64",
        "uint8",
        "uint32",
        "bool_",
        "newaxis",
        "pi",
        "inf",
    ):
        setattr(cupy, name, getattr(np, name))
    cupy.add.at = add_at
    cupy.lib = types.SimpleNamespace(
        stride_tricks=types.SimpleNamespace(sliding_window_view=windows)
    )
    cupy.cuda = cuda(1)
    cupy.get_default_memory_pool = MemoryPool
    cupy.asnumpy = lambda a: a.get() if isinstance(a, ndarray) else np.asarray(a)
    return cupy


@contextmanager
def installed() -> Iterator[Any]:
    """Let `import cupy` find the stand-in within a `with` block, and yield the module."""
    from numpyvit.backend.kernels import gemm, launch

    from .blas import Library
    from .compiled import RawKernel

    cupy, real_cublas = module(), gemm.cublas
    cupy.RawKernel = RawKernel
    libraries: Any = types.ModuleType("cupy_backends.cuda.libs")
    libraries.cublas, libraries.nvrtc = None, types.SimpleNamespace(getVersion=lambda: (13, 0))
    fakes = {
        "cupy": cupy,
        "cupy_backends": types.ModuleType("cupy_backends"),
        "cupy_backends.cuda": types.ModuleType("cupy_backends.cuda"),
        libraries.__name__: libraries,
    }
    before = {name: sys.modules.get(name) for name in fakes}
    sys.modules.update(fakes)
    cached = launch.kernel, gemm.handle  # their caches hold objects of CuPy
    for function_with_cache in cached:
        function_with_cache.cache_clear()
    gemm.cublas = cache(Library)
    try:
        yield cupy
    finally:
        for function_with_cache in cached:
            function_with_cache.cache_clear()
        gemm.cublas = real_cublas
        for name, was in before.items():
            del sys.modules[name]
            if was is not None:
                sys.modules[name] = was
