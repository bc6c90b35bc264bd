"""Mixing the images of a batch, and their targets with the same weights.

A mix is a function of (images (B, H, W, C) uint8, targets (B, K), rng) that returns new
images and targets. The partners of the images are a permutation of the batch, and the
weight of an image in its pair is drawn from a Beta(alpha, alpha) distribution.
"""

from collections.abc import Callable

import numpy as np

from ..backend.arrays import Array, check_array, get_xp
from ..errors import UserError, check_function, check_number
from .augment import box, check_images

Mix = Callable[[Array, Array, np.random.Generator], tuple[Array, Array]]


def check_batch(images: Array, targets: Array, rng: np.random.Generator) -> None:
    """Raise UserError unless these are images, their targets and a generator."""
    check_images(images, rng)
    check_array("targets", targets, "floats", (len(images), "K"))


def mixup(alpha: float) -> Mix:
    """Average each image with its partner, by weight (mixup, Zhang et al., 2018)."""
    check_number("alpha", alpha, above=0)

    def mix(images: Array, targets: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        check_batch(images, targets, rng)
        xp = get_xp(images)
        partner = xp.asarray(rng.permutation(len(images)))
        weight = xp.asarray(rng.beta(alpha, alpha, len(images)).astype(np.float32))
        w = weight[:, None, None, None]
        mixed = images * w
        mixed += images[partner] * (1 - w)
        mixed += 0.5  # the conversion to integers rounds down
        return mixed.astype(images.dtype), mix_targets(targets, partner, weight)

    return mix


def cutmix(alpha: float) -> Mix:
    """Put a rectangle of its partner into each image (CutMix, Yun et al., 2019).

    The rectangle has 1 - weight of the area. Its centre may be anywhere in the image,
    and it is cut off at the edge, so the targets are weighted by the areas that result.
    """
    check_number("alpha", alpha, above=0)

    def mix(images: Array, targets: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        check_batch(images, targets, rng)
        xp = get_xp(images)
        B, H, W, _ = images.shape
        partner = xp.asarray(rng.permutation(B))
        weight = rng.beta(alpha, alpha, B)
        y, x = rng.random((2, B))
        height = H * np.sqrt(1 - weight)
        width = W * np.sqrt(1 - weight)
        top = (H * y - height / 2).round()
        left = (W * x - width / 2).round()
        inside = box(top, left, height.round(), width.round(), H, W)
        remaining = xp.asarray(1 - inside.mean((1, 2), dtype=np.float32))
        mixed = xp.where(xp.asarray(inside)[..., None], images[partner], images)
        return mixed, mix_targets(targets, partner, remaining)

    return mix


def mix_targets(targets: Array, partner: Array, weight: Array) -> Array:
    """Return the weighted means of the targets of each pair.

    targets: (B, K). weight: (B,), of the first of each pair.
    """
    return targets * weight[:, None] + targets[partner] * (1 - weight)[:, None]


def one_of(*mixes: Mix) -> Mix:
    """Choose one of several mixes at random for each batch."""
    if not mixes:
        raise UserError("one_of chooses among mixes: give at least one, such as mixup(0.2)")
    for choice in mixes:
        check_function("mix", choice, "a mix such as mixup(0.2)")

    def mix(images: Array, targets: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        check_batch(images, targets, rng)
        return mixes[rng.integers(len(mixes))](images, targets, rng)

    return mix
