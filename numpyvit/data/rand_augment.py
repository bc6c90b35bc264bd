"""RandAugment (Cubuk et al., 2020): to each image a few operations, drawn from fourteen, all at one strength.

What works on each pixel's value alone is one lookup table for each image and channel; what moves pixels is one warp for all
of the images that are turned, slanted or moved. The operations on colour give what Pillow's give.
"""

from functools import lru_cache
from types import ModuleType

import numpy as np

from ..backend.arrays import Array, count_values, fixed, get_xp
from .augment import Augment, warp

# (0.45 of its size is the longest way an image is moved: 150 of 331 pixels, in AutoAugment, whose ranges these are)
TURN, SLANT, WAY, BITS, BLEND = 30.0, 0.3, 0.45, 4, 0.9


@lru_cache(maxsize=2)
def greys(xp: ModuleType) -> Array:
    return fixed(np.arange(256), xp, np.int64)


def randaugment(operations: int = 2, magnitude: float = 9.0) -> Augment:
    """operations: how many for each image, magnitude: how strong, from 0 to 10."""

    def augment(images: Array, rng: np.random.Generator) -> Array:
        xp, images = get_xp(images), images.copy()
        for _ in range(operations):
            operation, sign = (
                rng.integers(0, 14, len(images)),
                rng.integers(0, 2, len(images)) * 2.0 - 1,
            )
            strength = sign * (magnitude / 10)
            for k, change in enumerate(COLOUR):
                if (of_this := np.flatnonzero(operation == k)).size:
                    at = xp.asarray(of_this)
                    images[at] = change(images[at], xp.asarray(strength[of_this]))
            moved = np.flatnonzero(operation >= len(COLOUR) + 1)  # between the two: left as it is
            if moved.size:
                at = xp.asarray(moved)
                images[at] = warp(
                    images[at],
                    xp.asarray(maps(operation[moved] - 9, strength[moved], images.shape)),
                )
        return images

    return augment


def maps(kind: Array, strength: Array, shape: tuple[int, ...]) -> Array:
    """kind (b,): 0 turn, 1 slant along x, 2 along y, 3 move along x, 4 along y  ->  matrices (b, 2, 3) for warp."""
    _, H, W, _ = shape
    m = np.zeros((len(kind), 2, 3))
    m[:, 0, 0] = m[:, 1, 1] = 1
    angle = np.radians(TURN) * strength
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).transpose(
        2, 0, 1
    )
    m[kind == 0, :, :2] = turned[kind == 0]
    for k, (row, column, most) in {
        1: (1, 0, SLANT),
        2: (0, 1, SLANT),
        3: (1, 2, WAY * W),
        4: (0, 2, WAY * H),
    }.items():
        m[kind == k, row, column] = most * strength[kind == k]
    return m


def look_up(images: Array, table: Array) -> Array:
    """images (b, H, W, C), table (b or 1, C or 1, 256) uint8  ->  what the table says for each value."""
    b, _, _, C = images.shape
    xp = get_xp(images)
    table = xp.broadcast_to(table, (b, C, 256)).reshape(-1)
    return table.take(images + (256 * xp.arange(b * C)).reshape(b, 1, 1, C))


def histogram(images: Array) -> Array:
    """(b, H, W, C)  ->  (b, C, 256), how often each value occurs."""
    b, _, _, C = images.shape
    index = images + (256 * get_xp(images).arange(b * C)).reshape(b, 1, 1, C)
    return count_values(index.reshape(-1), 256 * b * C).reshape(b, C, 256)


def autocontrast(images: Array, strength: Array) -> Array:
    """Stretch each channel to 0..255."""
    xp, low = get_xp(images), images.min((1, 2)).astype(float)[..., None]  # (b, C, 1)
    high = images.max((1, 2)).astype(float)[..., None]
    scale = xp.where(high > low, 255.0 / xp.maximum(high - low, 1), 1)
    table = greys(xp) * scale - xp.where(high > low, low * scale, 0)
    return look_up(images, xp.clip(table, 0, 255).astype(np.uint8))


def equalize(images: Array, strength: Array) -> Array:
    """Make all values of each channel about equally frequent."""
    xp, counts = get_xp(images), histogram(images)
    before = counts.cumsum(-1) - counts
    last = xp.take_along_axis(counts, 255 - (counts[..., ::-1] > 0).argmax(-1)[..., None], -1)
    step = (counts.sum(-1, keepdims=True) - last) // 255
    table = xp.where(step > 0, (step // 2 + before) // xp.maximum(step, 1), greys(xp))
    return look_up(images, xp.clip(table, 0, 255).astype(np.uint8))


def posterize(images: Array, strength: Array) -> Array:
    """Keep the first 8 to 4 bits."""
    dropped = get_xp(images).round(BITS * abs(strength)).astype(np.uint8)[:, None, None, None]
    return images >> dropped << dropped


def solarize(images: Array, strength: Array) -> Array:
    """Invert the values from a threshold on, 256 to 0."""
    xp, threshold = get_xp(images), (256 * (1 - abs(strength)))[:, None, None]
    return look_up(
        images, xp.where(threshold > greys(xp), greys(xp), 255 - greys(xp)).astype(np.uint8)
    )


def blend(start: Array, images: Array, factor: Array) -> Array:
    """start + factor * (images - start), cut off at 0 and 255: factors above 1 go on beyond the images."""
    start = start.astype(np.float32)
    return (
        get_xp(images)
        .clip(start + factor.astype(np.float32) * (images - start), 0, 255)
        .astype(np.uint8)
    )


def brightness(images: Array, strength: Array) -> Array:
    """From or towards black."""
    factor = (1 + BLEND * strength)[:, None, None]
    xp = get_xp(images)
    return look_up(images, blend(xp.zeros(256), greys(xp), factor))


def contrast(images: Array, strength: Array) -> Array:
    """From or towards the image's mean grey."""
    xp = get_xp(images)
    mean = xp.floor(luma(images).mean((1, 2)) + 0.5)  # (b, 1)
    return look_up(images, blend(mean[..., None], greys(xp), (1 + BLEND * strength)[:, None, None]))


def colour(images: Array, strength: Array) -> Array:
    """From or towards grey, where there are colours."""
    if images.shape[-1] != 3:
        return images
    return blend(luma(images), images, (1 + BLEND * strength)[:, None, None, None])


def sharpness(images: Array, strength: Array) -> Array:
    """From or towards the image smoothed by (1 1 1, 1 5 1, 1 1 1) / 13, but for its border."""
    x = images.astype(np.int16)
    smooth = images.copy()
    if min(images.shape[1:3]) > 2:
        rows = x[:, :-2] + x[:, 1:-1] + x[:, 2:]
        total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * x[:, 1:-1, 1:-1]
        smooth[:, 1:-1, 1:-1] = (2 * total + 13) // 26  # rounded
    return blend(smooth, images, (1 + BLEND * strength)[:, None, None, None])


def luma(images: Array) -> Array:
    """(b, H, W, C)  ->  (b, H, W, 1): how bright RGB looks (ITU-R 601-2), else the mean of the channels; whole numbers."""
    if images.shape[-1] != 3:
        return get_xp(images).round(images.mean(-1, keepdims=True)).astype(np.int32)
    r, g, b = get_xp(images).moveaxis(images.astype(np.int32), -1, 0)
    return ((19595 * r + 38470 * g + 7471 * b + 32768) >> 16)[..., None]


COLOUR = (autocontrast, equalize, posterize, solarize, brightness, contrast, colour, sharpness)
