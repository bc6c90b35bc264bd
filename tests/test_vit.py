import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numpyvit import AdamW, UserError, ViT, ViTConfig, cross_entropy, presets
from numpyvit.gradcheck import noisy, noisy_pair
from numpyvit.layers.dropout import dropout_forward
from numpyvit.layers.patch_dropout import patch_dropout_forward
from numpyvit.layers.positions import sinusoidal
from numpyvit.layers.rotary import turns
from numpyvit.look.costs import costs
from numpyvit.testing import (
    assert_batch_splits,
    assert_dtype_kept,
    assert_linear_backward,
    assert_pure,
    assert_reentrant,
    close,
    normal,
    seeds,
    vit_configs,
)

COUNTS = {  # of the papers, at 224x224 with 1000 classes
    "ViT-Ti/16": 5_717_416,
    "ViT-S/16": 22_050_664,
    "ViT-B/16": 86_567_656,
    "ViT-L/16": 304_326_632,
    "ViT-H/14": 632_045_800,
}


@pytest.mark.parametrize(("name", "count"), list(COUNTS.items()))
def test_parameter_counts(name, count):
    assert ViT(presets[name]).count() == count


def images_for(config, B, seed, dtype=np.float64):
    return normal((B, *config.image, config.channels), seed, dtype)


@given(vit_configs(), seeds)
def test_contract(config, seed):
    forward, backward, _, weights = noisy_pair(ViT(config), seed)
    inputs = images_for(config, 3, seed), *weights
    for check in (
        assert_linear_backward,
        assert_pure,
        assert_dtype_kept,
        assert_reentrant,
        assert_batch_splits,
    ):
        check(forward, backward, *inputs, seed=seed)


@given(vit_configs(dropout=True), seeds)
def test_dropout_is_frozen_by_its_seed_and_off_in_evaluation(config, seed):
    model, x = ViT(config), images_for(config, 3, seed)
    params = noisy(model, seed)
    a, b = (model.forward(params, x, np.random.default_rng(seed))[0] for _ in range(2))
    assert np.array_equal(a, b)
    plain, _ = model.forward(params, x)
    assert np.array_equal(plain, model.forward(params, x, need_cache=False)[0])
    if not (config.dropout or config.attention_dropout or config.drop_path or config.patch_dropout):
        assert np.array_equal(a, plain)


@given(vit_configs(dropout=True), seeds)
def test_the_last_blocks_shortcut_changes_nothing(config, seed):
    """With taps every token of the last block is computed, without only the one that is read."""
    model, x = ViT(config), images_for(config, 2, seed)
    params, taps = noisy(model, seed), {}
    y, cache = model.forward(params, x, np.random.default_rng(seed))
    y_long, cache_long = model.forward(params, x, np.random.default_rng(seed), taps=taps)
    assert close(y, y_long)
    g, g_long = params.zeros_like(), params.zeros_like()
    dy = normal(y.shape, seed)
    dx, dx_long = (
        model.backward(dy, cache, g, need_dx=True),
        model.backward(dy, cache_long, g_long, need_dx=True),
    )
    assert close(dx, dx_long, 1e-9)
    assert close(g.flat, g_long.flat, 1e-9)
    N, D = config.tokens, config.width
    if config.patch_dropout:
        first = int(config.pooling == "cls")
        N = first + max(1, round((1 - config.patch_dropout) * (N - first)))
    assert list(taps) == [f"blocks.{i}" for i in range(config.depth)]
    for tap in taps.values():
        assert tap["attention"].shape == (2, config.heads, N, N)
        assert tap["output"].shape == (2, N, D)


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10", "ViT-Ti/16"])
@settings(max_examples=3)
@given(seed=seeds)
def test_starts_at_a_loss_of_ln_K(name, seed):
    model = ViT(presets[name])
    logits, _ = model.forward(model.init(seed), images_for(presets[name], 2, seed, np.float32))
    loss, _ = cross_entropy(logits, np.arange(2))
    assert loss == pytest.approx(math.log(presets[name].classes), abs=0.1)


@pytest.mark.parametrize("field", ["dropout", "attention_dropout", "drop_path", "patch_dropout"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_each_kind_of_dropout_is_on_in_training(field, pooling):
    config = ViTConfig(
        6, 3, 2, 5, width=8, depth=2, heads=2, mlp_width=8, pooling=pooling, **{field: 0.5}
    )
    model, x = ViT(config), images_for(config, 8, 0)
    params = noisy(model, 0)
    plain, _ = model.forward(params, x)
    assert not np.allclose(model.forward(params, x, np.random.default_rng(1))[0], plain)
    draws = [model.forward(params, x, np.random.default_rng(seed))[0] for seed in range(5)]
    assert len({d.tobytes() for d in draws}) == 5


@given(vit_configs(dropout=True), seeds)
def test_the_stack_is_the_papers_equations(config, seed):
    """By hand from the layers, every token of every block: (1), then (2) and (3) in the blocks, then (4)."""
    model, x = ViT(config), images_for(config, 2, seed)
    params, rng = noisy(model, seed), np.random.default_rng(seed)
    z, _ = model.embed.forward(params, x)
    if config.pooling == "cls":
        z = np.concatenate(
            [np.broadcast_to(params["cls_token.w"], (2, 1, config.width)), z], axis=1
        )
    if config.positions == "learned":
        z = z + params["positions.w"]
    elif config.positions == "sinusoidal":
        z = z + sinusoidal(config.tokens, config.width)
    first, turn = int(config.pooling == "cls"), None
    if config.positions == "rotary":
        turn = np.tile(turns(config.grid, config.width // config.heads, first), (2, 1, 1))
    z, kept = patch_dropout_forward(z, config.patch_dropout, rng, first)
    if turn is not None and kept is not None:
        turn = turn[kept[0], kept[1]]
    z, _ = dropout_forward(z, config.dropout, rng)
    for block in model.blocks:
        z, _ = block.forward(params, z, rng, turn=turn)
    z, _ = model.norm.forward(params, z)
    wanted, _ = model.head.forward(params, z[:, 0] if config.pooling == "cls" else z.mean(1))
    assert close(model.forward(params, x, np.random.default_rng(seed))[0], wanted, 1e-10)


def test_evaluation_keeps_no_cache():
    import tracemalloc

    config = ViTConfig(16, 4, 1, 10, width=32, depth=6, heads=2, mlp_width=64)
    model, x = ViT(config), images_for(config, 64, 0, np.float32)
    params, peaks = model.init(), []
    for need_cache in (True, False):
        tracemalloc.start()
        model.forward(params, x, need_cache=need_cache)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] / 3


@settings(max_examples=5)
@given(st.sampled_from(["cls", "mean"]), seeds)
def test_overfits_eight_images(pooling, seed):
    config = ViTConfig(8, 4, 1, 10, width=32, depth=2, heads=2, mlp_width=64, pooling=pooling)
    model, x = ViT(config), images_for(config, 8, seed, np.float32)
    labels = np.random.default_rng(seed).integers(0, 10, 8)
    params = model.init(seed)
    optimizer = AdamW(params, weight_decay=0)
    for _ in range(150):
        logits, cache = model.forward(params, x)
        loss, dlogits = cross_entropy(logits, labels)
        grads = params.zeros_like()
        model.backward(dlogits, cache, grads)
        optimizer.step(params, grads, 5e-3)
    assert loss < 0.01


def test_a_model_takes_no_tokens_order_from_attention_alone():
    """Without positions, patches in another order give the same logits; with positions they do not."""
    for positions, same in (
        ("none", True),
        ("learned", False),
        ("sinusoidal", False),
        ("rotary", False),
    ):
        config = ViTConfig(4, 2, 1, 3, width=8, depth=2, heads=2, mlp_width=8, positions=positions)
        model = ViT(config)
        params, x = noisy(model, 0), images_for(config, 2, 0)
        swapped = np.concatenate([x[:, 2:], x[:, :2]], axis=1)
        assert np.allclose(model.forward(params, x)[0], model.forward(params, swapped)[0]) == same


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"patch_size": 5},
            "28x28 cannot be cut into patches of 5x5: choose a patch_size that divides",
        ),
        ({"image_size": (28, 30)}, "28x30 cannot be cut"),
        ({"patch_overlap": 8}, "patch_overlap is 8: it must be a whole number of pixels, 0 to 7"),
        ({"patch_overlap": 1.0}, "patch_overlap is 1.0"),
        ({"patch_overlap": -1}, "patch_overlap is -1"),
        ({"width": 66}, "width 66 cannot be split over 4 heads"),
        ({"width": 24, "positions": "rotary"}, "heads of width 6 cannot turn by row and by column"),
        ({"pooling": "men"}, "did you mean 'mean'"),
        ({"positions": "sinusoid"}, "did you mean 'sinusoidal'"),
        ({"gelu": "relu"}, "one of tanh, erf"),
        ({"depth": 0}, "depth is 0: it must be a whole number above 0"),
        ({"width": 64.0}, "width is 64.0"),
        ({"dropout": 1.0}, "dropout is 1.0: it must be a number from 0 to 0.99"),
        ({"dropout": math.nan}, "dropout is nan"),
        ({"image_size": "28"}, "image_size is '28'"),
        ({"norm_eps": 0}, "norm_eps is 0"),
        ({"qkv_bias": 1}, "qkv_bias is 1"),
    ],
)
def test_parts_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        ViTConfig(**fields)


def test_patches_that_overlap_see_their_neighbours():
    """A pixel moves the tokens of all patches that see it, and of no other."""
    config = ViTConfig(6, 2, 1, 3, width=8, depth=1, heads=2, mlp_width=8, patch_overlap=1)
    model = ViT(config)
    params, x = noisy(model, 0), images_for(config, 1, 0)
    before, _ = model.embed.forward(params, x)
    x[0, 2, 2] += 1  # the corner of the patch in the middle
    changed = (model.embed.forward(params, x)[0] != before).any(-1).reshape(3, 3)
    assert changed.tolist() == [[True, True, False], [True, True, False], [False, False, False]]
    assert costs(config)[1][:2] == ("patches of 2x2, 4x4 seen, linear", "9x8")
    assert costs(config)[1][2:] == (model.params["embed.w"].size + 8, 2 * 9 * 16 * 8)


def test_drop_path_rises_with_depth():
    blocks = ViT(ViTConfig(depth=4, drop_path=0.2)).blocks
    assert [block.drop_path for block in blocks] == pytest.approx([0.05, 0.1, 0.15, 0.2])


def test_a_config_goes_to_a_dict_and_back():
    config = ViTConfig((8, 4), (4, 2), gelu="erf")
    assert ViTConfig.from_dict(config.to_dict()) == config
    assert (
        ViTConfig.from_dict({**config.to_dict(), "image_size": [8, 4], "patch_size": [4, 2]})
        == config
    )
    with pytest.raises(UserError, match="'depht' is unknown: did you mean 'depth'"):
        ViTConfig.from_dict({"depht": 3})


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 3, 8, 4), np.float32), r"channels-first: images.transpose\(0, 2, 3, 1\)"),
        (
            np.zeros((2, 8, 8, 3), np.float32),
            r"shape \(2, 8, 8, 3\), the model wants \(B, 8, 4, 3\)",
        ),
        (np.zeros((8, 4, 3), np.float32), "the model wants"),
        (np.zeros((2, 8, 4, 3), np.uint8), "uint8, not normalised floats"),
        (
            np.zeros((2, 8, 4, 3), np.float64),
            r"float64 and the weights float32: images.astype\('float32'\)",
        ),
        (np.full((2, 8, 4, 3), np.nan, np.float32), "NaN or infinity"),
        (np.full((2, 8, 4, 3), np.inf, np.float32), "NaN or infinity"),
    ],
)
def test_images_that_do_not_fit_are_refused(images, message):
    model = ViT(ViTConfig((8, 4), 4, 3))
    with pytest.raises(UserError, match=message):
        model.forward(model.init(), images)


def test_another_models_weights_are_refused():
    config = ViTConfig(8, 4)
    with pytest.raises(UserError, match="not of the model that this Buffer was made for"):
        ViT(config).forward(ViT(config).init(), np.zeros((1, 8, 8, 1), np.float32))
