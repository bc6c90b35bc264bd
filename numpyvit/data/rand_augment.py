"""RandAugment (Cubuk et al., 2020): random operations of the same magnitude.

The operations are those of AutoAugment (Cubuk et al., 2019), with its ranges. Those
that depend on a pixel's value only are computed with one lookup table for each image
and channel. All images of a batch that are rotated, sheared or translated are
transformed by one `warp`. The colour operations compute the same as Pillow's.

strength: the magnitude of an operation from -1 to 1, its sign being random.
"""

from functools import lru_cache
from types import ModuleType

import numpy as np

from ..backend.arrays import Array, count_values, get_xp, read_only
from ..errors import check_int, check_number
from .augment import Augment, check_images, warp

# What each operation does at full strength.
ROTATE = 30.0  # degrees
SHEAR = 0.3  # columns a row, or rows a column
TRANSLATE = 0.45  # of the image's side (AutoAugment: 150 of 331 pixels)
POSTERIZE = 4  # bits are dropped
ENHANCE = 0.9  # added to or subtracted from the factor of 1 in `blend`


def randaugment(operations: int = 2, magnitude: float = 9.0) -> Augment:
    """Apply `operations` random operations to each image; magnitude: 0 to 10."""
    operations = check_int("operations", operations)
    check_number("magnitude", magnitude, least=0, most=10)

    def augment(images: Array, rng: np.random.Generator) -> Array:
        check_images(images, rng)
        xp = get_xp(images)
        images = images.copy()
        for _ in range(operations):
            # 0 to 7: the COLOUR operations, 8: the identity, 9 to 13: geometric.
            operation = rng.integers(0, 14, len(images))
            sign = rng.integers(0, 2, len(images)) * 2.0 - 1
            strength = sign * (magnitude / 10)
            for k, change in enumerate(COLOUR):
                chosen = np.flatnonzero(operation == k)
                if chosen.size:
                    at = xp.asarray(chosen)
                    images[at] = change(images[at], xp.asarray(strength[chosen]))
            chosen = np.flatnonzero(operation > IDENTITY)
            if chosen.size:
                at = xp.asarray(chosen)
                kind = operation[chosen] - (IDENTITY + 1)
                matrices = warp_matrices(kind, strength[chosen], images.shape)
                images[at] = warp(images[at], xp.asarray(matrices))
        return images

    return augment


def warp_matrices(kind: Array, strength: Array, shape: tuple[int, ...]) -> Array:
    """Return the matrices (b, 2, 3) for `warp`.

    kind: (b,), 0 rotate, 1 and 2 shear along x and y, 3 and 4 translate along x and y.
    shape: (B, H, W, C).
    """
    _, H, W, _ = shape
    matrices = np.zeros((len(kind), 2, 3))
    matrices[:, 0, 0] = 1
    matrices[:, 1, 1] = 1
    angle = np.radians(ROTATE) * strength
    cos = np.cos(angle)
    sin = np.sin(angle)
    rotation = np.array([[cos, -sin], [sin, cos]]).transpose(2, 0, 1)  # (b, 2, 2)
    matrices[kind == 0, :, :2] = rotation[kind == 0]
    entries = {  # of the matrix: row, column, value at full strength
        1: (1, 0, SHEAR),
        2: (0, 1, SHEAR),
        3: (1, 2, TRANSLATE * W),
        4: (0, 2, TRANSLATE * H),
    }
    for k, (row, column, value) in entries.items():
        matrices[kind == k, row, column] = value * strength[kind == k]
    return matrices


# The colour operations: images (b, H, W, C) uint8, strength (b,)  ->  changed images.


def autocontrast(images: Array, strength: Array) -> Array:
    """Stretch the values of each channel linearly to 0 to 255."""
    xp = get_xp(images)
    low = images.min((1, 2)).astype(float)[..., None]  # (b, C, 1)
    high = images.max((1, 2)).astype(float)[..., None]
    scale = xp.where(high > low, 255.0 / xp.maximum(high - low, 1), 1)
    offset = xp.where(high > low, low * scale, 0)
    table = all_values(xp) * scale - offset
    return look_up(images, xp.clip(table, 0, 255).astype(np.uint8))


def equalize(images: Array, strength: Array) -> Array:
    """Make all values of each channel about equally frequent."""
    xp = get_xp(images)
    counts = histogram(images)
    below = counts.cumsum(-1) - counts  # the number of pixels with a smaller value
    largest = 255 - (counts[..., ::-1] > 0).argmax(-1)[..., None]
    count_of_largest = xp.take_along_axis(counts, largest, -1)
    step = (counts.sum(-1, keepdims=True) - count_of_largest) // 255
    equalized = (step // 2 + below) // xp.maximum(step, 1)
    table = xp.where(step > 0, equalized, all_values(xp))
    return look_up(images, xp.clip(table, 0, 255).astype(np.uint8))


def posterize(images: Array, strength: Array) -> Array:
    """Keep only the 8 to 4 most significant bits."""
    bits = get_xp(images).round(POSTERIZE * abs(strength)).astype(np.uint8)
    bits = bits[:, None, None, None]
    return images >> bits << bits


def solarize(images: Array, strength: Array) -> Array:
    """Invert all values at or above a threshold, which is 256 to 0."""
    xp = get_xp(images)
    threshold = (256 * (1 - abs(strength)))[:, None, None]
    values = all_values(xp)
    table = xp.where(threshold > values, values, 255 - values)
    return look_up(images, table.astype(np.uint8))


def brightness(images: Array, strength: Array) -> Array:
    """Blend with black."""
    xp = get_xp(images)
    factor = (1 + ENHANCE * strength)[:, None, None]
    return look_up(images, blend(xp.zeros(256), all_values(xp), factor))


def contrast(images: Array, strength: Array) -> Array:
    """Blend with the mean grey of the image."""
    xp = get_xp(images)
    mean = xp.floor(luma(images).mean((1, 2)) + 0.5)  # (b, 1)
    factor = (1 + ENHANCE * strength)[:, None, None]
    return look_up(images, blend(mean[..., None], all_values(xp), factor))


def colour(images: Array, strength: Array) -> Array:
    """Blend with the grey version of the image, if it has colours."""
    if images.shape[-1] != 3:
        return images
    factor = (1 + ENHANCE * strength)[:, None, None, None]
    return blend(luma(images), images, factor)


def sharpness(images: Array, strength: Array) -> Array:
    """Blend with the image smoothed by (1 1 1, 1 5 1, 1 1 1) / 13, without its border."""
    x = images.astype(np.int16)
    smooth = images.copy()
    if min(images.shape[1:3]) > 2:
        rows = x[:, :-2] + x[:, 1:-1] + x[:, 2:]
        total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * x[:, 1:-1, 1:-1]
        smooth[:, 1:-1, 1:-1] = (2 * total + 13) // 26  # total / 13, rounded
    factor = (1 + ENHANCE * strength)[:, None, None, None]
    return blend(smooth, images, factor)


COLOUR = (autocontrast, equalize, posterize, solarize, brightness, contrast, colour, sharpness)
IDENTITY = len(COLOUR)


# Helpers of the colour operations.


@lru_cache(maxsize=2)
def all_values(xp: ModuleType) -> Array:
    """Return 0 to 255, the values of a pixel, as a read-only array of xp."""
    return read_only(np.arange(256), xp, np.int64)


def look_up(images: Array, table: Array) -> Array:
    """Replace each value of images (b, H, W, C) by its entry in a table.

    table: (b or 1, C or 1, 256) uint8.
    """
    b, _, _, C = images.shape
    xp = get_xp(images)
    table = xp.broadcast_to(table, (b, C, 256)).reshape(-1)
    return table.take(images + first_entries(images))


def histogram(images: Array) -> Array:
    """Count how often each value occurs: (b, H, W, C)  ->  (b, C, 256)."""
    b, _, _, C = images.shape
    index = images + first_entries(images)
    return count_values(index.reshape(-1), 256 * b * C).reshape(b, C, 256)


def first_entries(images: Array) -> Array:
    """Return the index of the first entry of each table in a flat array of (b, C, 256).

    The result has the shape (b, 1, 1, C), so that adding a pixel's value gives its
    entry.
    """
    b, _, _, C = images.shape
    return (256 * get_xp(images).arange(b * C)).reshape(b, 1, 1, C)


def blend(start: Array, images: Array, factor: Array) -> Array:
    """Return start + factor * (images - start), clipped to 0 to 255.

    A factor of 0 gives `start`, 1 gives `images`, and a larger one extrapolates.
    """
    start = start.astype(np.float32)
    blended = start + factor.astype(np.float32) * (images - start)
    return get_xp(images).clip(blended, 0, 255).astype(np.uint8)


def luma(images: Array) -> Array:
    """Return the brightness of each pixel as an integer.

    (b, H, W, C)  ->  (b, H, W, 1). For RGB it is the luma of ITU-R 601-2, otherwise the
    mean of the channels.
    """
    xp = get_xp(images)
    if images.shape[-1] != 3:
        return xp.round(images.mean(-1, keepdims=True)).astype(np.int32)
    r, g, b = xp.moveaxis(images.astype(np.int32), -1, 0)
    return ((19595 * r + 38470 * g + 7471 * b + 32768) >> 16)[..., None]
