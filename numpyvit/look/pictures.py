"""A sheet of training images, as they are and as augmentation changes them."""

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from .. import data
from ..backend.arrays import Array
from ..backend.device import to_host
from ..train.recipes import Recipe, augmentation, mixing

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 8  # images in a row and in a column
GAP = 2  # grey pixels between them


def batch_picture(train: data.Dataset, recipe: Recipe, seed: int = 0) -> "Image":
    """Draw the first 64 training images, on the left unchanged, on the right augmented.

    The augmentation is computed where `train` is, on the host or on a GPU.
    """
    from PIL import Image

    plain = first_images(train, recipe, seed, None, None)
    augmented = first_images(train, recipe, seed, augmentation(recipe), mixing(recipe))
    left, right = (tile(to_pixels(images, train)) for images in (plain, augmented))
    gap = np.full_like(left[:, : 4 * GAP], 128)
    sheet = np.concatenate([left, gap, right], axis=1)
    zoom = max(1, round(48 / max(train.images.shape[1:3])))
    return Image.fromarray(sheet.repeat(zoom, 0).repeat(zoom, 1))


def first_images(
    train: data.Dataset,
    recipe: Recipe,
    seed: int,
    augment: data.Augment | None,
    mix: data.Mix | None,
) -> Array:
    """Return the first 64 images that training sees, normalised, (64, H, W, C)."""
    batches = data.batches(train, recipe.batch_size, 64, seed, augment, mix)
    needed = -(-SIDE * SIDE // min(recipe.batch_size, len(train)))
    images = [to_host(images) for images, _ in islice(batches, needed)]
    return np.concatenate(images)[: SIDE * SIDE]


def to_pixels(images: Array, train: data.Dataset) -> Array:
    """Undo the normalisation: (n, H, W, C)  ->  (n, H, W, 3) uint8; greys are repeated."""
    pixels = np.round(255 * (images * train.std + train.mean))
    pixels = pixels.clip(0, 255).astype(np.uint8)
    return pixels if pixels.shape[-1] == 3 else pixels[..., :1].repeat(3, -1)


def tile(images: Array) -> Array:
    """(n, H, W, 3)  ->  one image with SIDE of them in a row, on a grey background."""
    n, H, W, C = images.shape
    rows = -(-n // SIDE)
    sheet = np.full((rows * SIDE, H + GAP, W + GAP, C), 128, np.uint8)
    sheet[:n, :H, :W] = images
    sheet = sheet.reshape(rows, SIDE, H + GAP, W + GAP, C)
    sheet = sheet.swapaxes(1, 2)  # (rows, H + GAP, SIDE, W + GAP, C)
    return sheet.reshape(rows * (H + GAP), SIDE * (W + GAP), C)
