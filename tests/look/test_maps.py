import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit import UserError, ViT, ViTConfig
from numpyvit.gradcheck import noisy
from numpyvit.look.maps import (
    attention_distance,
    confusion_matrix,
    embedding_filters,
    position_similarity,
    principal_components,
    token_features,
    worst_mistakes,
)
from numpyvit.testing import close, normal, seeds, vit_configs


def test_distances_are_in_pixels():
    """Patches of 3 x 4 pixels in 2 rows and 2 columns: 4 to the right, 3 down, 5 across."""
    config = ViTConfig((6, 8), (3, 4), 1, 3, 8, 1, 4, 4, pooling="mean")
    to = [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]]  # itself, right, down, across
    weights = np.stack([np.eye(4)[row] for row in to])[None]  # (1, h, N, N)
    assert close(attention_distance(weights, config), np.array([0.0, 4, 3, 5]))


@given(vit_configs(), seeds)
def test_distance_is_the_average_over_all_pairs_of_patches(config, seed):
    N, p = config.tokens, config.prefix
    weights = np.random.default_rng(seed).uniform(0.01, 1, (2, config.heads, N, N))
    weights /= weights.sum(-1, keepdims=True)
    found = attention_distance(weights, config)
    places = [
        (r * config.patch[0], c * config.patch[1])
        for r in range(config.grid[0])
        for c in range(config.grid[1])
    ]
    wanted = np.zeros(config.heads)
    for b, h, i in np.ndindex(2, config.heads, config.patches):
        row = weights[b, h, p + i, p:] / weights[b, h, p + i, p:].sum()
        distances = [np.hypot(y - places[i][0], x - places[i][1]) for y, x in places]
        wanted[h] += row @ distances / (2 * config.patches)
    assert close(found, wanted)


def test_a_patch_that_attends_only_to_the_class_token_counts_as_0():
    config = ViTConfig(4, 2, 1, 3, 8, 1, 2, 4)
    weights = np.zeros((1, 2, 5, 5))
    weights[..., 0] = 1
    assert attention_distance(weights, config).tolist() == [0, 0]


@given(st.integers(1, 6), st.integers(1, 6), seeds)
def test_components_are_those_of_the_covariance(n, D, seed):
    x = normal((n, D), seed)
    coordinates, fractions = principal_components(x)
    assert coordinates.shape == (n, 3)
    centred = x - x.mean(0)
    variances = np.sort(np.linalg.eigvalsh(centred.T @ centred))[::-1]
    variances = np.pad(variances, (0, 3))[:3]
    assert np.allclose((coordinates**2).sum(0), variances, atol=1e-10)
    assert np.allclose(fractions * (centred**2).sum(), variances, atol=1e-10)
    if D <= 3:  # then nothing is lost, and distances stay the same
        assert np.allclose(coordinates @ coordinates.T, centred @ centred.T)


def test_components_have_a_sign_and_constant_features_have_none():
    x = normal((6, 4), 0)
    again, _ = principal_components(x)
    permuted, _ = principal_components(x[::-1])
    assert close(permuted[::-1], again)
    direction = np.array([0.1, -3, 0.2])
    line, _ = principal_components(np.outer([0, 1, 2], direction))
    assert line[0, 0] > line[2, 0]  # its largest entry, -3, counts as positive
    zero, fractions = principal_components(np.full((4, 5), 0.1))
    assert not zero.any()
    assert not fractions.any()


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_similarity_of_positions(pooling, positions):
    config = ViTConfig((4, 6), 2, 1, 3, 8, 1, 2, 4, pooling=pooling, positions=positions)
    model = ViT(config)
    params = noisy(model, 0)
    x = np.zeros((1, config.tokens, 8))
    added = model.positions.forward(params, x)[0][0, config.prefix :]  # what the model adds
    found = position_similarity(model, params)
    norms = np.linalg.norm(added, axis=1)
    assert close(found, added @ added.T / np.outer(norms, norms))
    assert close(np.diag(found), np.ones(6))


@pytest.mark.parametrize(("positions", "why"), [("rotary", "rotates"), ("none", "no positions")])
def test_a_model_that_adds_no_positions_says_so(positions, why):
    model = ViT(ViTConfig(4, 2, 1, 3, 8, 1, 2, 4, positions=positions))
    with pytest.raises(UserError, match=why):
        position_similarity(model, model.init())


@given(vit_configs(), seeds)
def test_a_feature_is_the_sum_of_pixels_times_its_filter(config, seed):
    model = ViT(config)
    params = noisy(model, seed)
    filters = embedding_filters(model, params)
    images = normal((1, *config.image, config.channels), seed)
    tokens, _ = model.embed.forward(params, images)
    o, (p1, p2) = config.patch_overlap, config.patch
    padded = np.pad(images[0], ((o, o), (o, o), (0, 0)))
    rows, columns = config.grid
    i, j = rows - 1, columns - 1
    window = padded[i * p1 : i * p1 + p1 + 2 * o, j * p2 : j * p2 + p2 + 2 * o]
    assert filters.shape == (config.width, *window.shape)
    assert np.allclose(tokens[0, -1], (filters * window).sum((1, 2, 3)) + params["embed.b"])


@given(vit_configs(), seeds)
def test_the_last_features_give_the_logits(config, seed):
    model = ViT(config)
    params = noisy(model, seed)
    images = normal((2, *config.image, config.channels), seed)
    found = token_features(model, params, images)
    assert list(found) == ["embedding", *(f"blocks.{i}" for i in range(config.depth))]
    assert {x.shape for x in found.values()} == {(2, config.tokens, config.width)}
    x, _ = model.norm.forward(params, list(found.values())[-1])
    x, _ = model.pool.forward(params, x)
    logits, _ = model.head.forward(params, x)
    assert np.allclose(logits, model.forward(params, images)[0])
    x, _ = model.embed.forward(params, images)
    x, _ = model.prefix.forward(params, x)
    assert np.array_equal(found["embedding"], model.positions.forward(params, x)[0])


@given(st.integers(2, 5), st.integers(1, 40), seeds)
def test_confusion_counts_pairs(K, n, seed):
    labels, predicted = np.random.default_rng(seed).integers(0, K, (2, n))
    counts = confusion_matrix(labels, predicted, K)
    for i, j in np.ndindex(K, K):
        assert counts[i, j] == ((labels == i) & (predicted == j)).sum()


def test_the_worst_mistake_has_the_least_probability_for_the_truth():
    p = np.array([[0.6, 0.3, 0.1], [0.9, 0.1, 0], [0.2, 0.7, 0.1], [0.5, 0.1, 0.4]])
    assert worst_mistakes(p, np.array([1, 0, 2, 2])).tolist() == [2, 0, 3]
    assert worst_mistakes(p, p.argmax(1)).tolist() == []
