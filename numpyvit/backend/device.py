"""Where arrays live: in the host's memory (NumPy) or in a GPU's (CuPy).

CuPy is imported here, and only when a GPU is asked for.
"""

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import UserError, shown
from .arrays import Array, on_host

INSTALL = "pip install 'numpyvit[cuda13]', or [cuda12] for an older driver"


def module_of(device: str) -> ModuleType:
    """Return numpy for "cpu", or cupy for "cuda" and "cuda:1", with that GPU made current.

    Raises UserError that names the missing part: CuPy, a working driver, CUDA's libraries,
    or a GPU of that number.
    """
    found = re.fullmatch(r"cpu|cuda(?::(\d{1,3}))?", device) if isinstance(device, str) else None
    if not found:
        raise UserError(
            f"the device is {shown(device)}: use cpu, cuda, or cuda:N for the GPU with number N"
        )
    if device == "cpu":
        return np
    try:
        import cupy
    except ImportError as error:
        raise UserError(
            f"device {device} needs CuPy, which cannot be imported ({error}): {INSTALL}"
        ) from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise UserError(
            f"CuPy finds no usable GPU ({error}): install or update NVIDIA's driver, "
            "or use device cpu"
        ) from None
    try:
        # cuBLAS computes the matrix products and NVRTC compiles the kernels.
        from cupy_backends.cuda.libs import cublas, nvrtc  # noqa: F401

        nvrtc.getVersion()  # CuPy looks for the library only now
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"CuPy does not find CUDA's libraries ({reason}): {INSTALL}") from None
    number = int(found[1] or 0)
    if number >= count:
        raise UserError(
            f"there is no GPU {number}: this machine has {count}, numbered from 0; "
            "choose one of them"
        )
    cupy.cuda.Device(number).use()
    return cupy


def to(x: Array, device: str) -> Array:
    """Return `x` on `device`; `x` itself if it is there already."""
    xp = module_of(device)
    if xp is np:
        return to_host(x)
    return xp.asarray(x)


def to_host(x: Array) -> Array:
    """Return `x` as a NumPy array; from a GPU as a copy, after all pending work is done."""
    return x if on_host(x) else x.get()  # type: ignore[attr-defined]


def to_float(x: Any) -> float:
    """Return the value of a zero-dimensional array on any device, or of a number."""
    return float(x.get()) if hasattr(x, "get") else float(x)


@contextmanager
def stream(device: str) -> Iterator[None]:
    """Run the GPU work of a `with` block on a stream of its own; on the CPU do nothing.

    The work runs in order, can be captured as a CUDA graph, begins when all earlier work
    is done, and is complete when the block ends.
    """
    xp = module_of(device)
    if xp is np:
        yield
        return
    xp.cuda.get_current_stream().synchronize()
    with xp.cuda.Stream(non_blocking=True) as new:
        try:
            yield
        finally:
            new.synchronize()


def free_memory(device: str) -> float:
    """Return the bytes free on a GPU; infinity for the host, where the data are already."""
    return math.inf if device == "cpu" else float(module_of(device).cuda.Device().mem_info[0])


def machine_memory() -> float:
    """Return the bytes of memory of this machine, or infinity where it is unknown."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return math.inf
