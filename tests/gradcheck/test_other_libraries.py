"""The checker takes the functions of other array libraries."""

import numpy as np
import pytest

from numpyvit import UserError
from numpyvit.gradcheck import check_function
from numpyvit.testing import check_pair_contract, normal

X, W = normal((2, 3), 0), normal((3,), 1)


class Tensor:
    """An array of another library, which NumPy can convert and which has no methods."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)


class OnAnotherDevice(Tensor):
    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert this tensor:\nuse .cpu() first")


def forward(x, w):
    return Tensor(np.sin(x) * w), (x, w)


def backward(dy, cache):
    x, w = cache
    return Tensor(dy * np.cos(x) * w), Tensor((dy * np.sin(x)).sum(0))


@pytest.mark.parametrize("directions", [0, 3])
def test_tensors_are_converted(directions):
    report = check_function(forward, backward, Tensor(X), Tensor(W), directions=directions)
    assert report, f"\n{report}"

    def wrong(dy, cache):
        dx, dw = backward(dy, cache)
        return Tensor(2 * dx.values), dw

    assert not check_function(forward, wrong, X, W, directions=directions)
    check_pair_contract(forward, backward, X, W)


def test_tensors_that_numpy_cannot_convert_get_one_line():
    message = (
        r"cannot be converted to a NumPy array: can't convert this tensor: use \.cpu\(\) first$"
    )
    with pytest.raises(UserError, match=f"^input 0 {message}"):
        check_function(forward, backward, OnAnotherDevice(X), W)
    with pytest.raises(UserError, match=f"^y {message}"):
        check_function(lambda x: (OnAnotherDevice(x), None), backward, X)
    with pytest.raises(UserError, match=f"^the gradient of input 0 {message}"):
        check_function(lambda x: (x * x, x), lambda dy, x: OnAnotherDevice(x), X)


def test_a_function_of_torch():
    torch = pytest.importorskip("torch")

    class SinTimes(torch.autograd.Function):
        slope = 1.0

        @staticmethod
        def forward(ctx, x, w):
            ctx.save_for_backward(x, w)
            return torch.sin(x) * w

        @staticmethod
        def backward(ctx, dy):
            x, w = ctx.saved_tensors
            return SinTimes.slope * dy * torch.cos(x) * w, (dy * torch.sin(x)).sum(0)

    # as in the docstring of numpyvit.gradcheck
    def forward(*inputs):
        tensors = [torch.tensor(x, requires_grad=True) for x in inputs]
        y = SinTimes.apply(*tensors)
        return y.detach(), (y, tensors)

    def backward(dy, cache):
        y, tensors = cache
        return torch.autograd.grad(y, tensors, torch.tensor(dy), retain_graph=True)

    report = check_function(forward, backward, torch.tensor(X), torch.tensor(W))
    assert report, f"\n{report}"
    SinTimes.slope = 1.001
    report = check_function(forward, backward, X, W)
    assert [row.verdict for row in report.rows] == ["wrong", "ok"]
    with pytest.raises(UserError, match=r"cannot be converted to a NumPy array.*detach"):
        check_function(forward, backward, torch.tensor(X, requires_grad=True), W)


def test_a_function_of_jax():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)

    def f(x, w, slope=1.0):
        return jax.numpy.sin(x) * w

    # as in the docstring of numpyvit.gradcheck
    def forward(*inputs):
        return jax.vjp(f, *inputs)

    def backward(dy, vjp):
        return vjp(jax.numpy.asarray(dy))

    report = check_function(forward, backward, jax.numpy.asarray(X), W)
    assert report, f"\n{report}"
    report = check_function(forward, lambda dy, vjp: vjp(jax.numpy.asarray(1.001 * dy)), X, W)
    assert [row.verdict for row in report.rows] == ["wrong", "wrong"]
