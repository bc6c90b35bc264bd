"""Pictures of what a model makes of one image: its patches, attention, and features.

Each function takes a Classifier and the image's pixels (H, W, C) uint8, as
Classifier.read_image returns them, and returns a Pillow image. What is drawn is computed
by maps.py and attention.py.
"""

from typing import TYPE_CHECKING

import numpy as np

from ..backend.arrays import Array
from ..classifier import Classifier
from ..data import normalise
from ..errors import UserError
from . import draw
from .attention import (
    attention_gradients,
    attention_weights,
    gradient_rollout,
    patch_map,
    rollout,
)
from .maps import principal_components, token_features

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 336  # pixels of an image that is shown large
SHEET = 1000  # pixels that many small maps fill together
HINT = (
    "Attention shows where tokens collect from, not why the model decides as it does: MLPs, "
    "values and norms are left out."
)


def patches_picture(classifier: Classifier, pixels: Array) -> "Image":
    """Draw an image with its patches numbered, and the sequence that they become.

    If patches overlap, the sequence shows the windows that the model sees.
    """
    c = classifier.config
    rows, columns = c.grid
    needed = draw.text(str(c.patches - 1), draw.SMALL).shape[1] + 6
    side = max(2 * SIDE, -(-needed // min(c.patch)) * max(c.image))
    cell = draw.cell_size(c.patch, c.grid, min(side, 2400))
    image = draw.zoom(draw.as_rgb(pixels), rows * cell[0], columns * cell[1]).copy()
    image[:: cell[0]] = draw.LINE
    image[:, :: cell[1]] = draw.LINE
    image = draw.framed(write_numbers(image, cell, c.grid))

    windows = model_windows(classifier, pixels)
    s1, s2 = windows.shape[1:3]
    height, width = draw.cell_size((s1, s2), (1, 1), 48)
    tokens = []
    for i, window in enumerate(windows):
        shown = draw.framed(draw.zoom(draw.as_rgb(window), height, width))
        tokens.append(draw.above([draw.text(str(i), draw.SMALL), shown], gap=1))
    widest = max(token.shape[1] for token in tokens)
    per_line = max(1, image.shape[1] // (widest + 4))
    lines = [
        draw.beside([draw.padded(token, 0, widest) for token in tokens[i : i + per_line]], gap=4)
        for i in range(0, len(tokens), per_line)
    ]
    sequence = draw.above(lines, gap=6, align="left")
    H, W = c.image
    numbers = s1 * s2 * c.channels
    what = "window" if c.patch_overlap else "patch"
    caption = (
        f"Each {what} of {s1}x{s2} pixels becomes a row of {numbers} numbers, and the embedding "
        f"turns each row into a token of {c.width} features. The sequence has {c.tokens} tokens"
        + (", since a class token comes before the patches." if c.prefix else ".")
    )
    if c.patch_overlap:
        caption += (
            f" A window reaches {c.patch_overlap} pixels into the neighbouring patches; outside "
            "the image are zeros, which stand for the average colour."
        )
    title = f"An image of {H}x{W} pixels as {rows}x{columns} = {c.patches} patches"
    return draw.page(title, [image, draw.text("The sequence"), sequence], caption)


def write_numbers(image: Array, cell: tuple[int, int], grid: tuple[int, int]) -> Array:
    """Write its number into each cell; if the cells are too small, only into those on the left."""
    from PIL import Image, ImageDraw

    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    rows, columns = grid
    needed = draw.text(str(rows * columns - 1), draw.SMALL).shape[1] + 4
    font = draw.font(draw.SMALL)
    for i in range(rows * columns):
        y, x = i // columns * cell[0], i % columns * cell[1]
        if cell[0] >= 16 and (cell[1] >= needed or x == 0):
            pen.text(
                (x + 4, y + 2), str(i), fill=draw.WHITE, font=font, stroke_width=2, stroke_fill=0
            )
    return np.asarray(canvas)


def model_windows(classifier: Classifier, pixels: Array) -> Array:
    """pixels (H, W, C)  ->  (n, S1, S2, C) uint8, as the embedding cuts them."""
    c = classifier.config
    s1, s2 = (side + 2 * c.patch_overlap for side in c.patch)
    patches = classifier.model.embed.cut(normalised(classifier, pixels))[0]
    patches = patches.reshape(-1, s1, s2, c.channels) * classifier.std + classifier.mean
    return (255 * patches).round().clip(0, 255).astype(np.uint8)


def normalised(classifier: Classifier, pixels: Array) -> Array:
    """pixels (H, W, C) uint8  ->  (1, H, W, C), as the model expects them."""
    wanted = (*classifier.config.image, classifier.config.channels)
    if pixels.shape != wanted:
        raise UserError(f"the image has shape {pixels.shape}, the model needs {wanted}: resize it")
    dtype = classifier.params.flat.dtype
    return normalise(pixels[None], classifier.mean, classifier.std, dtype)


def attention_picture(classifier: Classifier, pixels: Array, patch: int | None = None) -> "Image":
    """Draw the attention of each head (columns) in each block (rows), as maps of the patches.

    patch: whose attention is shown. By default it is that of the class token, or with mean
    pooling the average of all patches. Raises UserError if there is no such patch.
    """
    c = classifier.config
    if patch is not None and not 0 <= patch < c.patches:
        raise UserError(f"there is no patch {patch}: the patches are 0 to {c.patches - 1}")
    found = attention_weights(classifier.model, classifier.params, normalised(classifier, pixels))
    cell = draw.cell_size(c.patch, c.grid, min(160, SHEET // c.heads))
    rows = []
    for weights in found.values():
        if patch is None:
            maps = patch_map(weights[0], c)
        else:
            maps = weights[0, :, c.prefix + patch, c.prefix :].reshape(c.heads, *c.grid)
        row = []
        for values in maps:
            image = draw.framed(draw.blocks(draw.sequential(values, 0, values.max()), cell))
            row.append(draw.above([image, draw.text(f"{values.max():.1%}", draw.SMALL)], gap=1))
        rows.append(row)
    whose = {"cls": "the class token", "mean": "all patches, on average"}[c.pooling]
    if patch is not None:
        whose = f"patch {patch}"
    grid = draw.table(
        rows, [f"block {i}" for i in range(c.depth)], [f"head {i}" for i in range(c.heads)]
    )
    image = image_with_mark(classifier, pixels, patch)
    bar = draw.colour_bar(draw.sequential(np.linspace(0, 1, 256), 0, 1), ["0", "largest"])
    caption = (
        f"The weights with which tokens collect values from each patch: those of {whose}. The "
        "number below each map is its largest weight, which is yellow. Even attention "
        f"would give {1 / c.tokens:.1%} to each of the {c.tokens} tokens."
    )
    return draw.page(
        f"Attention of {whose}", [draw.above([image, bar], align="left"), grid], caption
    )


def image_with_mark(classifier: Classifier, pixels: Array, patch: int | None) -> Array:
    """Return the image at a moderate size, with an orange square around a patch."""
    c = classifier.config
    cell = draw.cell_size(c.patch, c.grid, SIDE // 2)
    rows, columns = c.grid
    image = draw.zoom(draw.as_rgb(pixels), rows * cell[0], columns * cell[1]).copy()
    if patch is not None:
        y, x = patch // columns * cell[0], patch % columns * cell[1]
        colour = draw.diverging(np.array(0.75), 1)
        inside = image[y + 2 : y + cell[0] - 2, x + 2 : x + cell[1] - 2].copy()
        image[y : y + cell[0], x : x + cell[1]] = colour
        image[y + 2 : y + cell[0] - 2, x + 2 : x + cell[1] - 2] = inside
    return draw.framed(image)


def rollout_picture(classifier: Classifier, pixels: Array) -> "Image":
    """Draw the attention rollout of an image: the map, and the map on the image."""
    c = classifier.config
    found = attention_weights(classifier.model, classifier.params, normalised(classifier, pixels))
    values = patch_map(rollout(list(found.values())), c)[0]
    low, high = values.min(), values.max()
    colours = draw.sequential(values, low, high)
    panels = three_panels(classifier, pixels, [colours], ["rollout"])
    caption = (
        f"How much of the {output_name(c.pooling)} comes from each patch by way of attention and "
        f"the residual stream: from {low:.2%} to {high:.2%}; the {c.patches} patches have "
        f"{values.sum():.1%} together. Attention rollout (Abnar and Zuidema, 2020). " + HINT
    )
    bar = draw.sequential_bar(low, high, ".2%")
    return draw.page("Attention rollout", [panels, bar], caption)


def relevance_picture(classifier: Classifier, pixels: Array, classes: int = 3) -> "Image":
    """Draw gradient-weighted attention rollout for the likeliest classes.

    Raises UserError if all of it is zero, as it is in a model that was not trained.
    """
    c = classifier.config
    probabilities = classifier.predict(pixels[None])[0]
    likeliest = probabilities.argsort()[::-1][:classes]
    images = normalised(classifier, pixels).repeat(len(likeliest), 0)
    weights, gradients = attention_gradients(classifier.model, classifier.params, images, likeliest)
    maps = patch_map(gradient_rollout(list(weights.values()), list(gradients.values())), c)
    high = maps.max()
    if high == 0:
        raise UserError(
            "attention has no influence on the logits of this model, which is so before training, "
            "when the head's weights are zero: train it first"
        )
    names = [f"{draw.shortened(classifier.classes[k])}: {probabilities[k]:.1%}" for k in likeliest]
    colours = [draw.sequential(values, 0, high) for values in maps]
    panels = three_panels(classifier, pixels, colours, names)
    caption = (
        "Through which patches attention raises the logit of each class: attention weights times "
        "their gradients, where that is positive, combined over the blocks (Chefer et al., 2021). "
        "The maps have one scale. " + HINT
    )
    bar = draw.sequential_bar(0, high)
    return draw.page("Gradient-weighted attention of the likeliest classes", [panels, bar], caption)


def output_name(pooling: str) -> str:
    """Return what the head reads, in words."""
    return {"cls": "class token", "mean": "average token"}[pooling]


def three_panels(
    classifier: Classifier, pixels: Array, maps: list[Array], names: list[str]
) -> Array:
    """Return the image, and for each map of colours (rows, columns, 3) the map and an overlay."""
    c = classifier.config
    cell = draw.cell_size(c.patch, c.grid, SIDE if len(maps) == 1 else 240)
    image = draw.zoom(draw.as_rgb(pixels), c.grid[0] * cell[0], c.grid[1] * cell[1])
    upper, lower = [draw.framed(image)], []
    for colours in maps:
        large = draw.blocks(colours, cell)
        upper.append(draw.framed(large))
        lower.append(draw.framed(draw.overlay(image, large)))
    if len(maps) == 1:
        return draw.table([[*upper, *lower]], columns=["image", *names, "both"])
    blank = np.full_like(upper[0], 255)
    return draw.table([upper, [blank, *lower]], columns=["image", *names])


def components_picture(classifier: Classifier, pixels: Array) -> "Image":
    """Draw the first three principal components of the patches' features at each depth."""
    c = classifier.config
    features = token_features(classifier.model, classifier.params, normalised(classifier, pixels))
    cell = draw.cell_size(c.patch, c.grid, 112)
    size = c.grid[0] * cell[0], c.grid[1] * cell[1]
    image = draw.framed(draw.zoom(draw.as_rgb(pixels), *size))
    rows: list[list[Array]] = []
    before = np.zeros((c.patches, 3))
    for tokens in features.values():
        x, fractions = principal_components(tokens[0, c.prefix :])
        x = np.where((x * before).sum(0) < 0, -x, x)  # the sign is free
        before = x
        maps = x.reshape(*c.grid, 3)
        row = [draw.framed(draw.blocks(to_colours(maps), cell))]
        for k, fraction in enumerate(fractions):
            part = draw.diverging(maps[..., k], np.abs(maps[..., k]).max())
            shown = draw.framed(draw.blocks(part, cell))
            row.append(draw.above([shown, draw.text(f"{fraction:.0%}", draw.SMALL)], gap=1))
        rows.append(row)
    names = ["embedding", *(f"block {i}" for i in range(c.depth))]
    grid = draw.table(rows, names, ["all three", "first", "second", "third"])
    caption = (
        "The features of this image's patches, after the embedding and after each block: their "
        "first three principal components as red, green and blue together, and one by one (blue "
        "below the average, orange above). The number is the component's part of the variance. "
        "Patches of one colour have similar features. Each row has components of its own; their "
        "signs, which are free, are chosen to resemble the row above."
    )
    return draw.page("Features of the patches", [image, grid], caption)


def to_colours(maps: Array) -> Array:
    """maps (rows, columns, 3)  ->  uint8 colours: each channel from its smallest to its largest."""
    low, high = maps.min((0, 1)), maps.max((0, 1))
    span = np.where(high > low, high - low, 1)
    return np.where(high > low, 255 * (maps - low) / span, 128).round().astype(np.uint8)
