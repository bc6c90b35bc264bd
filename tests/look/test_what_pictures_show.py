"""What is on the pictures is what was computed: parts of them are looked for, pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit import UserError, ViT, ViTConfig, data
from numpyvit.classifier import Classifier
from numpyvit.gradcheck import noisy
from numpyvit.layers.positions import sinusoidal
from numpyvit.look import draw, image_pictures, result_pictures, weight_pictures
from numpyvit.look.attention import (
    attention_gradients,
    attention_weights,
    gradient_rollout,
    patch_map,
    rollout,
)
from numpyvit.look.maps import (
    confusion_matrix,
    embedding_filters,
    position_similarity,
    principal_components,
    token_features,
)
from numpyvit.testing import seeds


def find(picture, part):
    """Return how often a part occurs in a picture, pixel by pixel."""
    picture, first = np.asarray(picture), part[0].tobytes()
    found = 0
    for y in range(len(picture) - len(part) + 1):
        row = picture[y].tobytes()
        at = row.find(first)
        while at >= 0:
            x = at // 3
            is_here = np.array_equal(picture[y : y + len(part), x : x + part.shape[1]], part)
            found += at % 3 == 0 and is_here
            at = row.find(first, at + 1)
    return found


CONFIGS = {
    "mnist": ViTConfig(28, 4, 1, 10, 16, 2, 2, 8, pooling="mean", positions="rotary"),
    "class token": ViTConfig(28, 7, 1, 10, 12, 1, 3, 8),
    "colour": ViTConfig(32, 4, 3, 5, 8, 2, 2, 8, positions="sinusoidal"),
    "not square": ViTConfig((12, 40), (3, 8), 3, 4, 8, 2, 2, 8, pooling="mean", positions="none"),
    "overlap": ViTConfig(
        (16, 8), (4, 2), 3, 4, 8, 1, 2, 8, positions="sinusoidal", patch_overlap=2
    ),
    "one patch": ViTConfig(4, 4, 1, 3, 8, 1, 2, 8, pooling="mean"),
    "rows": ViTConfig((16, 16), (1, 16), 1, 3, 8, 1, 1, 8),
    "large": ViTConfig(224, 16, 3, 20, 8, 1, 2, 8),
    "two channels": ViTConfig(8, 4, 2, 3, 8, 1, 2, 8),
}


@pytest.fixture(params=CONFIGS)
def case(request):
    """A Classifier with random weights, an image, and the image normalised."""
    config = CONFIGS[request.param]
    model = ViT(config)
    C = config.channels
    rng = np.random.default_rng(1)
    classifier = Classifier(
        model,
        noisy(model, 0, np.float32),
        rng.uniform(0.3, 0.6, C),
        rng.uniform(0.2, 0.4, C),
        tuple(f"class {k}" for k in range(config.classes)),
    )
    pixels = rng.integers(0, 256, (*config.image, C), np.uint8)
    return classifier, pixels, image_pictures.normalised(classifier, pixels)


def test_patches(case):
    classifier, pixels, _ = case
    c = classifier.config
    picture = image_pictures.patches_picture(classifier, pixels)
    p1, p2 = c.patch
    o = c.patch_overlap
    assert len(image_pictures.model_windows(classifier, pixels)) == c.patches
    for i in range(c.patches)[:: max(1, c.patches // 5)]:
        row, column = divmod(i, c.grid[1])
        y, x = row * p1 - o, column * p2 - o
        if min(y, x) < 0 or y + p1 + 2 * o > c.image[0] or x + p2 + 2 * o > c.image[1]:
            continue  # a window that reaches beyond the image
        window = draw.as_rgb(pixels[y : y + p1 + 2 * o, x : x + p2 + 2 * o])
        size = draw.cell_size(window.shape[:2], (1, 1), 48)
        assert find(picture, draw.framed(draw.zoom(window, *size))) >= 1


def test_attention(case):
    classifier, pixels, x = case
    c = classifier.config
    picture = image_pictures.attention_picture(classifier, pixels)
    chosen = image_pictures.attention_picture(classifier, pixels, patch=c.patches - 1)
    cell = draw.cell_size(c.patch, c.grid, min(160, 1000 // c.heads))
    for weights in attention_weights(classifier.model, classifier.params, x).values():
        for head in range(c.heads):
            row = weights[0, head, 0] if c.prefix else weights[0, head].mean(0)
            values = row[c.prefix :].reshape(c.grid)
            assert find(picture, draw.blocks(draw.sequential(values, 0, values.max()), cell))
            values = weights[0, head, -1, c.prefix :].reshape(c.grid)
            assert find(chosen, draw.blocks(draw.sequential(values, 0, values.max()), cell))
    with pytest.raises(UserError, match=f"the patches are 0 to {c.patches - 1}"):
        image_pictures.attention_picture(classifier, pixels, patch=c.patches)


def test_rollout_and_relevance(case):
    classifier, pixels, x = case
    c = classifier.config
    weights = attention_weights(classifier.model, classifier.params, x)
    values = patch_map(rollout(list(weights.values())), c)[0]
    cell = draw.cell_size(c.patch, c.grid, image_pictures.SIDE)
    wanted = draw.blocks(draw.sequential(values, values.min(), values.max()), cell)
    assert find(image_pictures.rollout_picture(classifier, pixels), wanted)

    picture = image_pictures.relevance_picture(classifier, pixels, classes=2)
    likeliest = classifier.predict(pixels[None])[0].argsort()[::-1][:2]
    maps = []
    for k in likeliest:
        found = attention_gradients(classifier.model, classifier.params, x, np.array([k]))
        maps.append(patch_map(gradient_rollout(*(list(part.values()) for part in found)), c)[0])
    cell = draw.cell_size(c.patch, c.grid, 240)
    for values in maps:
        colours = draw.sequential(values, 0, max(v.max() for v in maps))
        assert close_to_a_part(picture, draw.blocks(colours, cell))


def close_to_a_part(picture, part):
    """Return whether a part occurs up to a step of colour: float32 sums depend on the batch."""
    picture = np.asarray(picture).astype(int)
    h, w = part.shape[:2]
    corners = np.abs(picture[: len(picture) - h + 1, : picture.shape[1] - w + 1] - part[0, 0])
    return any(
        np.abs(picture[y : y + h, x : x + w] - part).max() <= 2
        for y, x in np.argwhere(corners.max(-1) <= 2)
    )


def test_a_model_before_training_has_no_relevance():
    model = ViT(CONFIGS["class token"])
    one = np.ones(1)
    classifier = Classifier(model, model.init(), one, one, tuple("0123456789"))
    with pytest.raises(UserError, match="train it first"):
        image_pictures.relevance_picture(classifier, np.zeros((28, 28, 1), np.uint8))


def test_components(case):
    classifier, pixels, x = case
    c = classifier.config
    picture = image_pictures.components_picture(classifier, pixels)
    cell = draw.cell_size(c.patch, c.grid, 112)
    for tokens in token_features(classifier.model, classifier.params, x).values():
        coordinates, _ = principal_components(tokens[0, c.prefix :])
        for values in coordinates.T.reshape(3, *c.grid):
            limit = np.abs(values).max()
            assert any(  # the sign is free
                find(picture, draw.framed(draw.blocks(draw.diverging(sign * values, limit), cell)))
                for sign in (1, -1)
            )


def test_components_as_colours():
    maps = np.zeros((1, 3, 3))
    maps[0, :, 0] = [-1, 0, 1]
    maps[0, :, 1] = [5, 5, 7]
    found = image_pictures.to_colours(maps)[0].tolist()
    assert found == [[0, 0, 128], [128, 0, 128], [255, 255, 128]]


def test_filters(case):
    classifier, _, _ = case
    picture = weight_pictures.filters_picture(classifier)
    filters = embedding_filters(classifier.model, classifier.params)
    limit = np.abs(filters).max()
    size = draw.cell_size(filters.shape[1:3], (1, 1), 96)
    for values in filters[:3]:
        if classifier.config.channels == 3:
            colours = np.round(127.5 + 127.5 * values / limit).astype(np.uint8)
        else:
            colours = draw.diverging(values[..., 0], limit)
        assert find(picture, draw.framed(draw.zoom(colours, *size))) >= 1


def test_positions(case):
    classifier, pixels, _ = case
    c = classifier.config
    if c.positions in ("rotary", "none"):
        for make in (
            weight_pictures.positions_picture,
            lambda m: weight_pictures.broadcast_picture(m, pixels[None]),
        ):
            with pytest.raises(UserError, match="adds no positions"):
                make(classifier)
        return
    picture = weight_pictures.positions_picture(classifier)
    similarity = position_similarity(classifier.model, classifier.params)
    cell = draw.cell_size(c.patch, c.grid, max(max(c.grid), min(160, 800 // max(c.grid))))
    for i in {0, c.patches // 2, c.patches - 1}:
        values = similarity[i].reshape(c.grid)
        assert find(picture, draw.framed(draw.blocks(draw.diverging(values, 1.0), cell)))


def test_of_a_large_grid_every_nth_patch_has_a_map():
    config = ViTConfig(40, 2, 1, 3, 8, 1, 2, 8)
    model = ViT(config)
    one = np.ones(1)
    classifier = Classifier(model, model.init(), one, one, ("a", "b", "c"))
    picture = weight_pictures.positions_picture(classifier)
    values = position_similarity(model, classifier.params)[2 * 20 + 4].reshape(20, 20)
    cell = draw.cell_size((2, 2), (20, 20), 80)
    assert find(picture, draw.framed(draw.blocks(draw.diverging(values, 1.0), cell))) == 1


def test_the_sinusoidal_table(case):
    classifier, _, _ = case
    c = classifier.config
    picture = weight_pictures.sinusoidal_picture(classifier)
    size = max(1, min(12, 600 // c.tokens)), max(1, min(16, 900 // c.width))
    wanted = draw.blocks(draw.diverging(sinusoidal(c.tokens, c.width), 1.0), size)
    assert find(picture, wanted) == 1


@pytest.mark.parametrize("case", ["class token", "colour", "overlap"], indirect=True)
def test_broadcast_shows_the_models_own_numbers(case):
    classifier, pixels, _ = case
    model, params = classifier.model, classifier.params
    images = np.stack([pixels, pixels[::-1]])
    picture = weight_pictures.broadcast_picture(classifier, images)
    x = np.concatenate([image_pictures.normalised(classifier, image) for image in images])
    x, _ = model.prefix.forward(params, model.embed.forward(params, x)[0])
    y, _ = model.positions.forward(params, x)
    positions = y - x
    limit = max(np.abs(values).max() for values in (x, y, positions))
    for values in (*x, *y):
        assert find(picture, weight_pictures.number_table(values, limit)) == 1
    for wanted in (f"{x[1, 0, 0]:.2f}", f"{y[0, -1, -1]:.2f}"):
        colour = draw.diverging(np.array(float(wanted)), limit)
        assert draw.cell(wanted, colour, 22, 46).shape == (22, 46, 3)


def test_an_excerpt_has_the_last_row():
    assert weight_pictures.excerpt(3, 4) == [0, 1, 2]
    assert weight_pictures.excerpt(6, 4) == [0, 1, 2, 3, 4, 5]
    assert weight_pictures.excerpt(9, 4) == [0, 1, 2, 3, None, 8]


def some_results(K, n=60, H=8, W=8, C=1):
    rng = np.random.default_rng(K)
    images = rng.integers(0, 256, (n, H, W, C), np.uint8)
    names = tuple(f"a class with a long name, {k}" for k in range(K))
    labels = rng.integers(0, K, n)
    probabilities = rng.dirichlet(np.full(K, 0.2), n)
    return probabilities, data.make_dataset("some", images, labels, names)


@pytest.mark.parametrize("K", [2, 10, 40, 130])
def test_confusion(K):
    probabilities, test = some_results(K)
    picture = np.asarray(result_pictures.confusion_picture(probabilities, test))
    counts = confusion_matrix(test.labels, probabilities.argmax(1), K)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    wrong = shares - np.diag(np.diag(shares))
    colours = draw.diverging(wrong, wrong.max())
    colours[np.eye(K, dtype=bool)] = draw.diverging(-np.diag(shares), 1.0)
    side = 26 if K <= 30 else 17 if K <= 120 else 900 // K
    if K > 30:
        assert find(picture, draw.framed(draw.blocks(colours, (side, side)))) == 1
        return
    cells = [
        np.concatenate(
            [
                draw.cell(str(n) if n else "", colour, side, side)
                for n, colour in zip(*row, strict=True)
            ],
            axis=1,
        )
        for row in zip(counts, colours, strict=True)
    ]
    assert find(picture, draw.framed(np.concatenate(cells))) == 1


@pytest.mark.parametrize(("H", "W", "C"), [(8, 8, 1), (32, 32, 3), (10, 50, 3), (224, 160, 3)])
def test_mistakes(H, W, C):
    probabilities, test = some_results(5, 30, H, W, C)
    picture = result_pictures.mistakes_picture(probabilities, test, count=3)
    of_truth = probabilities[np.arange(30), test.labels]
    is_wrong = probabilities.argmax(1) != test.labels
    order = np.argsort(np.where(is_wrong, of_truth, 2))
    size = draw.cell_size((H, W), (1, 1), 112)
    shown = [
        find(picture, draw.framed(draw.zoom(draw.as_rgb(test.images[i]), *size))) for i in order[:4]
    ]
    assert shown == [1, 1, 1, 0]


def test_no_mistakes():
    _, test = some_results(3)
    right = np.eye(3)[test.labels]
    assert result_pictures.mistakes_picture(right, test).width > 100


@given(seeds)
def test_the_tables_of_colours(seed):
    x = np.random.default_rng(seed).normal(size=20)
    assert (draw.diverging(np.zeros(1), 1.0) == 255).all()
    blue, orange = draw.diverging(np.array([-1.0, 1.0]), 1.0).astype(int)
    assert blue[2] > blue[0]
    assert orange[0] > orange[2]
    brightness = draw.diverging(np.linspace(0, 1, 9), 1.0) @ [0.299, 0.587, 0.114]
    assert (np.diff(brightness) < 0).all()
    brightness = draw.sequential(np.linspace(0, 1, 9), 0, 1) @ [0.299, 0.587, 0.114]
    assert (np.diff(brightness) > 0).all()
    limit = np.abs(x).max()
    assert np.array_equal(draw.diverging(x, limit), draw.diverging(2 * x, 2 * limit))
    assert (draw.sequential(np.ones(3), 1, 1) == draw.sequential(np.zeros(1), 0, 1)).all()


@pytest.mark.parametrize("words", ["", "two\nlines", "\x1b[31m", "tab\there", "żółć ñ", "a" * 300])
def test_any_text_can_be_drawn(words):
    drawn = draw.text(words)
    assert drawn.shape[0] == draw.text("A").shape[0]
    assert draw.wrapped(words, 100).shape[0] >= drawn.shape[0]
    assert len(draw.shortened(words)) <= 18


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 300))
def test_cells_have_the_shape_of_the_patches(p1, p2, side):
    height, width = draw.cell_size((p1, p2), (3, 2), side)
    factor = side / max(3 * p1, 2 * p2)
    if factor >= 2:
        assert (height, width) == (int(factor) * p1, int(factor) * p2)
    else:
        assert abs(height - factor * p1) <= 1
        assert abs(width - factor * p2) <= 1
    assert height >= 1
    assert width >= 1
