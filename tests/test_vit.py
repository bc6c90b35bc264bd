"""The whole model: its equations, options, shortcuts and errors."""

import dataclasses
import math
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numpyvit import AdamW, Buffer, UserError, ViT, ViTConfig, cross_entropy, presets, vit_checks
from numpyvit.gradcheck import noisy, noisy_pair
from numpyvit.layers.block import Block
from numpyvit.layers.dropout import dropout_forward
from numpyvit.layers.last_block import LastBlock
from numpyvit.layers.patch_dropout import sample_patches
from numpyvit.layers.positions import sinusoidal
from numpyvit.layers.rotary import rotation_table
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

COUNTS = {  # from the papers, for images of 224x224 and 1000 classes
    "ViT-Ti/16": 5_717_416,
    "ViT-S/16": 22_050_664,
    "ViT-B/16": 86_567_656,
    "ViT-L/16": 304_326_632,
    "ViT-H/14": 632_045_800,
}


@pytest.mark.parametrize(("name", "count"), list(COUNTS.items()))
def test_the_presets_have_the_numbers_of_weights_of_the_papers(name, count):
    assert ViT(presets[name]).count() == count


def images_for(config, B, seed, dtype=np.float64):
    return normal((B, *config.image, config.channels), seed, dtype)


def draw_keep(config, B, some_patches, seed):
    """Draw keep (B, m) for a random m, or None if all patches take part."""
    if not some_patches:
        return None
    rng = np.random.default_rng(seed)
    m = rng.integers(1, config.patches, endpoint=True)
    return sample_patches(rng, B, config.patches, m, np.zeros(0))


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


@given(vit_configs(dropout=True), st.booleans(), seeds)
def test_dropout_depends_on_its_seed_alone_and_is_off_in_evaluation(config, some_patches, seed):
    model, x = ViT(config), images_for(config, 3, seed)
    params, keep = noisy(model, seed), draw_keep(config, 3, some_patches, seed)
    a, b = (model.forward(params, x, np.random.default_rng(seed), keep)[0] for _ in range(2))
    assert np.array_equal(a, b)
    plain, _ = model.forward(params, x, keep=keep)
    assert np.array_equal(plain, model.forward(params, x, keep=keep, need_cache=False)[0])
    if not (config.dropout or config.attention_dropout or config.drop_path):
        assert np.array_equal(a, plain)


@given(vit_configs(dropout=True), st.booleans(), seeds)
def test_the_last_blocks_shortcut_changes_nothing(config, some_patches, seed):
    """One model computes only the class token in its last block, and the other all tokens."""
    model, plain = ViT(config), ViT(config, shortcuts=False)
    assert list(model.params) == list(plain.params)
    assert type(plain.blocks[-1]) is Block
    has_shortcut = config.pooling == "cls" and config.positions != "rotary"
    assert type(model.blocks[-1]) is (LastBlock if has_shortcut else Block)
    x, keep = images_for(config, 2, seed), draw_keep(config, 2, some_patches, seed)
    params = noisy(model, seed)
    params_plain = Buffer(plain.params, params.flat)
    y, cache = model.forward(params, x, np.random.default_rng(seed), keep)
    y_plain, cache_plain = plain.forward(params_plain, x, np.random.default_rng(seed), keep)
    assert close(y, y_plain)
    dy = normal(y.shape, seed)
    grads, grads_plain = params.zeros_like(), params_plain.zeros_like()
    dx = model.backward(dy, cache, grads, need_dx=True)
    dx_plain = plain.backward(dy, cache_plain, grads_plain, need_dx=True)
    assert close(dx, dx_plain, 1e-9)
    assert close(grads.flat, grads_plain.flat, 1e-9)


@given(vit_configs(), st.booleans(), seeds)
def test_without_need_dx_only_the_gradient_of_the_images_is_missing(config, some_patches, seed):
    model, x = ViT(config), images_for(config, 2, seed)
    params, keep = noisy(model, seed), draw_keep(config, 2, some_patches, seed)
    y, cache = model.forward(params, x, keep=keep)
    dy = normal(y.shape, seed)
    grads, grads_without = params.zeros_like(), params.zeros_like()
    assert model.backward(dy, cache, grads, need_dx=True).shape == x.shape
    assert model.backward(dy, cache, grads_without) is None
    assert np.array_equal(grads.flat, grads_without.flat)


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10", "ViT-Ti/16"])
@settings(max_examples=3)
@given(seed=seeds)
def test_the_loss_is_ln_K_at_first(name, seed):
    model = ViT(presets[name])
    logits, _ = model.forward(model.init(seed), images_for(presets[name], 2, seed, np.float32))
    loss, _ = cross_entropy(logits, np.arange(2))
    assert loss == pytest.approx(math.log(presets[name].classes), abs=0.1)


@pytest.mark.parametrize("field", ["dropout", "attention_dropout", "drop_path"])
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


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary", "none"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_keep_chooses_the_patches_that_take_part(pooling, positions):
    config = ViTConfig(
        6, 3, 2, 5, width=8, depth=2, heads=2, mlp_width=8, pooling=pooling, positions=positions
    )
    model, x = ViT(config), images_for(config, 2, 0)
    params = noisy(model, 0)
    plain, _ = model.forward(params, x)
    everything = np.tile(np.arange(4), (2, 1))
    assert close(model.forward(params, x, keep=everything)[0], plain)
    keep = np.array([[0, 3], [1, 2]])  # of the patches in the rows 0 1 and 2 3
    y, cache = model.forward(params, x, keep=keep)
    assert not np.allclose(y, plain)
    dx = model.backward(np.ones_like(y), cache, params.zeros_like(), need_dx=True)
    seen = dx.any(-1).reshape(2, 2, 3, 2, 3).any((2, 4))  # (B, rows, columns of patches)
    assert seen.tolist() == [[[True, False], [False, True]], [[False, True], [True, False]]]
    changed = x.copy()
    changed[0, :3, 3:] = 0  # patch 1 of the first image, which takes no part
    assert np.array_equal(model.forward(params, changed, keep=keep)[0], y)


@given(vit_configs(dropout=True), st.booleans(), seeds)
def test_the_model_is_the_equations_of_the_paper(config, some_patches, seed):
    """They are put together from the layers, with all tokens in every block."""
    model, x = ViT(config, shortcuts=False), images_for(config, 2, seed)
    params, keep = noisy(model, seed), draw_keep(config, 2, some_patches, seed)
    fast = ViT(config)
    y, _ = fast.forward(Buffer(fast.params, params.flat), x, np.random.default_rng(seed), keep)
    prefix = int(config.pooling == "cls")
    rng = np.random.default_rng(seed)
    # Equation 1, with all patches.
    z, _ = model.embed.forward(params, x)
    if prefix:
        cls_token = np.broadcast_to(params["prefix.w"], (2, 1, config.width))
        z = np.concatenate([cls_token, z], axis=1)
    rotation = None
    if config.positions == "learned":
        z = z + params["positions.w"]
    elif config.positions == "sinusoidal":
        z = z + sinusoidal(config.tokens, config.width)
    elif config.positions == "rotary":
        rotation = rotation_table(config.grid, config.width // config.heads, prefix)
    # The tokens of the other patches are dropped here, where the model drops them earlier.
    if keep is not None:
        tokens = np.concatenate([np.zeros((2, prefix), int), keep + prefix], axis=1)
        z = np.take_along_axis(z, tokens[..., None], axis=1)
        rotation = None if rotation is None else rotation[tokens][:, None]
    z, _ = dropout_forward(z, config.dropout, rng)
    # Equations 2 and 3.
    for block in model.blocks:
        z, _ = block.forward(params, z, rng, rotation)
    # Equation 4.
    z, _ = model.norm.forward(params, z)
    z = z[:, 0] if prefix else z.mean(1)
    wanted, _ = model.head.forward(params, z)
    assert close(y, wanted, 1e-10)


def test_evaluation_keeps_no_cache():
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
def test_eight_images_are_learned_by_heart(pooling, seed):
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


@pytest.mark.parametrize("positions", ["none", "learned", "sinusoidal", "rotary"])
def test_only_positions_tell_the_model_the_order_of_the_patches(positions):
    config = ViTConfig(4, 2, 1, 3, width=8, depth=2, heads=2, mlp_width=8, positions=positions)
    model = ViT(config)
    params, x = noisy(model, 0), images_for(config, 2, 0)
    swapped = np.concatenate([x[:, 2:], x[:, :2]], axis=1)
    same = np.allclose(model.forward(params, x)[0], model.forward(params, swapped)[0])
    assert same == (positions == "none")


def test_patches_that_overlap_see_their_neighbours():
    """A pixel influences the tokens of all patches that see it, and no others."""
    config = ViTConfig(6, 2, 1, 3, width=8, depth=1, heads=2, mlp_width=8, patch_overlap=1)
    model = ViT(config)
    params, x = noisy(model, 0), images_for(config, 1, 0)
    before, _ = model.embed.forward(params, x)
    x[0, 2, 2] += 1  # a corner of the patch in the middle
    changed = (model.embed.forward(params, x)[0] != before).any(-1).reshape(3, 3)
    assert changed.tolist() == [[True, True, False], [True, True, False], [False, False, False]]
    assert params["embed.w"].shape == (16, 8)  # 4x4 pixels


def test_drop_path_increases_linearly_with_depth():
    blocks = ViT(ViTConfig(depth=4, drop_path=0.2)).blocks
    assert [block.drop_path for block in blocks] == pytest.approx([0.05, 0.1, 0.15, 0.2])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 3, 8, 4), np.float32), r"channels-first: images.transpose\(0, 2, 3, 1\)"),
        (
            np.zeros((2, 8, 8, 3), np.float32),
            r"shape \(2, 8, 8, 3\), the model needs \(B, 8, 4, 3\): resize them",
        ),
        (np.zeros((8, 4, 3), np.float32), r"the model needs .*: for one image, images\[None\]"),
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


def test_grey_images_without_an_axis_for_the_channels_are_refused():
    model = ViT(ViTConfig((8, 4), 4, 1))
    with pytest.raises(UserError, match=r"images\[..., None\]"):
        model.forward(model.init(), np.zeros((2, 8, 4), np.float32))


def test_the_weights_of_another_model_are_refused():
    config = ViTConfig(8, 4)
    with pytest.raises(UserError, match="does not belong to the model that this Buffer was made"):
        ViT(config).forward(ViT(config).init(), np.zeros((1, 8, 8, 1), np.float32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 2**31 - 1}, "a model of 2,147,483,647 blocks"),
        ({"depth": 10**7}, "a model of 10,000,000 blocks"),
        ({"width": 2**31 - 8, "mlp_width": 2**31 - 1}, "weights are possible"),
        ({"classes": 2**31 - 1}, "weights are possible"),
        ({"head_hidden": 2**31 - 1}, "weights are possible"),
        ({"image_size": 2**31 - 1, "patch_size": 2**31 - 1}, "weights are possible"),
        ({"image_size": 65536, "patch_size": 1}, "choose larger patches"),
        ({"image_size": 4096, "patch_size": 1, "pooling": "mean"}, "choose larger patches"),
    ],
)
@pytest.mark.parametrize("positions", ["none", "sinusoidal", "rotary"])
def test_a_model_that_no_machine_can_hold_is_refused_at_once(changes, message, positions):
    config = ViTConfig(**{"width": 8, "heads": 2, "positions": positions, **changes})
    start = time.perf_counter()
    with pytest.raises(UserError, match=f"{message}|it must be an integer"):
        ViT(config)
    assert time.perf_counter() - start < 5


def test_the_largest_models_of_the_papers_are_possible(monkeypatch):
    monkeypatch.setattr(vit_checks, "machine_memory", lambda: 4e9)
    model = ViT(dataclasses.replace(presets["ViT-H/14"], image_size=518))
    assert model.count() == 633_470_440
    monkeypatch.setattr(vit_checks, "machine_memory", lambda: 1e9)
    with pytest.raises(UserError, match="more than this machine has memory"):
        model.init(0)
