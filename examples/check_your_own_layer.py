"""Prove that a layer of your own is right: RMSNorm (Zhang and Sennrich, 2019), first with a bug, then mended.

    python examples/check_your_own_layer.py      # a second; pip install 'numpyvit[test]' for the last part

    y = x / sqrt(mean(x^2) + eps) * gamma

What is below is all that a layer needs: two pure functions, and a class that names the weight. The bug is a common one: the
factor r = 1 / sqrt(...) depends on x too, and what follows from that needs r once more than was written.
"""

import numpy as np

import numpyvit as nv
from numpyvit.backend.arrays import Array
from numpyvit.gradcheck import check_layer
from numpyvit.params import ones


def rmsnorm_forward(x: Array, gamma: Array) -> tuple[Array, tuple]:
    """x (..., D), gamma (D,)  ->  y (..., D), cache."""
    r = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)  # (..., 1)
    return x * r * gamma, (x, r, gamma)


def wrong_backward(dy: Array, cache: tuple) -> tuple[Array, Array]:
    x, r, gamma = cache
    g = dy * gamma
    dx = r * (
        g - x * r * (g * x).mean(-1, keepdims=True)
    )  # x * r is normalised, and the x in the mean is not
    return dx, (dy * x * r).reshape(-1, x.shape[-1]).sum(0)


def rmsnorm_backward(dy: Array, cache: tuple) -> tuple[Array, Array]:
    """dy (..., D)  ->  dx (..., D), dgamma (D,).

    With xhat = x r and g = dy * gamma: dr/dx_i = -r^3 x_i / D, so  dx = r (g - xhat mean(g * xhat)).
    """
    x, r, gamma = cache
    g, xhat = dy * gamma, x * r
    dx = r * (g - xhat * (g * xhat).mean(-1, keepdims=True))
    return dx, (dy * xhat).reshape(-1, x.shape[-1]).sum(0)


class RMSNorm:
    """Weight: gamma (D,) from ones."""

    def __init__(self, width: int) -> None:
        self.gamma = nv.Param((width,), ones)

    def forward(self, params: nv.Buffer, x: Array) -> tuple[Array, tuple]:
        return rmsnorm_forward(x, params[self.gamma])

    def backward(self, dy: Array, cache: tuple, grads: nv.Buffer) -> Array:
        dx, dgamma = rmsnorm_backward(dy, cache)
        grads[self.gamma] += dgamma
        return dx


class WithABug(RMSNorm):
    def backward(self, dy: Array, cache: tuple, grads: nv.Buffer) -> Array:
        dx, dgamma = wrong_backward(dy, cache)
        grads[self.gamma] += dgamma
        return dx


def main() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 5))
    print("With the bug:", check_layer(WithABug(5), x), "", sep="\n")
    print("Mended:", check_layer(RMSNorm(5), x), "", sep="\n")

    try:
        from hypothesis import given, settings

        from numpyvit.testing import check_layer_contract, normal, seeds, shapes_BND
    except ImportError:
        print("The property tests need Hypothesis: pip install 'numpyvit[test]'")
        return

    @settings(deadline=None)
    @given(shapes_BND(), seeds)
    def contract(shape: tuple[int, int, int], seed: int) -> None:
        check_layer_contract(
            RMSNorm(shape[-1]), 1 + normal(shape, seed) ** 2, seed, zero=["x"]
        )  # D = 1: x cancels

    contract()
    print(
        "The property tests pass: 100 shapes and seeds. In a file of your own, pytest would run them."
    )


if __name__ == "__main__":
    main()
