"""Patch dropout: in training, each image goes on with some of its patches only (Liu et al., 2022, "PatchDropout").

An encoder's weights belong to no place, and a token carries its place with it (so this comes after the positions): it works
with any number of tokens. With half of them a step is about half of the work, and no two looks at an image are the same.
Evaluation sees all of them. Nothing is scaled: attention and the mean over tokens are averages already.
"""

import numpy as np

from ..backend.arrays import Array, fused, get_xp

Cache = tuple[Array, Array, tuple[int, ...]] | None


def choose_patches(bits: Array, patches: int) -> Array:
    """bits (B, n), random uint64  ->  (B, patches): those of its n patches that an image keeps, in their order. To sort by
    random numbers is to shuffle."""
    xp = get_xp(bits)
    return xp.sort(xp.argsort(bits, axis=1, kind="stable")[:, :patches], axis=1)


def patch_dropout_forward(
    x: Array, p: float, rng: np.random.Generator | None, first: int = 0
) -> tuple[Array, Cache]:
    """x (B, N, D)  ->  y (B, kept, D), cache: None, and y is x, where p = 0 or rng = None.

    Of each image's patches round((1 - p) (N - first)), but one at least, stay, in their order, drawn for each image. The
    `first` tokens before them, the class token, always stay: kept counts both.
    """
    if rng is None or p == 0:
        return x, None
    B, N, _ = x.shape
    patches = max(1, round((1 - p) * (N - first)))
    xp, bits = get_xp(x), rng.integers(0, 2**64, (B, N - first), np.uint64)
    index = fused(choose_patches, x)(xp.asarray(bits), patches) + first
    index = xp.concatenate(
        [xp.broadcast_to(xp.arange(first), (B, first)), index], axis=1
    )  # (B, kept)
    rows = xp.arange(B)[:, None]  # (B, 1)
    return x[rows, index], (rows, index, x.shape)


def patch_dropout_backward(dy: Array, cache: Cache) -> Array:
    """dy (B, kept, D)  ->  dx (B, N, D): each token that was kept was copied, so its gradient goes back to its place; the
    others had no part in the loss."""
    if cache is None:
        return dy
    rows, index, shape = cache
    dx = get_xp(dy).zeros(shape, dy.dtype)
    dx[rows, index] = dy
    return dx
