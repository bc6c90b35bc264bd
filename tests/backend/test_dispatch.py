"""Which function runs: the readable one or the kernel."""

import inspect

import numpy as np
import pytest
from both import DECORATED, READABLE, to_gpu

from numpyvit import losses
from numpyvit.backend import kernels, ops
from numpyvit.backend.kernels import KERNELS
from numpyvit.layers import gelu, softmax
from numpyvit.testing import normal


def test_each_kernel_replaces_a_function_of_its_name():
    assert set(DECORATED) == set(KERNELS)
    for name, f in KERNELS.items():
        assert f.__name__ == name
        assert f.__module__.startswith(kernels.__name__)
        assert READABLE[name] is not DECORATED[name]


@pytest.mark.parametrize("name", KERNELS)
def test_each_kernel_has_the_signature_of_the_readable_function(name):
    ours = inspect.signature(KERNELS[name]).parameters
    theirs = inspect.signature(READABLE[name]).parameters
    assert list(ours) == list(theirs)
    for parameter in ours:
        mine, other = ours[parameter], theirs[parameter]
        assert mine.kind == other.kind
        if name != "orthogonalise":  # the kernel gets the constants from its caller
            assert mine.default == other.default


def test_forward_and_backward_are_replaced_together():
    for name in KERNELS:
        for way, other in (("_forward", "_backward"), ("_backward", "_forward")):
            if name.endswith(way):
                assert name.removesuffix(way) + other in KERNELS


def test_kernels_run_on_a_gpu_only_and_for_their_dtypes_only(cupy, monkeypatch):
    calls = []

    def kernel(x):
        calls.append(x.dtype)
        return x, x

    monkeypatch.setitem(KERNELS, "softmax_forward", kernel)
    x = np.ones((2, 3), np.float32)
    softmax.softmax_forward(x)
    softmax.softmax_forward(x.astype(np.float64))
    assert not calls
    for dtype in (np.float32, np.float64):
        softmax.softmax_forward(*to_gpu(x.astype(dtype)))
        assert calls.pop() == dtype
    gelu.gelu_erf_forward(*to_gpu(x))  # has no kernel
    assert not calls


@pytest.mark.parametrize("name", ["float16", "int64"])
def test_other_dtypes_get_the_readable_function(cupy, name, monkeypatch):
    def kernel(x):
        raise AssertionError("the kernel was called")

    seen = []

    def gelu_tanh_forward(x):
        seen.append(x.dtype)

    monkeypatch.setitem(KERNELS, "gelu_tanh_forward", kernel)
    ops.on_gpu(gelu_tanh_forward)(*to_gpu(np.ones(3, name)))
    assert seen == [np.dtype(name)]


def test_the_first_array_of_the_cache_decides_for_the_gradient_of_a_loss(cupy, monkeypatch):
    logits, t = to_gpu(normal((2, 3), 0), np.eye(3)[:2])
    _, cache = losses.cross_entropy_forward(logits, t)
    called = []
    monkeypatch.setitem(KERNELS, "cross_entropy_backward", lambda *args: called.append(args))
    losses.cross_entropy_backward(1.0, cache)
    assert called == [(1.0, cache)]
    _, cache = losses.cross_entropy_forward(normal((2, 3), 0), np.eye(3)[:2])
    losses.cross_entropy_backward(1.0, cache)
    assert len(called) == 1
