"""Drawings, such as handwritten digits: scaled and centred as in the training images.

MNIST's digits were scaled to a box of 20x20 pixels, which was placed with its centre of
mass at the centre of 28x28 pixels (LeCun et al., 1998, "Gradient-based learning applied
to document recognition", section III.A). A model that was trained on such images only
does not recognise a digit in a corner. Here "ink" is the brightness above the
background.
"""

from typing import Any

import numpy as np

from ..backend.arrays import Array
from .image import border_grey

FAINT = 0.25  # ink below this fraction of the strongest is not part of the drawing
MIN_INK = 16  # grey levels: with less ink, the image counts as blank


def drawing_box(images: Array) -> int:
    """Return the side of the box that the drawings in all the images fill, or 0.

    images: (n, H, W, 1) uint8, light on dark. The result is 0 unless at least 99 % of
    the drawings have this size, to a pixel, and their centre of mass at the centre.
    """
    n, H, W, C = images.shape
    if not n or C != 1 or not images.any((1, 2)).all():
        return 0
    ink = images[..., 0]
    rows = (ink > 0).max(2)  # (n, H): which rows have ink
    columns = (ink > 0).max(1)
    heights = H - rows.argmax(1) - rows[:, ::-1].argmax(1)
    widths = W - columns.argmax(1) - columns[:, ::-1].argmax(1)
    sides = np.maximum(heights, widths)
    box = int(np.median(sides))
    y, x = centre(ink)
    is_centred = np.maximum(abs(y - H // 2), abs(x - W // 2)) <= 0.5
    fits = is_centred & (abs(sides - box) <= 1)
    return box if box < min(H, W) and fits.mean() > 0.99 else 0


def centre(ink: Array) -> tuple[Any, Any]:
    """Return the row and the column of the centre of mass of ink (..., H, W)."""
    H, W = ink.shape[-2:]
    mass = ink.sum((-2, -1), dtype=np.float64)
    y = ink.sum(-1, dtype=np.float64) @ np.arange(H) / mass
    x = ink.sum(-2, dtype=np.float64) @ np.arange(W) / mass
    return y, x


def fit_drawing(pixels: Array, size: tuple[int, int], box: int) -> Array:
    """Scale a drawing to `box` pixels and centre it by its centre of mass.

    pixels (H', W', 1) uint8 of any size, light on dark  ->  (H, W, 1) uint8 on black,
    the strongest ink being white. The result is black if nothing is drawn.
    """
    from PIL import Image

    H, W = size
    fitted = np.zeros((H, W, 1), np.uint8)
    background = border_grey(pixels[None])
    ink = np.maximum(pixels[..., 0] - np.float32(background), 0)
    if ink.max() < MIN_INK:
        return fitted
    is_drawn = ink > FAINT * ink.max()
    rows = np.flatnonzero(is_drawn.any(1))
    columns = np.flatnonzero(is_drawn.any(0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = box / max(ink.shape)
    h, w = (max(1, round(n * scale)) for n in ink.shape)
    scaled = np.asarray(Image.fromarray(ink).resize((w, h), Image.Resampling.BICUBIC))
    scaled = np.maximum(scaled, 0)  # bicubic interpolation can go below 0
    if not scaled.any():  # for example two single pixels that are far apart
        return fitted
    y, x = centre(scaled)
    top = min(max(0, H // 2 - round(y)), H - h)
    left = min(max(0, W // 2 - round(x)), W - w)
    # Thin strokes become fainter when they are scaled down.
    fitted[top : top + h, left : left + w, 0] = (scaled * (255 / scaled.max())).round()
    return fitted
