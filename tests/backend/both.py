"""Helpers for the tests of kernels: the readable functions, and comparisons with the GPU."""

import inspect

import numpy as np
from hypothesis import strategies as st

from numpyvit import losses
from numpyvit.backend import ops
from numpyvit.backend.device import to, to_host
from numpyvit.backend.kernels import KERNELS
from numpyvit.layers import attention, dropout, gelu, layernorm, patch_dropout, softmax
from numpyvit.optim import adamw, muon
from numpyvit.testing import normal

PAGES = ops, attention, dropout, layernorm, gelu, softmax, losses, adamw, muon, patch_dropout
DECORATED = {
    name: getattr(page, name)
    for page in PAGES
    for name in KERNELS
    if getattr(getattr(page, name, None), "__module__", None) == page.__name__
}
READABLE = {name: inspect.unwrap(f) for name, f in DECORATED.items()}

dtypes = st.sampled_from([np.float32, np.float64])
shapes = st.tuples(st.integers(0, 5), st.integers(1, 9), st.sampled_from([1, 2, 31, 32, 33, 70]))


def to_gpu(*arrays):
    """Return arrays moved to the GPU, and other arguments unchanged."""
    return [to(a, "cuda") if isinstance(a, np.ndarray) else a for a in arrays]


def assert_agree(found, wanted, dtype):
    """Assert that an array of the GPU has the dtype, and the values up to its rounding."""
    eps = np.finfo(dtype).eps
    assert found.dtype == dtype
    largest = abs(wanted).max(initial=0)
    np.testing.assert_allclose(
        to_host(found), wanted, rtol=200 * eps, atol=100 * eps * (1 + largest)
    )


def assert_pair_agrees(page, name, inputs, dtype, seed, **options):
    """Assert that a pair of functions does the same on the GPU as the readable pair on the host.

    If there is a kernel of that name, it runs on the GPU.
    """
    pair = [getattr(page, f"{name}_{way}") for way in ("forward", "backward")]
    readable_forward, readable_backward = (inspect.unwrap(f) for f in pair)
    forward, backward = (KERNELS.get(f.__name__, f) for f in pair)
    y, cache = readable_forward(*inputs, **options)
    y_there, cache_there = forward(*to_gpu(*inputs), **options)
    assert_agree(y_there, y, dtype)
    is_loss = np.ndim(y) == 0
    dy = 1.0 if is_loss else normal(y.shape, seed + 9, dtype)
    grads = as_tuple(readable_backward(dy, cache))
    grads_there = as_tuple(backward(*to_gpu(dy), cache_there))
    for found, wanted in zip(grads_there, grads, strict=True):
        assert (found is None) == (wanted is None)
        if found is not None:
            assert_agree(found, wanted, dtype)


def as_tuple(grads):
    return grads if isinstance(grads, tuple) else (grads,)
