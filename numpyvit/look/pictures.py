"""What the model sees, as images."""

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from .. import data
from ..backend.arrays import Array
from ..backend.device import to_host
from ..train.recipes import Recipe, augmentation, mixing

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE, GAP = 8, 2  # images in a row and in a column; grey pixels between them


def batch_picture(train: data.Dataset, recipe: Recipe, seed: int = 0) -> "Image":
    """The first 64 images of training, as they are, and beside that as the recipe changes them, where `train` is."""
    from PIL import Image

    def first(augment: data.Augment | None, mix: data.Mix | None) -> Array:
        batches = data.batches(train, recipe.batch_size, 64, seed, augment, mix)
        enough = islice(batches, -(-SIDE * SIDE // min(recipe.batch_size, len(train))))
        return np.concatenate([to_host(images) for images, _ in enough])[: SIDE * SIDE]

    panels = [
        tile(back(first(*how), train))
        for how in ((None, None), (augmentation(recipe), mixing(recipe)))
    ]
    both = np.concatenate(
        [panels[0], np.full_like(panels[0][:, : 4 * GAP], 128), panels[1]], axis=1
    )
    zoom = max(1, round(48 / max(train.images.shape[1:3])))
    return Image.fromarray(both.repeat(zoom, 0).repeat(zoom, 1))


def back(images: Array, train: data.Dataset) -> Array:
    """Normalised images (n, H, W, C)  ->  uint8 RGB; greys are repeated."""
    pixels = np.round(255 * (images * train.std + train.mean)).clip(0, 255).astype(np.uint8)
    return pixels if pixels.shape[-1] == 3 else pixels[..., :1].repeat(3, -1)


def tile(images: Array) -> Array:
    """(n, H, W, 3)  ->  one image with all of them, SIDE in a row, on grey."""
    n, H, W, C = images.shape
    rows = -(-n // SIDE)
    sheet = np.full((rows * SIDE, H + GAP, W + GAP, C), 128, np.uint8)
    sheet[:n, :H, :W] = images
    return (
        sheet.reshape(rows, SIDE, H + GAP, W + GAP, C)
        .swapaxes(1, 2)
        .reshape(rows * (H + GAP), SIDE * (W + GAP), C)
    )
