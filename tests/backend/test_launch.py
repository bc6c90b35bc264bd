"""Compiling and launching CUDA code, with nvcc and on the stand-in."""

import shutil
import subprocess

import numpy as np
import pytest
from both import to_gpu
from standin import compiled, strict

from numpyvit.backend import kernels
from numpyvit.backend.device import to_host
from numpyvit.backend.kernels import launch

NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
CODES = {name: page.CODE for name, page in vars(kernels).items() if hasattr(page, "CODE")}


@pytest.mark.parametrize("page", CODES)
@pytest.mark.parametrize("dtype", launch.TYPES)
def test_nvcc_compiles_the_code(page, dtype, tmp_path):
    if NVCC is None:
        pytest.skip("nvcc is not installed")
    (tmp_path / "kernel.cu").write_text(f"typedef {launch.TYPES[dtype]} T;\n{CODES[page]}")
    done = subprocess.run(
        [NVCC, "-ptx", "-std=c++17", "-Werror", "all-warnings", "kernel.cu"],
        cwd=tmp_path,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


REVERSE = """
extern "C" __global__ void reverse(const T* x, T* y, long long n) {
    __shared__ T s[64];
    if (threadIdx.x < n) s[threadIdx.x] = x[threadIdx.x];
    %s
    if (threadIdx.x < n) y[threadIdx.x] = s[n - 1 - threadIdx.x];
}
"""


def test_the_standin_notices_a_missing_barrier_and_one_that_not_all_threads_reach(standin):
    x, y = to_gpu(np.arange(64.0), np.zeros(64))

    def reverse(barrier):
        launch.launch(REVERSE % barrier, "reverse", 1, 64, x, y, 64, dtype=np.float64)
        return to_host(y).tolist()

    assert reverse("__syncthreads();") == list(range(63, -1, -1))
    assert reverse("") != list(range(63, -1, -1))
    with pytest.raises(strict.Refused, match="threads wait for others that never arrive"):
        reverse("if (threadIdx.x == 0) __syncthreads(); else __syncwarp();")


@pytest.mark.parametrize(
    "args",
    [
        lambda x: (x.astype(np.float32), x, np.int64(3)),
        lambda x: (x, x, np.int32(3)),
        lambda x: (x, x, 3),
        lambda x: (x[::2], x, np.int64(3)),
        lambda x: (np.ones(64), x, np.int64(3)),
        lambda x: (x, x),
    ],
    ids=["dtype", "int32", "Python integer", "not contiguous", "on the host", "one missing"],
)
def test_the_standin_refuses_arguments_that_cuda_would_misread(standin, args):
    if compiled.CXX is None:
        pytest.skip("g++ is not installed")
    (x,) = to_gpu(np.arange(64.0))
    with pytest.raises(strict.Refused):
        launch.kernel(REVERSE % "", "reverse", "float64")((1,), (64,), args(x))
