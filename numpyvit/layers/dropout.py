"""Dropout (Srivastava et al., 2014) and drop path (Huang et al., 2016).

In training, dropout sets random features to 0, so that no feature can rely on another one
being there; it works like averaging many networks and reduces overfitting. Drop path sets
a whole branch of a block to 0 for some images of the batch, which then pass through a
network with one branch less.

What is kept is multiplied by 1 / (1 - p). The expected value is then the same with and
without dropout, and evaluation needs no correction: without a random generator (rng=None)
nothing is dropped.
"""

import numpy as np

from ..backend.arrays import Array, get_xp
from ..backend.ops import on_gpu


@on_gpu
def dropout_forward(
    x: Array, p: float, rng: np.random.Generator | None
) -> tuple[Array, Array | None]:
    """x (...)  ->  y (...), cache.

    y = mask x, where mask is 0 with probability p and 1 / (1 - p) otherwise. If nothing is
    dropped (p = 0 or rng=None), y is x itself and the cache is None.
    """
    if rng is None or p == 0:
        return x, None
    mask = draw_mask(rng, x.shape, p, x)
    return x * mask, mask


@on_gpu
def dropout_backward(dy: Array, mask: Array | None) -> Array:
    """dy (...)  ->  dx (...).    y = mask x element by element, so dx = mask dy."""
    return dy if mask is None else dy * mask


def drop_path_forward(
    x: Array, p: float, rng: np.random.Generator | None
) -> tuple[Array, Array | None]:
    """x (B, N, D)  ->  y (B, N, D), cache: as dropout, with one mask value for each image."""
    if rng is None or p == 0:
        return x, None
    mask = draw_mask(rng, (x.shape[0], 1, 1), p, x)
    return x * mask, mask


def drop_path_backward(dy: Array, mask: Array | None) -> Array:
    """dy (B, N, D)  ->  dx (B, N, D).    y = mask x, so dx = mask dy."""
    return dy if mask is None else dy * mask


def draw_mask(rng: np.random.Generator, shape: tuple[int, ...], p: float, like: Array) -> Array:
    """Draw a mask of `like`'s dtype and device: 0 with probability p, otherwise 1 / (1 - p).

    An element is dropped if a random 16-bit integer is below 65536 p. This is several times
    as fast as drawing floats and gives the same mask for every dtype. p is thereby rounded
    to a multiple of 1 / 65536, and the factor belongs to the rounded p.
    """
    threshold = round(p * 65536)
    size = int(np.prod(shape, dtype=np.int64))
    words = rng.integers(0, 2**64, (size + 3) // 4, np.uint64, endpoint=False)
    bits = words.view(np.uint16)[:size]  # four of them in each word
    kept = get_xp(like).asarray(bits >= threshold).reshape(shape)
    return kept.astype(like.dtype) * (65536 / (65536 - threshold))
