import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit import UserError, ViT, ViTConfig
from numpyvit.gradcheck import noisy
from numpyvit.layers.attention import Attention, merge_heads
from numpyvit.layers.patches import patchify, unpatchify
from numpyvit.look.attention import (
    attention_gradients,
    attention_weights,
    gradient_rollout,
    patch_map,
    rollout,
    weights_and_values,
)
from numpyvit.testing import close, normal, seeds, vit_configs
from numpyvit.watch import watch


def random_weights(seed, B=2, h=2, N=5, blocks=3):
    """Return matrices of random positive rows that sum to 1."""
    rng = np.random.default_rng(seed)
    found = rng.uniform(0.01, 1, (blocks, B, h, N, N))
    return list(found / found.sum(-1, keepdims=True))


@given(seeds, st.booleans())
def test_rows_sum_to_one_even_if_small_weights_were_dropped(seed, drop):
    weights = random_weights(seed)
    if drop:
        weights = [np.where(a < 0.2, 0, a) for a in weights]
    total = rollout(weights)
    assert total.shape == (2, 5, 5)
    assert close(total.sum(-1), np.ones((2, 5)))


def test_it_is_the_rows_that_are_divided_by_their_sums():
    """(A + I) / 2 = [[0.5, 0.25], [0, 0.5]]; divided by columns it would be another matrix."""
    a = np.array([[0.0, 0.5], [0.0, 0.0]])[None, None]
    assert close(rollout([a])[0], np.array([[2 / 3, 1 / 3], [0, 1]]))


def test_the_first_block_is_multiplied_first():
    """Token 0 reads token 1 in the first block, token 2 reads token 0 in the second.

    So token 2 ends with a part of token 1. In the opposite order it would have none.
    """
    first, second = np.eye(3), np.eye(3)
    first[0] = [0, 1, 0]
    second[2] = [1, 0, 0]
    total = rollout([first[None, None], second[None, None]])[0]
    assert close(total[2], np.array([0.25, 0.25, 0.5]))
    assert close(total[0], np.array([0.5, 0.5, 0]))


def test_heads_are_averaged():
    a = np.stack([np.eye(2), np.ones((2, 2)) / 2])[None]  # (1, 2, 2, 2)
    assert close(rollout([a]), rollout([a.mean(1, keepdims=True)]))


@given(vit_configs())
def test_uniform_attention_gives_a_uniform_map(config):
    N = config.tokens
    weights = [np.full((1, config.heads, N, N), 1 / N)] * config.depth
    gradients = [np.ones_like(weights[0])] * config.depth
    for total in (rollout(weights), gradient_rollout(weights, gradients)):
        found = patch_map(total, config)
        assert found.shape == (1, *config.grid)
        assert close(found, np.full_like(found, found.mean()))
        assert found.min() > 0


@given(vit_configs(), seeds)
def test_permuting_the_patches_permutes_the_map(config, seed):
    rng = np.random.default_rng(seed)
    N = config.tokens
    weights = random_weights(seed, 1, config.heads, N, config.depth)
    gradients = [rng.normal(size=a.shape) for a in weights]
    order = np.concatenate(
        [np.arange(config.prefix), config.prefix + rng.permutation(config.patches)]
    )

    def permuted(matrices):
        return [a[..., order, :][..., order] for a in matrices]

    moved = order[config.prefix :] - config.prefix
    for before, after in (
        (rollout(weights), rollout(permuted(weights))),
        (
            gradient_rollout(weights, gradients),
            gradient_rollout(permuted(weights), permuted(gradients)),
        ),
    ):
        found = patch_map(after, config).reshape(-1)
        assert close(found, patch_map(before, config).reshape(-1)[moved])


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_shuffling_the_image_of_a_model_without_positions_shuffles_its_maps(pooling):
    config = ViTConfig((6, 9), 3, 1, 3, 8, 2, 2, 4, pooling=pooling, positions="none")
    model = ViT(config)
    params = noisy(model, 0)
    image = normal((1, 6, 9, 1), 0)
    order = np.random.default_rng(0).permutation(config.patches)
    shuffled = unpatchify(patchify(image, (3, 3))[:, order], (3, 3), (6, 9))
    maps = []
    for x in (image, shuffled):
        weights, gradients = attention_gradients(model, params, x, np.array([1]))
        matrices = list(weights.values()), list(gradients.values())
        totals = rollout(matrices[0]), gradient_rollout(*matrices)
        maps.append([patch_map(total, config).reshape(-1) for total in totals])
    for before, after in zip(*maps, strict=True):
        assert close(after, before[order])
        assert np.ptp(before) > 1e-4


def test_a_class_token_gives_row_0_of_the_patches_and_mean_pooling_the_average_row():
    matrix = np.arange(25.0).reshape(1, 5, 5)
    cls = ViTConfig(4, 2, 1, 3, 8, 1, 2, 4)
    assert patch_map(matrix, cls).tolist() == [[[1, 2], [3, 4]]]
    matrix = np.arange(16.0).reshape(1, 4, 4)
    mean = ViTConfig(4, 2, 1, 3, 8, 1, 2, 4, pooling="mean")
    assert patch_map(matrix, mean).tolist() == [[[6, 7], [8, 9]]]


def test_gradient_rollout_is_rule_6_of_its_paper():
    """For two blocks R = (I + E2)(I + E1), with E = mean over heads of max(A dA, 0)."""
    rng = np.random.default_rng(0)
    a, da = rng.uniform(0, 1, (2, 3, 2, 4, 4)), rng.normal(size=(2, 3, 2, 4, 4))
    e1, e2 = (np.maximum(a[i] * da[i], 0).mean(1) for i in range(2))
    assert close(gradient_rollout(list(a), list(da)), e1 + e2 + e2 @ e1)
    assert not gradient_rollout(list(a), list(-np.abs(da))).any()


@given(vit_configs(), seeds)
def test_gradients_of_the_weights_agree_with_differences(config, seed):
    """The weights of one block are moved, and what follows is computed with them."""
    model = ViT(config, shortcuts=False)
    params = noisy(model, seed)
    images = normal((2, *config.image, config.channels), seed)
    classes = np.random.default_rng(seed).integers(0, config.classes, 2)
    weights, gradients = attention_gradients(model, params, images, classes)
    assert list(weights) == list(gradients) == [f"blocks.{i}" for i in range(config.depth)]

    for block, a in weights.items():
        direction = normal(a.shape, seed + 1)

        def logits(step, block=block, direction=direction):
            def hook(call):
                y, cache = call()
                if isinstance(call.layer, Attention) and call.name == f"{block}.attention":
                    attention, v = weights_and_values((y, cache))
                    o = (attention + step * direction) @ v
                    y, _ = call.layer.proj.forward(params, merge_heads(o[None]))
                return y, cache

            with watch(model, hook):
                y, _ = model.forward(params, images)
            return y[np.arange(2), classes]

        h = 1e-5
        slope = (logits(h) - logits(-h)) / (2 * h)  # (B,)
        found = (gradients[block] * direction).sum((1, 2, 3))
        assert np.allclose(found, slope, rtol=1e-6, atol=1e-8)


@given(vit_configs(), seeds)
def test_both_functions_find_the_same_weights_and_leave_the_model_as_it_was(config, seed):
    model = ViT(config)
    params = noisy(model, seed)
    before = params.flat.copy()
    images = normal((2, *config.image, config.channels), seed)
    weights, _ = attention_gradients(model, params, images, np.zeros(2, int))
    for name, a in attention_weights(model, params, images).items():
        assert np.array_equal(a, weights[name])
    assert np.array_equal(params.flat, before)


@pytest.mark.parametrize("classes", [[0], [0, 3], [-1, 0], [0.0, 1.0], 1])
def test_classes_that_do_not_fit_are_refused(classes):
    config = ViTConfig(4, 2, 1, 3, 8, 1, 2, 4)
    model = ViT(config)
    with pytest.raises(UserError, match="classes"):
        attention_gradients(model, noisy(model, 0), normal((2, 4, 4, 1), 0), np.array(classes))
