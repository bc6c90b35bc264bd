import pickle

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
    seen = np.zeros(params.flat.size, int)
    for name, p in params.params.items():
        view = params[name]
        assert view is params[p]
        assert view.shape == p.shape
        start = (
            view.__array_interface__["data"][0] - params.flat.__array_interface__["data"][0]
        ) // 4
        seen[start : start + view.size] += 1
        assert (start + view.size <= params.decayed) if p.decay else (start >= params.decayed)
        assert p.decay == (name.endswith(".w") and name not in ("cls_token.w", "positions.w"))
    assert (seen == 1).all()


@given(vit_configs(), seeds)
def test_first_weights_depend_on_the_seed_alone(config, seed):
    model = ViT(config)
    assert np.array_equal(model.init(seed).flat, ViT(config).init(seed).flat)
    assert np.array_equal(
        model.init(seed).flat, model.init(seed, np.float64).flat.astype(np.float32)
    )
    assert not np.array_equal(model.init(seed).flat, model.init(seed + 1).flat)


def test_first_weights_have_the_deviations_that_they_should():
    params = ViT(ViTConfig(width=192, depth=1, heads=3, mlp_width=768)).init()
    deviations = {
        "blocks.0.attention.qkv.w": (2 / (192 + 576)) ** 0.5,
        "blocks.0.mlp.fc1.w": (2 / (192 + 768)) ** 0.5,
        "embed.w": (2 / (49 + 192)) ** 0.5,
        "positions.w": 0.02,
        "cls_token.w": 0.02,
    }
    for name, wanted in deviations.items():
        assert params[name].std() == pytest.approx(wanted, rel=0.15)
        assert abs(params[name].mean()) < 0.2 * wanted
    assert not params["head.out.w"].any()
    assert not params["blocks.0.mlp.fc1.b"].any()
    assert np.all(params["norm.gamma"] == 1)


def test_a_layer_in_two_places_has_its_weights_once():
    class Twice:
        def __init__(self):
            self.first = Linear(3, 3)
            self.again, self.others = self.first, {"a": Linear(3, 2)}

        def forward(self, params, x):
            y, c1 = self.first.forward(params, x)
            y, c2 = self.again.forward(params, y)
            y, c3 = self.others["a"].forward(params, y)
            return y, (c1, c2, c3)

        def backward(self, dy, cache, grads):
            c1, c2, c3 = cache
            dx = self.others["a"].backward(dy, c3, grads)
            return self.first.backward(self.again.backward(dx, c2, grads), c1, grads)

    layer = Twice()
    assert init(layer).names() == ["first.w", "first.b", "others.a.w", "others.a.b"]
    check_layer_contract(layer, normal((2, 3), 0), tolerance=SHARP)


def test_names_are_dotted_paths():
    names = ViT(ViTConfig(depth=2)).init().names()
    assert names[:4] == ["embed.w", "embed.b", "cls_token.w", "positions.w"]
    assert {"blocks.0.attention.qkv.w", "blocks.1.mlp.fc2.b", "norm.gamma", "head.out.w"} <= set(
        names
    )


def test_a_layer_can_be_initialised_by_itself_and_refuses_anothers_handles():
    a, b = Linear(3, 4), Linear(3, 4)
    params = init(a)
    assert params[a.w].shape == (3, 4)
    with pytest.raises(UserError, match="not of the model that this Buffer was made for"):
        params[b.w]
    with pytest.raises(UserError, match="no weight is called 'v'"):
        params["v"]


def test_another_size_of_weights_is_refused():
    params = init(Linear(3, 4))
    with pytest.raises(UserError, match=r"shape \(15,\), but the model has 16"):
        Buffer(params.params, params.flat[1:])


def test_copy_zeros_astype_assign_and_pickle():
    layer = Linear(3, 4)
    params = init(layer, 5)
    copy, zeros, wide = params.copy(), params.zeros_like(), params.astype(np.float64)
    copy[layer.w] += 1
    assert np.array_equal(copy[layer.w], params[layer.w] + 1)
    assert not zeros.flat.any()
    assert wide.flat.dtype == np.float64
    zeros["b"] = 2.0
    assert zeros["b"].tolist() == [2.0] * 4
    again, layer_again = pickle.loads(pickle.dumps((params, layer)))
    again[layer_again.w][...] = 7
    assert np.count_nonzero(again.flat == 7) == 12
