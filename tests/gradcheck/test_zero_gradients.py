"""A gradient that is rightly zero in some examples of a property test is no failure."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from numpyvit import Param
from numpyvit.gradcheck import check_layer
from numpyvit.layers.layernorm import layernorm_backward, layernorm_forward
from numpyvit.layers.linear import Linear
from numpyvit.params import ones, xavier
from numpyvit.testing import (
    check_layer_contract,
    check_pair_contract,
    normal,
    seeds,
    shapes_BND,
)

SMALLEST = (1, 1, 1), 0  # the first example that Hypothesis draws


class ReLU:
    def __init__(self, width=1):
        pass

    def forward(self, params, x):
        return np.maximum(x, 0), x > 0

    def backward(self, dy, mask, grads):
        return dy * mask


class SquaredReLUMLP:
    def __init__(self, width):
        self.fc1, self.fc2 = Linear(width, 3), Linear(3, width)

    def forward(self, params, x):
        z, c1 = self.fc1.forward(params, x)
        a = np.maximum(z, 0)
        y, c2 = self.fc2.forward(params, a * a)
        return y, (c1, a, c2)

    def backward(self, dy, cache, grads):
        c1, a, c2 = cache
        return self.fc1.backward(2 * a * self.fc2.backward(dy, c2, grads), c1, grads)


class GroupNorm:
    """Normalise groups of features of each token; a group of one is zero."""

    def __init__(self, width):
        self.groups = np.gcd(width, 2)
        self.gamma = Param((width // self.groups,), ones)
        self.beta = Param((width // self.groups,), ones)

    def forward(self, params, x):
        y, cache = layernorm_forward(
            x.reshape(*x.shape[:-1], self.groups, -1), params[self.gamma], params[self.beta], 1e-5
        )
        return y.reshape(x.shape), cache

    def backward(self, dy, cache, grads):
        dx, dgamma, dbeta = layernorm_backward(dy.reshape(cache[0].shape), cache)
        grads[self.gamma] += dgamma
        grads[self.beta] += dbeta
        return dx.reshape(dy.shape)


class UnusedWeight(Linear):
    """Its bias takes part in neither forward nor backward."""

    def __init__(self, width):
        super().__init__(width, width, bias=False)
        self.unused = Param((width,), ones)


class ForgottenInBackward(Linear):
    """The gradient of its weights is left out."""

    def __init__(self, width):
        super().__init__(width, width)

    def backward(self, dy, cache, grads, need_dx=True):
        return super().backward(dy, cache, grads.zeros_like())


class Scale:
    """Multiplies a constant by a weight, and x not at all."""

    def __init__(self, width):
        self.w = Param((width,), xavier)

    def forward(self, params, x):
        return np.ones_like(x) * params[self.w], None

    def backward(self, dy, cache, grads):
        grads[self.w] += dy.sum((0, 1))
        return 0 * dy


def property_test(cls, max_examples=100):
    """Return the test that the docstring of numpyvit.testing recommends."""

    @settings(
        max_examples=max_examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # shrinking takes long
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(shapes_BND(), seeds)
    def contract(shape, seed):
        check_layer_contract(cls(shape[-1]), normal(shape, seed), seed)

    return contract


@pytest.mark.parametrize("cls", [ReLU, SquaredReLUMLP, GroupNorm])
def test_right_layers_pass_the_documented_test(cls):
    property_test(cls, max_examples=10)()


@pytest.mark.slow
@pytest.mark.parametrize("cls", [ReLU, SquaredReLUMLP, GroupNorm])
def test_right_layers_pass_many_examples(cls):
    property_test(cls, max_examples=2000)()


def test_a_relu_that_is_zero_at_this_value_passes_as_a_single_example_too():
    shape, seed = SMALLEST
    assert [row.verdict for row in check_layer(ReLU(), normal(shape, seed), seed).rows] == ["zero"]
    check_layer_contract(ReLU(), normal(shape, seed), seed)


@pytest.mark.parametrize(
    ("cls", "name", "max_examples"),
    [(UnusedWeight, "unused", 100), (Scale, "x", 2), (ForgottenInBackward, "w", 100)],
)
def test_a_gradient_that_is_always_zero_fails(cls, name, max_examples):
    with pytest.raises(AssertionError, match=rf"\n{name} .*(zero|wrong)"):
        property_test(cls, max_examples)()


def test_a_gradient_that_is_always_zero_fails_outside_of_hypothesis():
    for shape in ((1, 1, 1), (2, 3, 4)):
        with pytest.raises(AssertionError, match="x: zero in each of"):
            check_layer_contract(Scale(shape[-1]), normal(shape, 0))
    check_layer_contract(Scale(4), normal((2, 3, 4), 0), zero=["x"])


def test_a_wrong_slope_is_not_excused_by_a_zero():
    class Doubled(ReLU):
        def backward(self, dy, mask, grads):
            return 2 * dy * mask

    with pytest.raises(AssertionError, match="wrong"):
        property_test(Doubled)()


def test_pairs_of_functions_are_treated_alike():
    negative = np.array([[-0.3]])
    check_pair_contract(lambda x: (np.maximum(x, 0), x > 0), lambda dy, mask: dy * mask, negative)
    with pytest.raises(AssertionError, match="zero in each of 1"):
        check_pair_contract(
            lambda x, b: (x * x, (x, b)),
            lambda dy, cache: (2 * dy * cache[0], 0 * cache[1]),
            negative,
            np.ones(2),
        )
