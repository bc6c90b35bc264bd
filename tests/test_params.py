"""Param and Buffer: one flat array with a view for each weight."""

import io
import pickle
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given

from numpyvit import Buffer, UserError, ViT, ViTConfig, init
from numpyvit.gradcheck import SHARP
from numpyvit.layers.linear import Linear
from numpyvit.testing import check_layer_contract, normal, seeds, vit_configs


@given(vit_configs(), seeds)
def test_every_weight_is_a_view_of_the_flat_array_and_decaying_ones_come_first(config, seed):
    params = ViT(config).init(seed)
    start_of_all = params.flat.__array_interface__["data"][0]
    seen = np.zeros(params.flat.size, int)
    for name, p in params.params.items():
        view = params[name]
        assert view is params[p]
        assert view.shape == p.shape
        start = (view.__array_interface__["data"][0] - start_of_all) // view.itemsize
        stop = start + view.size
        seen[start:stop] += 1
        assert stop <= params.decayed if p.decay else start >= params.decayed
        assert p.decay == (name.endswith(".w") and name not in ("prefix.w", "positions.w"))
    assert (seen == 1).all()


@given(vit_configs(), seeds)
def test_initial_weights_depend_on_the_seed_alone(config, seed):
    model = ViT(config)
    weights = model.init(seed).flat
    assert np.array_equal(weights, ViT(config).init(seed).flat)
    assert np.array_equal(weights, model.init(seed, np.float64).flat.astype(np.float32))
    assert not np.array_equal(weights, model.init(seed + 1).flat)


def test_initial_weights_have_the_intended_standard_deviations():
    params = ViT(ViTConfig(width=192, depth=1, heads=3, mlp_width=768)).init()
    standard_deviations = {
        "blocks.0.attention.qkv.w": (2 / (192 + 576)) ** 0.5,
        "blocks.0.mlp.fc1.w": (2 / (192 + 768)) ** 0.5,
        "embed.w": (2 / (49 + 192)) ** 0.5,
        "positions.w": 0.02,
        "prefix.w": 0.02,
    }
    for name, wanted in standard_deviations.items():
        assert params[name].std() == pytest.approx(wanted, rel=0.15)
        assert abs(params[name].mean()) < 0.2 * wanted
    assert not params["head.out.w"].any()
    assert not params["blocks.0.mlp.fc1.b"].any()
    assert np.all(params["norm.gamma"] == 1)


def test_a_layer_in_two_places_has_its_weights_once():
    class Twice:
        def __init__(self):
            self.first = Linear(3, 3)
            self.again = self.first
            self.others = {"a": Linear(3, 2)}

        def forward(self, params, x):
            y, c1 = self.first.forward(params, x)
            y, c2 = self.again.forward(params, y)
            y, c3 = self.others["a"].forward(params, y)
            return y, (c1, c2, c3)

        def backward(self, dy, cache, grads):
            c1, c2, c3 = cache
            dx = self.others["a"].backward(dy, c3, grads)
            dx = self.again.backward(dx, c2, grads)
            return self.first.backward(dx, c1, grads)

    layer = Twice()
    assert init(layer).names() == ["first.w", "first.b", "others.a.w", "others.a.b"]
    check_layer_contract(layer, normal((2, 3), 0), tolerance=SHARP)


def test_names_are_dotted_paths():
    names = ViT(ViTConfig(depth=2)).init().names()
    assert names[:4] == ["embed.w", "embed.b", "prefix.w", "positions.w"]
    inner = {"blocks.0.attention.qkv.w", "blocks.1.mlp.fc2.b", "norm.gamma", "head.out.w"}
    assert inner <= set(names)


def test_a_buffer_is_a_mapping_from_names_to_arrays():
    layer = Linear(3, 4)
    params = init(layer, 5)
    assert isinstance(params, Mapping)
    assert list(params) == params.names() == ["w", "b"]
    assert len(params) == 2
    assert "w" in params
    assert layer.w in params
    assert "v" not in params
    assert Linear(3, 4).w not in params
    assert list(params.keys()) == ["w", "b"]
    assert all(array is params[name] for name, array in params.items())
    assert [array.shape for array in params.values()] == [(3, 4), (4,)]
    assert dict(**params) == {"w": params["w"], "b": params["b"]}


def test_get_returns_a_default_where_indexing_raises():
    layer = Linear(3, 4)
    params = init(layer)
    assert params.get("w") is params.get(layer.w) is params["w"]
    assert params.get("v") is None
    assert params.get("v", 3) == 3
    assert params.get(Linear(3, 4).w, 3) == 3
    for key in ("v", "", 0, None, ["w"]):
        with pytest.raises(
            UserError, match=r"no weight is called .*: list\(params\) has the names"
        ):
            params[key]
    with pytest.raises(UserError, match="no weight is called 'v'"):
        params["v"] = 1.0


def test_a_buffer_goes_through_an_npz_file():
    params = ViT(ViTConfig(4, 2, width=8, depth=1)).init()
    file = io.BytesIO()
    np.savez(file, **params)
    file.seek(0)
    with np.load(file) as loaded:
        assert loaded.files == params.names()
        for name in loaded.files:
            assert np.array_equal(loaded[name], params[name])
            assert loaded[name].dtype == params.flat.dtype


def test_buffers_are_equal_only_to_themselves():
    params = init(Linear(3, 4))
    same_values = params.copy()
    assert params == params
    assert params != same_values
    assert {params: 1}[params] == 1
    assert len({params, same_values}) == 2


def test_a_layer_can_be_initialised_by_itself_and_refuses_the_handles_of_another():
    a, b = Linear(3, 4), Linear(3, 4)
    params = init(a)
    assert params[a.w].shape == (3, 4)
    with pytest.raises(UserError, match="does not belong to the model that this Buffer was made"):
        params[b.w]


def test_weights_of_another_size_are_refused():
    params = init(Linear(3, 4))
    with pytest.raises(UserError, match=r"shape \(15,\), but the model has 16"):
        Buffer(params.params, params.flat[1:])


def test_copy_zeros_like_astype_and_assignment():
    layer = Linear(3, 4)
    params = init(layer, 5)
    copy, zeros, wide = params.copy(), params.zeros_like(), params.astype(np.float64)
    copy[layer.w] += 1
    assert np.array_equal(copy[layer.w], params[layer.w] + 1)
    assert not zeros.flat.any()
    assert wide.flat.dtype == np.float64
    assert np.array_equal(wide.flat, params.flat)
    zeros["b"] = 2.0
    assert zeros["b"].tolist() == [2.0] * 4
    assert np.count_nonzero(zeros.flat) == 4


def test_a_pickled_buffer_and_its_layer_still_belong_together():
    layer = Linear(3, 4)
    params, layer_again = pickle.loads(pickle.dumps((init(layer, 5), layer)))
    params[layer_again.w][...] = 7
    assert np.count_nonzero(params.flat == 7) == 12


def test_repr_says_how_many_weights_there_are():
    assert repr(init(Linear(30, 40))) == "<Buffer of 1,240 float32 weights in 2 arrays>"


@pytest.mark.parametrize("way", ["assigned", "in place", "slice"])
def test_flat_can_be_assigned_and_the_views_see_it(way):
    params = ViT(ViTConfig()).init()
    wanted = 0.9 * params.flat
    if way == "assigned":
        params.flat = 0.9 * params.flat
    elif way == "in place":
        params.flat *= 0.9
    else:
        params.flat[...] = 0.9 * params.flat
    assert np.array_equal(params.flat, wanted)
    assert all(np.shares_memory(view, params.flat) for view in params.values())


@pytest.mark.parametrize(
    "value", [0.0, None, [1.0], np.zeros(3, np.float32), np.zeros(136_394), np.zeros(136_394, int)]
)
def test_flat_keeps_its_shape_and_dtype(value):
    params = ViT(ViTConfig()).init()
    before = params.flat.copy()
    with pytest.raises(UserError, match="flat must be an array of float32 of shape"):
        params.flat = value
    assert np.array_equal(params.flat, before)


def test_a_buffer_is_made_of_one_contiguous_array_of_floats():
    declared = ViT(ViTConfig()).params
    size = sum(p.size for p in declared.values())
    for flat in (np.zeros(2 * size)[::2], np.zeros(size, int), list(range(size)), None):
        with pytest.raises(UserError, match="flat"):
            Buffer(declared, flat)
