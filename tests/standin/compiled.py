"""RawKernel without a GPU: CUDA code, compiled by g++ with cuda.h and run on the host.

It refuses arguments that CUDA would misread without an error: an array of the wrong dtype,
on the host or not contiguous; a number that is not a NumPy scalar of exactly the
parameter's type; a wrong number of arguments; blocks that are not a multiple of a warp.
"""

import ctypes
import hashlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .arrays import ndarray
from .capture import Refused, flush, now_or_later

HERE, CXX = Path(__file__).parent, shutil.which("g++")
TYPES = {
    "float": np.float32,
    "double": np.float64,
    "int": np.int32,
    "long long": np.int64,
    "unsigned short": np.uint16,
    "unsigned long long": np.uint64,
}
folder = tempfile.TemporaryDirectory(prefix="kernels-")


def parameters(code: str, name: str) -> list[tuple[str, bool]]:
    """Return (type, whether it is a pointer) for each parameter of the kernel."""
    found = re.search(rf'extern "C" __global__ void {name}\(([^)]*)\)', code)
    if not found:
        raise Refused(f"the code has no kernel {name}")
    types = {new: old for old, new in re.findall(r"typedef (\w[\w ]*) (\w+);", code)}
    out = []
    for text in found[1].split(","):
        words = text.replace("__restrict__", "").replace("const ", " ").replace("*", " * ").split()
        kind = " ".join(words[:-1]).replace(" *", "").replace("*", "").strip()
        out.append((types.get(kind, kind), "*" in words))
    return out


class RawKernel:
    """CuPy's RawKernel: compiled when it is made, and called with a grid, a block and arguments."""

    def __init__(self, code: str, name: str, options: tuple[str, ...] = ()) -> None:
        if CXX is None:
            pytest.skip("g++, which compiles the kernels, is not installed")
        self.parameters = parameters(code, name)
        cast = ", ".join(
            f"*({kind}{'*' if pointer else ''}*)a[{i}]"
            for i, (kind, pointer) in enumerate(self.parameters)
        )
        code += (
            f"\nstatic void call(void **a) {{ {name}({cast}); }}\n"
            'extern "C" int go(unsigned n, unsigned threads, bool alone, void **a) '
            "{ return run(n, threads, alone, call, a); }\n"
        )
        body = code[code.index(f"void {name}(") :].split('extern "C"')[0]
        self.alone = not re.search("__sync|__shfl|warp_", body)
        path = Path(folder.name, hashlib.md5(code.encode()).hexdigest() + ".so")
        if not path.exists():
            source = path.with_suffix(".cpp")
            source.write_text('#include "cuda.h"\n' + code)
            command = [
                str(CXX),
                "-O1",
                "-shared",
                "-fPIC",
                "-std=c++17",
                "-ffp-contract=off",
                f"-I{HERE}",
                str(source),
            ]
            done = subprocess.run([*command, "-o", str(path)], capture_output=True, text=True)
            if done.returncode:
                raise Refused(done.stderr)
        self.go = ctypes.CDLL(str(path)).go

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[Any, ...],
        *,
        shared_mem: int = 0,
    ) -> None:
        if len(grid) != 1 or len(block) != 1 or not (0 < block[0] <= 1024 and block[0] % 32 == 0):
            raise Refused(
                f"a grid of {grid} and blocks of {block}: use one dimension and whole warps"
            )
        if not 0 < grid[0] < 2**31:
            raise Refused(f"a grid of {grid[0]} blocks: use 1 to 2**31 - 1")
        if len(args) != len(self.parameters):
            raise Refused(f"{len(args)} arguments for {len(self.parameters)} parameters")
        keep: list[Any] = []
        for arg, (kind, pointer) in zip(args, self.parameters, strict=True):
            if pointer and not (
                isinstance(arg, ndarray) and arg._a.flags.c_contiguous and arg.dtype == TYPES[kind]
            ):
                raise Refused(
                    f"a pointer to {kind} got {type(arg).__name__} {getattr(arg, 'dtype', '')}"
                    f" {getattr(arg, 'strides', '')}"
                )
            if not pointer and type(arg) is not TYPES[kind]:
                raise Refused(f"a parameter of type {kind} got {type(arg).__name__}")
            keep.append(ctypes.c_void_p(arg._a.ctypes.data) if pointer else np.array([arg]))
        pointers = (ctypes.c_void_p * len(keep))(
            *(k.ctypes.data if isinstance(k, np.ndarray) else ctypes.addressof(k) for k in keep)
        )

        def run() -> None:
            if self.go(grid[0], block[0], self.alone, pointers):
                raise Refused("threads wait for others that never arrive")
            for arg in args:
                if isinstance(arg, ndarray):
                    flush(arg._a)
            assert keep  # the pointers point to these objects, which must exist until now

        now_or_later(run)
