"""Mixing two images of a batch, and their targets. Each takes (images (B, H, W, C) uint8, targets (B, K), rng) and returns
new ones. The partners are a permutation of the batch; the first image's share is drawn for each pair from Beta(a, a)."""

from collections.abc import Callable

import numpy as np

from ..backend.arrays import Array, get_xp
from .augment import box

Mix = Callable[[Array, Array, np.random.Generator], tuple[Array, Array]]


def mixup(alpha: float) -> Mix:
    """Weighted means of two images, and of their targets alike (Zhang et al., 2018)."""

    def mix(images: Array, targets: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        partner, share = (
            rng.permutation(len(images)),
            rng.beta(alpha, alpha, len(images)).astype(np.float32),
        )
        partner, share = map(get_xp(images).asarray, (partner, share))
        s = share[:, None, None, None]
        mixed = images * s
        mixed += images[partner] * (1 - s)
        mixed += 0.5
        return mixed.astype(images.dtype), weigh(targets, partner, share)

    return mix


def cutmix(alpha: float) -> Mix:
    """A rectangle of one image in another (Yun et al., 2019): of the drawn share of the area, its middle anywhere, cut off
    at the edge. The targets are weighted by the areas that come out."""

    def mix(images: Array, targets: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        B, H, W, _ = images.shape
        partner, share = rng.permutation(B), rng.beta(alpha, alpha, B)
        y, x = rng.random((2, B))
        height, width = H * np.sqrt(1 - share), W * np.sqrt(1 - share)
        inside = box(
            (H * y - height / 2).round(),
            (W * x - width / 2).round(),
            height.round(),
            width.round(),
            H,
            W,
        )
        xp, outside = get_xp(images), 1 - inside.mean((1, 2), dtype=np.float32)
        partner, inside, outside = map(xp.asarray, (partner, inside, outside))
        return xp.where(inside[..., None], images[partner], images), weigh(
            targets, partner, outside
        )

    return mix


def weigh(targets: Array, partner: Array, share: Array) -> Array:
    """targets (B, K), share (B,) of the first of each pair."""
    return targets * share[:, None] + targets[partner] * (1 - share)[:, None]


def one_of(*mixes: Mix) -> Mix:
    """One of them for each batch, at random."""

    def mix(images: Array, targets: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        return mixes[rng.integers(len(mixes))](images, targets, rng)

    return mix
