"""The hook sees every call, changes no result, and leaves the layers as they were."""

import inspect
from dataclasses import dataclass

import numpy as np
import pytest

from numpyvit import UserError, ViT, ViTConfig
from numpyvit.layers.linear import Linear
from numpyvit.layers.mlp import MLP
from numpyvit.params import init
from numpyvit.testing import normal
from numpyvit.watch import Call, named_layers, watch


class Scale:
    """A layer without weights: y = factor x."""

    def __init__(self, factor):
        self.factor = factor

    def forward(self, params, x):
        return self.factor * x, None

    def backward(self, dy, cache, grads):
        return self.factor * dy


class Chain:
    """Layers one after the other."""

    def __init__(self, *parts):
        self.parts = parts

    def forward(self, params, x):
        caches = []
        for part in self.parts:
            x, cache = part.forward(params, x)
            caches.append(cache)
        return x, caches

    def backward(self, dy, caches, grads):
        for part, cache in zip(reversed(self.parts), reversed(caches), strict=True):
            dy = part.backward(dy, cache, grads)
        return dy


class Slotted:
    __slots__ = ("factor",)

    def forward(self, params, x):
        return x, None

    def backward(self, dy, cache, grads):
        return dy


def run(call):
    return call()


def tiny_model():
    return ViT(ViTConfig(4, 2, 1, 3, width=4, depth=2, heads=2, mlp_width=4))


# ---- names


def test_inner_layers_come_first_and_the_outermost_last():
    model = tiny_model()
    layers = list(named_layers(model))
    names = [name for name, _ in layers]
    assert layers[-1] == ("", model)
    assert ("blocks.1.attention", model.blocks[1].attention) in layers
    assert names.index("blocks.0.mlp.fc1") < names.index("blocks.0.mlp") < names.index("blocks.0")
    assert names.index("blocks.0") < names.index("blocks.1")
    assert len(set(names)) == len(names)


def test_the_name_of_the_outermost_layer_is_a_prefix():
    mlp = MLP(4, 3)
    assert list(named_layers(mlp, "mlp")) == [
        ("mlp.fc1", mlp.fc1),
        ("mlp.gelu", mlp.gelu),
        ("mlp.fc2", mlp.fc2),
        ("mlp", mlp),
    ]


def test_layers_in_nested_lists_tuples_and_dicts_are_found():
    a, b, c = Scale(1.0), Scale(2.0), Scale(3.0)
    chain = Chain([a, (b,)], {"last": c})
    assert list(named_layers(chain)) == [
        ("parts.0.0", a),
        ("parts.0.1.0", b),
        ("parts.1.last", c),
        ("", chain),
    ]


def test_a_layer_that_occurs_twice_is_yielded_once():
    shared = Scale(2.0)
    chain = Chain(shared, shared)
    assert list(named_layers(chain)) == [("parts.0", shared), ("", chain)]


def test_a_layer_that_knows_its_parent_does_not_recurse_for_ever():
    inner = Scale(2.0)
    chain = Chain(inner)
    inner.parent = chain
    assert list(named_layers(chain)) == [("parts.0", inner), ("", chain)]


def test_classes_and_other_objects_are_no_layers():
    layer = Scale(2.0)
    layer.kind, layer.table = Linear, np.ones(3)
    assert list(named_layers(layer)) == [("", layer)]
    assert list(named_layers(3)) == []


# ---- calls


def test_the_hook_sees_nested_calls_with_their_arguments():
    seen = []

    def hook(call):
        seen.append((call.name, call.method, "begins"))
        result = call()
        seen.append((call.name, call.method, "ends"))
        return result

    inner = Scale(2.0)
    chain = Chain(inner)
    with watch(chain, hook):
        _, caches = chain.forward(None, np.ones(2))
        chain.backward(np.ones(2), caches, None)
    assert seen == [
        (name, method, when)
        for method in ("forward", "backward")
        for name, when in (("", "begins"), ("parts.0", "begins"), ("parts.0", "ends"), ("", "ends"))
    ]


def test_a_call_carries_its_layer_and_arguments():
    calls: list[Call] = []

    def hook(call):
        calls.append(call)
        return call()

    layer = Linear(3, 2)
    params, x, dy = init(layer, 0), normal((4, 3), 0), normal((4, 2), 1)
    with watch(layer, hook):
        _, cache = layer.forward(params, x)
        layer.backward(dy, cache, params.zeros_like(), need_dx=False)
    assert calls[0].layer is calls[1].layer is layer
    assert calls[0].args[1] is x
    assert calls[1].kwargs == {"need_dx": False}
    assert [call.method for call in calls] == ["forward", "backward"]


def test_a_shared_layer_is_seen_at_each_of_its_calls():
    names = []

    def hook(call):
        names.append(call.name)
        return call()

    shared = Scale(2.0)
    chain = Chain(shared, shared)
    with watch(chain, hook):
        chain.forward(None, np.ones(2))
    assert names == ["", "parts.0", "parts.0"]


def test_the_result_is_what_the_hook_returns():
    layer = Scale(2.0)
    with watch(layer, lambda call: ("instead", call.name)):
        assert layer.forward(None, np.ones(2)) == ("instead", "")


def test_results_have_the_same_bits():
    model = tiny_model()
    params, images = model.init(0), normal((2, 4, 4, 1), 0, np.float32)

    def forward_and_backward():
        y, cache = model.forward(params, images)
        grads = params.zeros_like()
        dx = model.backward(np.ones_like(y), cache, grads, need_dx=True)
        return y.tobytes(), dx.tobytes(), grads.flat.tobytes()

    plain = forward_and_backward()
    with watch(model, run):
        watched = forward_and_backward()
    assert watched == plain


def test_the_signature_of_a_method_is_still_visible():
    layer = Linear(3, 2)
    before = inspect.signature(layer.backward)
    with watch(layer, run):
        assert inspect.signature(layer.backward) == before


# ---- before and after


def attributes(layer):
    return {name: dict(vars(part)) for name, part in named_layers(layer)}


def test_all_attributes_are_restored_after_an_exception():
    model = tiny_model()
    replaced = model.blocks[0].mlp.gelu.forward
    model.blocks[0].mlp.gelu.forward = replaced  # in the instance already
    before = attributes(model)

    def hook(call):
        if call.name == "blocks.1.mlp":
            raise KeyError(call.name)
        return call()

    with pytest.raises(KeyError, match=r"blocks.1.mlp"), watch(model, hook):
        model.forward(model.init(0), normal((2, 4, 4, 1), 0, np.float32))
    after = attributes(model)
    assert after == before
    assert [list(part) for part in after.values()] == [list(part) for part in before.values()]
    assert model.blocks[0].mlp.gelu.forward is replaced
    assert "forward" not in vars(model)


def test_watches_can_be_nested():
    order = []

    def hook(label):
        def look(call):
            order.append(label)
            return call()

        return look

    layer = Scale(2.0)
    with watch(layer, hook("outer")):
        with watch(layer, hook("inner")):
            layer.forward(None, np.ones(2))
        layer.forward(None, np.ones(2))
    layer.forward(None, np.ones(2))
    assert order == ["inner", "outer", "outer"]
    assert vars(layer) == {"factor": 2.0}


def test_a_frozen_dataclass_can_be_watched():
    @dataclass(frozen=True)
    class Frozen:
        factor: float

        def forward(self, params, x):
            return self.factor * x, None

    layer = Frozen(2.0)
    with watch(layer, lambda call: 7):
        assert layer.forward(None, 1.0) == 7
    assert layer.forward(None, 1.0) == (2.0, None)


def test_a_layer_with_slots_is_refused_before_anything_changes():
    first, slotted = Scale(2.0), Slotted()
    chain = Chain(first, slotted)
    with (
        pytest.raises(UserError, match=r"parts.1 is a Slotted with __slots__.*cannot be watched"),
        watch(chain, run),
    ):
        pass
    assert vars(first) == {"factor": 2.0}
    assert vars(chain) == {"parts": (first, slotted)}
