"""Pictures of something drawn, one to a picture, put where the training images have it.

MNIST's digits were scaled to a box of 20x20 pixels, and that was laid with its centre of mass on the middle of 28x28 (LeCun
et al., 1998, "Gradient-based learning applied to document recognition", section III.A). A model that never saw anything else
does not know a digit in a corner.
"""

from typing import Any

import numpy as np

from ..backend.arrays import Array
from .image import border_grey

FAINT = 0.25  # of the strongest ink: where it begins and ends, there is more than that
LEAST = 16  # levels of grey that ink is above its ground, at its strongest


def ink_box(images: Array) -> int:
    """The side of the box that these (n, H, W, 1) uint8, light on dark, fill, give or take a pixel, if 99 % of them do and
    are centred; else 0."""
    n, H, W, C = images.shape
    if not n or C != 1 or not images.any((1, 2)).all():
        return 0
    ink = images[..., 0]
    rows, columns = (ink > 0).max(2), (ink > 0).max(1)  # those that hold some
    tall = H - rows.argmax(1) - rows[:, ::-1].argmax(1)
    wide = W - columns.argmax(1) - columns[:, ::-1].argmax(1)
    side = np.maximum(tall, wide)
    y, x = centre(ink)
    apart = np.maximum(abs(y - H // 2), abs(x - W // 2)) <= 0.5
    box = int(np.median(side))
    return box if box < min(H, W) and (apart & (abs(side - box) <= 1)).mean() > 0.99 else 0


def centre(ink: Array) -> tuple[Any, Any]:
    """ink (..., H, W)  ->  row and column of its centre of mass."""
    H, W = ink.shape[-2:]
    mass = ink.sum((-2, -1), dtype=np.float64)
    return ink.sum(-1, dtype=np.float64) @ np.arange(H) / mass, ink.sum(
        -2, dtype=np.float64
    ) @ np.arange(W) / mass


def fit_ink(pixels: Array, size: tuple[int, int], box: int) -> Array:
    """pixels (H', W', 1) uint8, light on dark, of any size  ->  (H, W, 1) uint8: the ink scaled to `box` pixels, its centre
    of mass in the middle, the strongest of it white, on black. All black where there is none."""
    from PIL import Image

    H, W = size
    ground, fitted = border_grey(pixels[None]), np.zeros((H, W, 1), np.uint8)
    ink = np.maximum(pixels[..., 0] - np.float32(ground), 0)
    if ink.max() < LEAST:
        return fitted
    rows, columns = (np.flatnonzero((ink > FAINT * ink.max()).any(axis)) for axis in (1, 0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = box / max(ink.shape)
    h, w = (max(1, round(n * scale)) for n in ink.shape)
    small = np.maximum(np.asarray(Image.fromarray(ink).resize((w, h), Image.Resampling.BICUBIC)), 0)
    if not small.any():  # two specks far apart, and nothing else
        return fitted
    y, x = centre(small)
    top, left = min(max(0, H // 2 - round(y)), H - h), min(max(0, W // 2 - round(x)), W - w)
    small = (small * (255 / small.max())).round()  # thin strokes faded when they were made smaller
    fitted[top : top + h, left : left + w, 0] = small
    return fitted
