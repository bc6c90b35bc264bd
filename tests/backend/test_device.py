"""backend/device.py: devices, transfers, and the errors for missing parts."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standin import strict

from numpyvit import UserError, ViT, ViTConfig, cross_entropy
from numpyvit.backend.arrays import count_values
from numpyvit.backend.device import free_memory, module_of, stream, to, to_float, to_host
from numpyvit.testing import normal, seeds

CONFIG = ViTConfig(6, 3, 2, 5, width=8, depth=2, heads=2, mlp_width=8)


def test_to_and_back(cupy):
    x = normal((2, 3), 0)
    there = to(x, "cuda")
    assert isinstance(there, cupy.ndarray)
    assert to(x, "cpu") is to_host(x) is x
    assert np.array_equal(to_host(there), x)
    assert np.array_equal(to(there, "cpu"), x)
    assert to(there, "cuda") is there or np.array_equal(to_host(to(there, "cuda")), x)
    assert to_float(there.sum()) == pytest.approx(x.sum())
    assert to_float(1.5) == to_float(np.float32(1.5)) == 1.5


def test_a_stream_is_current_inside_its_block_only(cupy):
    outside = cupy.cuda.get_current_stream().ptr
    with stream("cuda"):
        assert cupy.cuda.get_current_stream().ptr != outside
    assert cupy.cuda.get_current_stream().ptr == outside
    with stream("cpu"):
        assert cupy.cuda.get_current_stream().ptr == outside


def test_free_memory_is_finite_on_a_gpu_only(cupy):
    assert 0 < free_memory("cuda") < free_memory("cpu") == float("inf")


def test_devices_that_are_mixed_are_named(cupy):
    model = ViT(CONFIG)
    params = model.init()
    x, labels = normal((2, 6, 6, 2), 0, np.float32), np.arange(2)
    with pytest.raises(
        UserError, match="images are on the host and the weights on a GPU: bring them together"
    ):
        model.forward(params.to("cuda"), x)
    with pytest.raises(UserError, match="images are on a GPU and the weights on the host"):
        model.forward(params, to(x, "cuda"))
    with pytest.raises(UserError, match="logits and targets are on different devices"):
        cross_entropy(to(x[:, 0, 0], "cuda"), labels)


@pytest.mark.parametrize(
    "device", ["gpu", "cuda:", "cuda:x", "cuda:-1", "CUDA", "", "cuda:1234", "cpu ", None, 0]
)
def test_an_unknown_device_is_refused(device):
    with pytest.raises(UserError, match="use cpu, cuda, or cuda:N"):
        module_of(device)


def test_without_cupy_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # as if it were not installed
    assert module_of("cpu") is np
    with pytest.raises(
        UserError, match=r"needs CuPy, which cannot be imported .*pip install 'numpyvit\[cuda13\]'"
    ):
        module_of("cuda")


def test_the_gpu_with_the_given_number_becomes_current():
    with strict.installed() as cupy:
        assert module_of("cuda") is cupy
        with pytest.raises(UserError, match="there is no GPU 1: this machine has 1"):
            module_of("cuda:1")
        cupy.cuda = strict.cuda(2)
        assert module_of("cuda:1") is cupy
        assert strict.Device.used == 1
        module_of("cuda")
        assert strict.Device.used == 0


def test_missing_parts_of_cuda_are_named(monkeypatch):
    def no_nvrtc():
        raise RuntimeError("libnvrtc is not here")

    with strict.installed() as cupy:
        libraries = sys.modules["cupy_backends.cuda.libs"]
        with monkeypatch.context() as patch:
            patch.delattr(libraries, "cublas")
            with pytest.raises(UserError, match=r"does not find CUDA's libraries .*pip install"):
                module_of("cuda")
        with monkeypatch.context() as patch:
            patch.setattr(libraries.nvrtc, "getVersion", no_nvrtc)
            with pytest.raises(
                UserError, match=r"CUDA's libraries \(libnvrtc is not here\): pip install"
            ):
                module_of("cuda")
        too_old = "cudaErrorInsufficientDriver: CUDA driver version is insufficient"
        cupy.cuda = strict.cuda(0, too_old)
        with pytest.raises(
            UserError, match=r"no usable GPU \(cudaErrorInsufficientDriver.*update NVIDIA's driver"
        ):
            module_of("cuda")


@given(st.integers(0, 50), st.integers(1, 9), seeds)
def test_values_are_counted_without_waiting(no_waiting, m, n, seed):
    x = np.random.default_rng(seed).integers(0, n, m)
    there = to(x, "cuda")
    with no_waiting():
        found = count_values(there, n)
    assert np.array_equal(to_host(found), np.bincount(x, minlength=n))
