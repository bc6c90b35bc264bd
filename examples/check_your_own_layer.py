"""Write a layer of your own, and prove that its backward pass is right.

    python examples/check_your_own_layer.py      # about a second

Step 5 needs Hypothesis: pip install 'numpyvit[test]'.

The layer is RMSNorm (Zhang and Sennrich, 2019), a LayerNorm that does not subtract the
mean. It divides the D features of each token by their root mean square, and multiplies
them by a weight gamma:

    r = 1 / sqrt(mean_i(x_i²) + eps)
    y_i = x_i r gamma_i

Read this page from top to bottom. Step 2 makes a common mistake, the checker finds it,
and step 3 corrects it.
"""

import numpy as np

import numpyvit as nv
from numpyvit.gradcheck import check_function, check_layer
from numpyvit.params import ones

Array = np.ndarray
EPS = 1e-6


# Step 1: forward.
#
# It returns y, and a cache: everything that backward will need. It writes to none of
# its arguments and keeps nothing anywhere else, so that several threads can run it.


def rmsnorm_forward(x: Array, gamma: Array) -> tuple[Array, tuple]:
    """x (..., D), gamma (D,)  ->  y (..., D), cache."""
    r = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + EPS)  # (..., 1)
    return x * r * gamma, (x, r, gamma)


# Step 2: a first backward, with a mistake.
#
# dy is the gradient of the loss with respect to y; backward returns the gradients with
# respect to each input of forward, in their order. With g = dy gamma, the chain
# rule gives
#
#     dx_i = r g_i + Σ_j g_j x_j ∂r/∂x_i,    ∂r/∂x_i = -r³ x_i / D,
#
# where the sum is there because r depends on every x_i. In terms of the mean over j:
#
#     dx_i = r g_i - r³ x_i mean_j(g_j x_j)
#
# The function below has r² in place of r³ in the second term.


def wrong_backward(dy: Array, cache: tuple) -> tuple[Array, Array]:
    """dy (..., D)  ->  dx (..., D), dgamma (D,). dx is wrong."""
    x, r, gamma = cache
    g = dy * gamma
    dx = r * g - r**2 * x * (g * x).mean(-1, keepdims=True)
    dgamma = (dy * x * r).reshape(-1, x.shape[-1]).sum(0)
    return dx, dgamma


# The checker says which gradient is wrong, where, and by how much:
#
#   gradient of  worst element                 analytic        numeric    error  estimate  verdict
#   x            [1, 0, 4] of y[1, 0, 0]     -0.3521363      -0.532227    1e-01     1e-14  wrong
#   gamma        [1] of y[1, 1, 1]              1.69072        1.69072    1e-16     6e-16  ok
#   error: analytic - numeric, relative to the whole gradient; estimate: how uncertain that is
#   wrong: backward is not the derivative of forward there
#
# "analytic" is the derivative by backward, "numeric" the one by differences of forward.
# "estimate" is how much of the error may come from the differences and from rounding.


# Step 3: the right backward.
#
# With xhat = x r, the normalised features, one factor r can be taken out of both terms.
# The line of code is then shorter than the wrong one.


def rmsnorm_backward(dy: Array, cache: tuple) -> tuple[Array, Array]:
    """dy (..., D)  ->  dx (..., D), dgamma (D,).

    With xhat = x r and g = dy gamma,

        dx = r (g - xhat mean(g xhat)),  dgamma = Σ dy xhat,

    where the mean is over the features and the sum over everything else.
    """
    x, r, gamma = cache
    g = dy * gamma
    xhat = x * r
    dx = r * (g - xhat * (g * xhat).mean(-1, keepdims=True))
    dgamma = (dy * xhat).reshape(-1, x.shape[-1]).sum(0)
    return dx, dgamma


# Now both verdicts are "ok", with errors near 1e-16.


# Step 4: the layer.
#
# A layer declares its weights and holds no arrays. `params` and `grads` are Buffers:
# one flat array each, in which `self.gamma` finds the weight and its gradient.
# Functions return gradients, and layers add them to `grads`, since a weight may be used
# more than once.


class RMSNorm:
    """RMSNorm over the last axis. Weight: gamma (D,), initially ones."""

    def __init__(self, width: int) -> None:
        self.gamma = nv.Param((width,), ones)

    def forward(self, params: nv.Buffer, x: Array) -> tuple[Array, tuple]:
        return rmsnorm_forward(x, params[self.gamma])

    def backward(self, dy: Array, cache: tuple, grads: nv.Buffer) -> Array:
        dx, dgamma = rmsnorm_backward(dy, cache)
        grads[self.gamma] += dgamma
        return dx


# Step 5: property tests.
#
# One input proves little. Hypothesis draws shapes and seeds, and `check_layer_contract`
# checks more than the gradients: that nothing is written to, that float32 stays
# float32, that a batch can be split, and so on. (With one feature, RMSNorm gives ±1,
# and the gradient of x is zero. That is no failure, since it is not so at every shape.)
# In a test file of your own, that is
#
#     @settings(deadline=None)
#     @given(shapes_BND(), seeds)
#     def test_rmsnorm(shape, seed):
#         check_layer_contract(RMSNorm(shape[-1]), normal(shape, seed), seed)
#
# and pytest would run it.


def property_tests() -> None:
    """Check RMSNorm for 100 shapes and seeds. Raises AssertionError if it is wrong."""
    from hypothesis import given, settings

    from numpyvit.testing import check_layer_contract, normal, seeds, shapes_BND

    @settings(deadline=None)
    @given(shapes_BND(), seeds)
    def contract(shape: tuple[int, int, int], seed: int) -> None:
        check_layer_contract(RMSNorm(shape[-1]), normal(shape, seed), seed)

    contract()


def main() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 5))
    gamma = rng.normal(size=5)
    names = ["x", "gamma"]

    print("Step 2, the wrong backward:")
    print(check_function(rmsnorm_forward, wrong_backward, x, gamma, names=names))

    print("\nStep 3, the right backward:")
    print(check_function(rmsnorm_forward, rmsnorm_backward, x, gamma, names=names))

    print("\nStep 4, the layer:")
    print(check_layer(RMSNorm(5), x))

    print("\nStep 5, property tests:")
    try:
        property_tests()
    except ImportError:
        print("they need Hypothesis: pip install 'numpyvit[test]'")
    else:
        print("all pass, for 100 shapes and seeds")


if __name__ == "__main__":
    main()
