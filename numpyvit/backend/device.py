"""Where arrays live: the host's memory, by NumPy, or a GPU's, by CuPy. CuPy is imported here, when it is asked for."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import UserError
from .arrays import Array, on_host

INSTALL = "pip install 'numpyvit[cuda13]', or [cuda12] for an older driver"


def module_of(device: str) -> ModuleType:
    """numpy for "cpu"; for "cuda" or "cuda:1" cupy, with that GPU made the current one. Raises UserError that says what is
    missing: CuPy, a driver that works, or a GPU of that number."""
    found = re.fullmatch(r"cpu|cuda(?::(\d{1,3}))?", device) if isinstance(device, str) else None
    if not found:
        raise UserError(
            f"the device is {device!r}: wanted cpu, cuda, or cuda:N for the GPU of number N"
        )
    if device == "cpu":
        return np
    try:
        import cupy
    except ImportError as error:
        raise UserError(
            f"--device {device} needs CuPy, which cannot be imported ({error}): {INSTALL}"
        ) from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise UserError(
            f"CuPy finds no GPU that it can use ({error}): install or update NVIDIA's driver, or use "
            "--device cpu"
        ) from None
    try:
        from cupy_backends.cuda.libs import cublas, nvrtc  # noqa: F401  to compute with, and to compile kernels

        nvrtc.getVersion()  # CuPy looks for the library now
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"CuPy does not find CUDA's own libraries ({str(error).splitlines()[0]}): {INSTALL}"
        ) from None
    number = int(found[1] or 0)
    if number >= count:
        raise UserError(f"there is no GPU {number}: this machine has {count}, numbered from 0")
    cupy.cuda.Device(number).use()
    return cupy


def to(x: Array, device: str) -> Array:
    """x where `device` is; x itself, if it is there already."""
    xp = module_of(device)
    if xp is np:
        return to_host(x)
    return xp.asarray(x)


def to_host(x: Array) -> Array:
    """x as a NumPy array; from a GPU a copy, when all is done that was asked of it before."""
    return x if on_host(x) else x.get()  # type: ignore[attr-defined]


@contextmanager
def stream(device: str) -> Iterator[None]:
    """A GPU does what it is asked within this in order, and in an order of its own, which can be captured as a graph; it
    begins when what was asked before is done, and at the end all is done."""
    xp = module_of(device)
    if xp is np:
        yield
        return
    xp.cuda.get_current_stream().synchronize()
    with xp.cuda.Stream(non_blocking=True) as own:
        try:
            yield
        finally:
            own.synchronize()


def free_memory(device: str) -> float:
    """Bytes that a GPU has left; infinity for the host, where what is asked about is already."""
    return math.inf if device == "cpu" else float(module_of(device).cuda.Device().mem_info[0])


def number(x: Any) -> float:
    """The value of an array of no dimension, wherever it is, or of what is a number already."""
    return float(x.get()) if hasattr(x, "get") else float(x)
