"""A backward that overwrites the gradients in grads, in place of adding to them, is found."""

import importlib
import inspect
import pkgutil
import re
import textwrap

import pytest

import numpyvit.layers
from numpyvit.gradcheck import check_layer
from numpyvit.gradcheck.layer import overwriting
from numpyvit.gradcheck.suite import layer_checks
from numpyvit.layers.attention import Attention
from numpyvit.layers.linear import Linear
from numpyvit.layers.mlp import MLP
from numpyvit.testing import check_layer_contract, normal

ADDS = re.compile(r"\] \+= d")  # `grads[self.w] += dw`, or `dw[:, :D] += dwq`
CHECKS = {  # a check of `numpyvit gradcheck` for each class that adds to grads itself
    "ClsAttention": "attention of the first token",
    "ClsToken": "class token",
    "LayerNorm": "layernorm",
    "LearnedPositions": "positions",
    "Linear": "linear",
    "PatchEmbed": "patches",
}


def additions():
    """Yield (module, class name, line of its backward) for every addition to grads."""
    for page in pkgutil.iter_modules(numpyvit.layers.__path__):
        module = importlib.import_module(f"numpyvit.layers.{page.name}")
        for name, cls in vars(module).items():
            if inspect.isclass(cls) and cls.__module__ == module.__name__:
                backward = vars(cls).get("backward")
                lines = inspect.getsource(backward).splitlines() if backward else []
                grads = [line.strip() for line in lines if ADDS.search(line)]
                for line in grads:
                    if "dx" not in line:
                        yield module, name, line


ADDITIONS = list(additions())


def test_every_class_that_adds_to_grads_is_tested():
    assert {name for _, name, _ in ADDITIONS} == set(CHECKS)
    assert len(ADDITIONS) >= 10


@pytest.mark.parametrize(
    ("module", "name", "line"), ADDITIONS, ids=[f"{name}: {line}" for _, name, line in ADDITIONS]
)
def test_each_of_our_layers_fails_if_it_overwrites(module, name, line, monkeypatch):
    """Replace += by = in one line of a backward."""
    cls = getattr(module, name)
    source = textwrap.dedent(inspect.getsource(cls.backward))
    found = {}
    exec(source.replace(line, line.replace("+=", "=")), vars(module), found)
    monkeypatch.setattr(cls, "backward", found["backward"])
    report = layer_checks()[CHECKS[name]]()
    assert not report
    assert report.faults[0].startswith("backward overwrites what grads holds of ")


class Zeroing(Linear):
    def backward(self, dy, cache, grads, need_dx=True):
        grads.flat[:] = 0
        return super().backward(dy, cache, grads)


class Replacing(Linear):
    def backward(self, dy, cache, grads, need_dx=True):
        grads[self.b][...] = dy.sum((0, 1))
        kept = grads[self.b].copy()
        dx = super().backward(dy, cache, grads)
        grads[self.b] = kept
        return dx


class OneElement(Linear):
    def backward(self, dy, cache, grads, need_dx=True):
        grads[self.w][1, 0] = 0
        return super().backward(dy, cache, grads)


@pytest.mark.parametrize(("cls", "which"), [(Zeroing, "w, b"), (Replacing, "b"), (OneElement, "w")])
def test_the_layer_check_and_the_contract_name_what_is_overwritten(cls, which):
    x = normal((2, 3, 4), 0)
    message = f"backward overwrites what grads holds of {which}: add to it"
    report = check_layer(cls(4, 2), x)
    assert message in report.faults[0]
    assert not report
    with pytest.raises(AssertionError, match=message):
        check_layer_contract(cls(4, 2), x)
    with pytest.raises(AssertionError, match=message):
        check_layer_contract(cls(4, 2), x, gradients=False)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1, 1e6, 1e30])
def test_right_layers_add_at_every_size_of_their_gradients(scale):
    for seed in range(10):
        for layer in (MLP(4, 3), Attention(4, 2)):  # the bias of the keys cancels up to rounding
            x = scale * normal((2, 3, 4), seed)
            assert overwriting(layer, x, seed) == []


def test_a_weight_that_is_used_twice_may_cancel():
    """Its two gradients are 1 and -1 times the same, up to rounding."""

    class Difference(Linear):
        def forward(self, params, x):
            y1, c1 = super().forward(params, x)
            y2, c2 = super().forward(params, 3 * x / 3)
            return y1 - y2 + x @ params[self.w], (c1, c2)

        def backward(self, dy, cache, grads):
            c1, c2 = cache
            dx = super().backward(dy, c1, grads) + super().backward(-dy, c2, grads)
            grads[self.w] += c1[0].reshape(-1, 4).T @ dy.reshape(-1, 4)
            return dx + dy @ c1[1].T

    assert overwriting(Difference(4, 4), normal((2, 3, 4), 0), 0) == []
