"""Pictures of a model's weights: embedding filters and positions.

Each function takes a Classifier and returns a Pillow image.
"""

from typing import TYPE_CHECKING

import numpy as np

from ..backend.arrays import Array
from ..classifier import Classifier
from ..layers.positions import sinusoidal
from . import draw
from .image_pictures import normalised
from .maps import added_positions, embedding_filters, position_similarity

if TYPE_CHECKING:
    from PIL.Image import Image

SHEET = 1000  # pixels that many small pictures fill together
MOST_TILES = 16  # in a row or column of the grid of grids


def filters_picture(classifier: Classifier) -> "Image":
    """Draw the filters of the patch embedding, all on one scale.

    With three channels the colours show the weights of red, green and blue, and grey is
    zero. Otherwise the first channel is drawn, blue below zero and orange above.
    """
    c = classifier.config
    filters = embedding_filters(classifier.model, classifier.params)
    limit = float(np.abs(filters).max())
    columns = max(8, int(np.ceil(np.sqrt(1.5 * c.width))))
    side = max(24, SHEET // columns - draw.GAP)
    height, width = draw.cell_size(filters.shape[1:3], (1, 1), min(side, 96))
    cells = []
    for i, values in enumerate(filters):
        colours = filter_colours(values, limit)
        cell = draw.framed(draw.zoom(colours, height, width))
        if c.width <= 200:
            cell = draw.above([draw.text(str(i), draw.SMALL), cell], gap=1)
        cells.append(cell)
    grid = draw.table([cells[i : i + columns] for i in range(0, len(cells), columns)])
    s1, s2 = filters.shape[1:3]
    if c.channels == 3:
        caption = (
            "The colours are the weights of the red, green and blue pixels: middle grey is zero, "
            f"the lightest and darkest are +{limit:.3g} and -{limit:.3g}."
        )
        parts = [grid]
    else:
        caption = "Pixels under orange raise the feature, pixels under blue lower it."
        parts = [grid, draw.diverging_bar(limit)]
    caption = (
        f"Feature i of a token is the sum of its pixels times filter i, plus a bias. {caption}"
    )
    title = f"The {c.width} filters of the patch embedding, {s1}x{s2} pixels each"
    return draw.page(title, parts, caption)


def filter_colours(values: Array, limit: float) -> Array:
    """values (S1, S2, C)  ->  (S1, S2, 3) uint8, for weights from -limit to limit."""
    if values.shape[-1] != 3:
        return draw.diverging(values[..., 0], limit)
    scaled = values / limit if limit > 0 else 0 * values
    return (127.5 + 127.5 * scaled).round().astype(np.uint8)


def positions_picture(classifier: Classifier) -> "Image":
    """Draw how similar the position of each patch is to those of all patches.

    It is the grid of grids of figure 7 (centre) of the ViT paper. Raises UserError if the
    model adds no positions.
    """
    c = classifier.config
    rows, columns = c.grid
    similarity = position_similarity(classifier.model, classifier.params)
    maps = similarity.reshape(rows, columns, rows, columns)
    step = -(-max(c.grid) // MOST_TILES)
    shown = len(range(0, max(c.grid), step))
    cell = draw.cell_size(c.patch, c.grid, max(max(c.grid), min(160, 800 // shown)))
    colours = draw.diverging(maps[::step, ::step], 1.0)
    tiles = [
        [draw.framed(draw.blocks(map_colours, cell)) for map_colours in row] for row in colours
    ]
    names = [[str(i) for i in range(0, n, step)] for n in c.grid]
    grid = draw.table(tiles, *names)
    caption = (
        "Each small map belongs to the patch at its place in the image, whose row and column are "
        "written at the sides. It shows the cosine between that patch's position and the positions "
        "of all patches."
    )
    if step > 1:
        caption += f" One patch in {step}, in both directions, has a map here."
    if c.prefix:
        caption += " The class token's position is left out."
    title = f"Similarity of the {c.positions} positions"
    return draw.page(title, [grid, draw.diverging_bar(1.0)], caption)


def sinusoidal_picture(classifier: Classifier) -> "Image":
    """Draw the table of sines and cosines for a model's number of tokens and its width."""
    c = classifier.config
    values = sinusoidal(c.tokens, c.width)
    height = max(1, min(12, 600 // c.tokens))
    width = max(1, min(16, 900 // c.width))
    image = draw.framed(draw.blocks(draw.diverging(values, 1.0), (height, width)))
    body = with_axes(image, f"token 0 to {c.tokens - 1}", f"feature 0 to {c.width - 1}")
    uses = {
        "sinusoidal": "This model adds row t to token t.",
        "learned": "This model does not use them: it adds learned positions.",
        "rotary": "This model does not use them: it rotates queries and keys.",
        "none": "This model does not use them: it has no positions.",
    }
    caption = (
        "Features 2i and 2i+1 of token t are sin(t f) and cos(t f) with f = 10000^(-2i/D): fast on "
        f"the left, slow on the right (Vaswani et al., 2017). {uses[c.positions]}"
    )
    title = f"Sinusoidal positions of {c.tokens} tokens with {c.width} features"
    return draw.page(title, [body, draw.diverging_bar(1.0)], caption)


def with_axes(image: Array, vertical: str, horizontal: str) -> Array:
    """Write what the rows are to the left of an image, turned, and what the columns are above."""
    turned = np.rot90(draw.text(vertical))
    body = draw.beside([turned, image], gap=4)
    blank = np.full((1, turned.shape[1], 3), 255, np.uint8)
    return draw.above([draw.beside([blank, draw.text(horizontal)], gap=4), body], 4, "left")


def broadcast_picture(classifier: Classifier, images: Array) -> "Image":
    """Draw how one table of positions is added to the tokens of several images.

    images (B, H, W, C) uint8, of which at most three are drawn. The numbers are those of
    the model. Raises UserError if the model adds no positions.
    """
    c = classifier.config
    model, params = classifier.model, classifier.params
    positions = added_positions(model, params)
    x = np.concatenate([normalised(classifier, image) for image in images[:3]])
    x, _ = model.embed.forward(params, x)
    x, _ = model.prefix.forward(params, x)
    y, _ = model.positions.forward(params, x)
    limit = float(max(np.abs(x).max(), np.abs(positions).max(), np.abs(y).max()))
    B, N, D = x.shape
    rows = []
    for b in range(B):
        cell = draw.cell_size(c.patch, c.grid, 112)
        size = c.grid[0] * cell[0], c.grid[1] * cell[1]
        image = draw.framed(draw.zoom(draw.as_rgb(images[b]), *size))
        table = number_table(positions, limit, pale=b > 0)
        parts = [
            draw.titled(image, f"image {b}"),
            draw.titled(number_table(x[b], limit), f"x[{b}]"),
            draw.text("+", draw.LARGE),
            draw.titled(table, "positions" if b == 0 else "positions, again"),
            draw.text("=", draw.LARGE),
            draw.titled(number_table(y[b], limit), f"y[{b}]"),
        ]
        rows.append(draw.beside(parts, gap=12, align="middle"))
    heading = draw.text(
        f"y = x + positions[np.newaxis]:   x ({B}, {N}, {D})   +   positions (1, {N}, {D})   =   "
        f"y ({B}, {N}, {D})",
        draw.NORMAL,
    )
    caption = (
        f"The {N} rows are tokens"
        + (", the first of them the class token" if c.prefix else "")
        + f", the {D} columns features. There is one row of positions for each token. The axis "
        "of length 1 is stretched over the images without a copy being made (a pale table is the "
        "first one, used again); without np.newaxis NumPy adds the axis itself."
    )
    parts = [heading, *rows, draw.diverging_bar(limit)]
    return draw.page("Broadcasting the positions over a batch", parts, caption)


def number_table(values: Array, limit: float, pale: bool = False) -> Array:
    """Draw the first rows and columns of a matrix, and the last ones, as numbers on colours."""
    lines = []
    for i in excerpt(len(values), 4):
        cells = []
        for j in excerpt(values.shape[1], 4):
            if i is None or j is None:
                dots = draw.text("…", draw.NORMAL, draw.GREY)
                if i is None:
                    dots = np.rot90(dots)
                cells.append(draw.centred(dots, 22, 46 if j is not None else 20))
                continue
            colour = draw.diverging(values[i, j], limit)
            if pale:
                colour = (0.35 * colour + 0.65 * 255).astype(np.uint8)
            cells.append(
                draw.cell(f"{values[i, j]:.2f}", colour, 22, 46, draw.GREY if pale else None)
            )
        lines.append(np.concatenate(cells, axis=1))
    return draw.framed(np.concatenate(lines))


def excerpt(n: int, first: int) -> list[int | None]:
    """Return the indices 0 to first - 1 and n - 1, with None for those between them."""
    if n <= first + 2:
        return list(range(n))
    return [*range(first), None, n - 1]
