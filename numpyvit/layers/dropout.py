"""Dropout (Srivastava et al., 2014) and drop path (Huang et al., 2016), each by a mask of 0 and 1 / keep.

Dividing by the chance to be kept leaves the expected value as it was, so evaluation needs no other code: it just does
not drop (rng=None).
"""

import numpy as np

from ..backend.arrays import Array, get_xp


def draw_mask(rng: np.random.Generator, shape: tuple[int, ...], p: float, like: Array) -> Array:
    """A mask (shape) of `like`'s dtype: 0 with probability p, else 1 / (1 - p).

    16-bit integers below a threshold drop: the same ones whatever the dtype, and p to within 1 / 65536, with the factor
    made for the p that was used.
    """
    threshold = round(p * 65536)
    size = int(np.prod(shape, dtype=np.int64))
    bits = rng.integers(0, 2**64, (size + 3) // 4, np.uint64, endpoint=False).view(np.uint16)[:size]
    xp = get_xp(like)
    kept = xp.asarray(bits >= threshold).reshape(shape)
    return kept.astype(like.dtype) * (65536 / (65536 - threshold))


def dropout_forward(
    x: Array, p: float, rng: np.random.Generator | None, shape: tuple[int, ...] | None = None
) -> tuple[Array, Array | None]:
    """x (...)  ->  y (...), cache: the mask, or None (and y is x) where nothing is dropped: p = 0 or rng = None.

    shape: what the mask is drawn for, where x is only its leading tokens: (B, N, D) with x (B, rows, D).
    """
    if rng is None or p == 0:
        return x, None
    mask = draw_mask(rng, shape or x.shape, p, x)
    if shape:
        mask = mask[:, : x.shape[1]]
    return x * mask, mask


def dropout_backward(dy: Array, mask: Array | None) -> Array:
    """dy (...)  ->  dx (...): y = mask * x, element by element, so dx = mask * dy."""
    return dy if mask is None else dy * mask


def drop_path_forward(
    x: Array, p: float, rng: np.random.Generator | None
) -> tuple[Array, Array | None]:
    """x (B, N, D), a branch on its way to the residual stream  ->  y (B, N, D), cache.

    Drops the whole branch for some images of the batch: they go through a network with one branch fewer.
    """
    if rng is None or p == 0:
        return x, None
    mask = draw_mask(rng, (x.shape[0], 1, 1), p, x)
    return x * mask, mask


drop_path_backward = dropout_backward  # y = mask * x here too; the mask is (B, 1, 1)


def add_branch_forward(
    x: Array,
    a: Array,
    dropout: float,
    drop_path: float,
    rng: np.random.Generator | None,
    shape: tuple[int, ...],
) -> tuple[Array, tuple]:
    """x (B, rows, D), the residual stream, a (B, rows, D), a branch  ->  y = x + drop_path(dropout(a)), cache.

    shape: (B, N, D), what dropout's mask is drawn for.
    """
    a, c1 = dropout_forward(a, dropout, rng, shape)
    a, c2 = drop_path_forward(a, drop_path, rng)
    return x + a, (c1, c2)


def add_branch_backward(dy: Array, cache: tuple) -> Array:
    """dy (B, rows, D)  ->  da (B, rows, D). (dx is dy: y = x + a.)"""
    c1, c2 = cache
    return dropout_backward(drop_path_backward(dy, c2), c1)
