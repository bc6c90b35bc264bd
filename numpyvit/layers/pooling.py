"""Pooling: the tokens of an image become one vector, which the head classifies.

Either the first token of each image is taken, the class token (equation 4 of the ViT paper,
whose layer norm is `norm` in vit.py), or the mean of all tokens. Neither needs weights.
"""

from ..backend.arrays import Array, get_xp
from ..params import Buffer

Cache = tuple[int, ...]


def cls_pool_forward(x: Array) -> tuple[Array, Cache]:
    """x (B, N, D)  ->  y (B, D), the first token of each image; cache."""
    return x[:, 0], x.shape


def cls_pool_backward(dy: Array, shape: Cache) -> Array:
    """dy (B, D)  ->  dx (B, N, D): zero for the tokens that were not read."""
    dx = get_xp(dy).zeros(shape, dy.dtype)
    dx[:, 0] = dy
    return dx


def mean_pool_forward(x: Array) -> tuple[Array, Cache]:
    """x (B, N, D)  ->  y (B, D), the mean over the tokens; cache."""
    return x.sum(1) / x.shape[1], x.shape


def mean_pool_backward(dy: Array, shape: Cache) -> Array:
    """dy (B, D)  ->  dx (B, N, D): each token has a share of 1/N in the mean."""
    N = shape[1]
    return get_xp(dy).broadcast_to(dy[:, None] / N, shape)


class ClsPool:
    """Take the class token."""

    def forward(self, params: Buffer, x: Array) -> tuple[Array, Cache]:
        """x (B, N, D)  ->  y (B, D), cache."""
        return cls_pool_forward(x)

    def backward(self, dy: Array, cache: Cache, grads: Buffer) -> Array:
        """dy (B, D)  ->  dx (B, N, D)."""
        return cls_pool_backward(dy, cache)


class MeanPool:
    """Take the mean of all tokens."""

    def forward(self, params: Buffer, x: Array) -> tuple[Array, Cache]:
        """x (B, N, D)  ->  y (B, D), cache."""
        return mean_pool_forward(x)

    def backward(self, dy: Array, cache: Cache, grads: Buffer) -> Array:
        """dy (B, D)  ->  dx (B, N, D)."""
        return mean_pool_backward(dy, cache)
