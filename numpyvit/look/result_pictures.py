"""Pictures of a model's results on a test set: the confusion matrix and the worst mistakes.

Each function takes the probabilities (n, K) that the model gives, and returns a Pillow image.
"""

from typing import TYPE_CHECKING

import numpy as np

from ..backend.arrays import Array
from ..data import Dataset
from . import draw
from .maps import confusion_matrix, worst_mistakes

if TYPE_CHECKING:
    from PIL.Image import Image

SHEET = 900  # pixels that the cells of a large confusion matrix fill together
WITH_NUMBERS = 30  # classes, at most
WITH_NAMES = 120


def confusion_picture(probabilities: Array, test: Dataset) -> "Image":
    """Draw how many images of each class (rows) were taken for which class (columns)."""
    K = len(test.classes)
    counts = confusion_matrix(test.labels, probabilities.argmax(-1), K)
    of_class = np.maximum(counts.sum(1, keepdims=True), 1)
    shares = counts / of_class
    is_right = np.eye(K, dtype=bool)
    worst = float(np.where(is_right, 0, shares).max())
    colours = np.where(
        is_right[..., None], draw.diverging(-shares, 1.0), draw.diverging(shares, worst)
    ).astype(np.uint8)
    numbered = K <= WITH_NUMBERS
    named = K <= WITH_NAMES
    needed = draw.text(str(counts.max()), draw.SMALL).shape[1] + 6
    side = max(26, needed) if numbered else 17 if named else max(2, SHEET // K)
    matrix = draw.blocks(colours, (side, side))
    if numbered:
        for i, j in np.argwhere(counts):
            cell = draw.cell(str(counts[i, j]), colours[i, j], side, side)
            matrix[i * side : (i + 1) * side, j * side : (j + 1) * side] = cell
    matrix = draw.framed(matrix)
    body = with_names(matrix, test.classes, side) if named else matrix
    right = draw.colour_bar(draw.diverging(np.linspace(0, -1, 256), 1), ["0%", "100%"], 160)
    wrong = draw.colour_bar(draw.diverging(np.linspace(0, 1, 256), 1), ["0%", f"{worst:.1%}"], 160)
    bars = draw.beside([draw.titled(right, "right"), draw.titled(wrong, "wrong")], gap=24)
    caption = (
        f"Rows are the true classes, columns the predictions, on {len(test):,} test images of "
        f"{test.name}; {np.trace(counts) / max(len(test), 1):.2%} are right. Colours are fractions "
        "of the row" + (", numbers count images." if numbered else ".")
    )
    return draw.page("Confusion matrix", [body, bars], caption)


def with_names(matrix: Array, classes: tuple[str, ...], side: int) -> Array:
    """Write the classes to the left of a matrix, and above it, turned."""
    names = [draw.text(draw.shortened(name), draw.SMALL) for name in classes]
    width = max(name.shape[1] for name in names)
    rows = [draw.centred(draw.padded(name, 0, width, "right"), side, width) for name in names]
    columns = [draw.centred(draw.padded(name, 0, width, "left"), side, width) for name in names]
    left = np.pad(np.concatenate(rows), ((1, 1), (0, 0), (0, 0)), constant_values=255)
    top = np.pad(
        np.concatenate([np.rot90(column) for column in columns], axis=1),
        ((0, 0), (1, 1), (0, 0)),
        constant_values=255,
    )
    return draw.above([top, draw.beside([left, matrix], gap=4)], gap=4, align="right")


def mistakes_picture(probabilities: Array, test: Dataset, count: int = 24) -> "Image":
    """Draw the images whose right class was given the lowest probability, and the prediction."""
    wrong = worst_mistakes(probabilities, test.labels)
    tiles = []
    H, W = test.images.shape[1:3]
    height, width = draw.cell_size((H, W), (1, 1), 112)
    for i in wrong[:count]:
        p, truth, said = probabilities[i], test.labels[i], probabilities[i].argmax()
        image = draw.framed(draw.zoom(draw.as_rgb(test.images[i]), height, width))
        lines = [
            draw.text(f"test image {i}", draw.SMALL, draw.GREY),
            draw.text(
                f"true {draw.shortened(test.classes[truth], 14)}: {p[truth]:.1%}", draw.SMALL
            ),
            draw.text(
                f"predicted {draw.shortened(test.classes[said], 14)}: {p[said]:.1%}", draw.SMALL
            ),
        ]
        tiles.append(draw.above([image, *lines], gap=1))
    caption = (
        f"{len(wrong):,} of {len(test):,} test images of {test.name} are classified wrongly. Those "
        "whose right class was given the lowest probability come first."
    )
    if not tiles:
        return draw.page("No mistakes", [draw.text("All images are classified rightly.")], caption)
    widest = max(tile.shape[1] for tile in tiles)
    columns = max(2, min(8, 1000 // (widest + draw.GAP)))
    grid = draw.table([tiles[i : i + columns] for i in range(0, len(tiles), columns)])
    return draw.page("The worst mistakes", [grid], caption)
