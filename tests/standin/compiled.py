"""RawKernel without a GPU: the CUDA code of a kernel, compiled by g++ with cuda.h, and run on the host.

It refuses what CUDA would take in silence: an array of another dtype than the parameter's, of the host, or not contiguous;
a number that is no NumPy scalar of the parameter's very type; another count of arguments; threads that are no whole warps.
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

from . import strict

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
    """(type, whether it is a pointer) of each parameter of the kernel."""
    found = re.search(rf'extern "C" __global__ void {name}\(([^)]*)\)', code)
    if not found:
        raise strict.Refused(f"the code has no kernel {name}")
    types = {new: old for old, new in re.findall(r"typedef (\w[\w ]*) (\w+);", code)}
    out = []
    for text in found[1].split(","):
        words = text.replace("__restrict__", "").replace("const ", " ").replace("*", " * ").split()
        kind = " ".join(words[:-1]).replace(" *", "").replace("*", "").strip()
        out.append((types.get(kind, kind), "*" in words))
    return out


class RawKernel:
    """As CuPy's."""

    def __init__(self, code: str, name: str, options: tuple[str, ...] = ()) -> None:
        if CXX is None:
            pytest.skip("g++ is not here, to compile kernels")
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
        its_own = code[code.index(f"void {name}(") :].split('extern "C"')[0]
        self.alone = not re.search("__sync|__shfl|warp_", its_own)
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
                raise strict.Refused(done.stderr)
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
            raise strict.Refused(
                f"a grid of {grid} and blocks of {block}: one dimension, and whole warps"
            )
        if not 0 < grid[0] < 2**31:
            raise strict.Refused(f"a grid of {grid[0]} blocks")
        if len(args) != len(self.parameters):
            raise strict.Refused(f"{len(args)} arguments for {len(self.parameters)} parameters")
        keep: list[Any] = []
        for arg, (kind, pointer) in zip(args, self.parameters, strict=True):
            if pointer and not (
                isinstance(arg, strict.ndarray)
                and arg._a.flags.c_contiguous
                and arg.dtype == TYPES[kind]
            ):
                raise strict.Refused(
                    f"a pointer to {kind} got {type(arg).__name__} {getattr(arg, 'dtype', '')}"
                    f" {getattr(arg, 'strides', '')}"
                )
            if not pointer and type(arg) is not TYPES[kind]:
                raise strict.Refused(f"a parameter of type {kind} got {type(arg).__name__}")
            keep.append(ctypes.c_void_p(arg._a.ctypes.data) if pointer else np.array([arg]))
        pointers = (ctypes.c_void_p * len(keep))(
            *(k.ctypes.data if isinstance(k, np.ndarray) else ctypes.addressof(k) for k in keep)
        )

        def run() -> None:
            if self.go(grid[0], block[0], self.alone, pointers):
                raise strict.Refused("threads wait for others that never come")
            for arg in args:
                if isinstance(arg, strict.ndarray):
                    strict.flush(arg._a)
            assert keep  # what the pointers lead to

        strict.now_or_later(run)
