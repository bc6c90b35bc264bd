"""Pictures of something drawn, one to a picture, put where the training images have it.

MNIST's digits were scaled to a box of 20x20 pixels, and that was laid with its centre of mass on the middle of 28x28 (LeCun
et al., 1998, "Gradient-based learning applied to document recognition", section III.A). A model that never saw anything else
does not know a digit in a corner.
"""

from typing import Any

import numpy as np

from ..backend import Array
from .image import border_grey

FAINT = 0.25         # of the strongest ink: what is less is paper


def ink_box(images: Array) -> int:
    """The side of the box that all of these (n, H, W, 1) uint8, light on dark, fill, if all are centred; else 0."""
    n, H, W, C = images.shape
    ink = images[..., 0].astype(np.float64)
    if not n or C != 1 or not ink.any((1, 2)).all():
        return 0
    rows, columns = (ink > 0).max(2), (ink > 0).max(1)                   # those that hold some
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
    mass = ink.sum((-2, -1))
    return ink.sum(-1) @ np.arange(H) / mass, ink.sum(-2) @ np.arange(W) / mass


def fit_ink(pixels: Array, size: tuple[int, int], box: int) -> Array:
    """pixels (H', W', 1) uint8, light on dark, of any size  ->  (H, W, 1) uint8: the ink scaled to `box` pixels, its centre
    of mass in the middle, on black. An even picture comes back black."""
    from PIL import Image

    H, W = size
    ground = border_grey(pixels[None])
    ink = np.clip((pixels[..., 0] - ground) / max(float(pixels.max()) - ground, 1.0), 0, 1)
    rows, columns = (np.flatnonzero((ink > FAINT).any(axis)) for axis in (1, 0))
    fitted = np.zeros((H, W, 1), np.uint8)
    if not len(rows):
        return fitted
    ink = ink[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
    scale = box / max(ink.shape)
    h, w = (max(1, round(n * scale)) for n in ink.shape)
    small = np.asarray(Image.fromarray((ink * 255).astype(np.uint8)).resize((w, h), Image.Resampling.BICUBIC))
    y, x = centre(small.astype(np.float64))
    top, left = min(max(0, H // 2 - round(y)), H - h), min(max(0, W // 2 - round(x)), W - w)
    fitted[top:top + h, left:left + w, 0] = small
    return fitted
