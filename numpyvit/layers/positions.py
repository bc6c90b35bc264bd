"""The class token and the positions: the rest of equation 1, in the paper's letters z_0 = [x_class; x_1 E; ...] + E_pos.

Attention treats its tokens as a set. What tells a patch in the corner from one in the middle is what is added here.
"""

from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from ..backend.arrays import Array, fixed, get_xp
from ..params import Buffer, Param, normal_02


def cls_token_forward(x: Array, token: Array) -> tuple[Array, None]:
    """x (B, N-1, D), token (D,)  ->  y (B, N, D), the token in front of every image's patches; cache."""
    xp = get_xp(x)
    first = xp.broadcast_to(token, (x.shape[0], 1, x.shape[2]))
    return xp.concatenate([first, x], axis=1), None


def cls_token_backward(dy: Array, cache: None) -> tuple[Array, Array]:
    """dy (B, N, D)  ->  dx (B, N-1, D), dtoken (D,): the one token stood in B places, so its gradients add up."""
    return dy[:, 1:], dy[:, 0].sum(0)


def add_positions_forward(x: Array, positions: Array) -> tuple[Array, None]:
    """x (B, N, D), positions (N, D)  ->  y (B, N, D), cache."""
    return x + positions, None


def add_positions_backward(dy: Array, cache: None) -> tuple[Array, Array]:
    """dy (B, N, D)  ->  dx (B, N, D), which is dy itself, and dpositions (N, D), summed over the images that shared them."""
    return dy, dy.sum(0)


@lru_cache(maxsize=8)
def sinusoidal(n: int, width: int, xp: ModuleType = np, dtype: Any = np.float64) -> Array:
    """Fixed positions (N, D), by section 3.5 of "Attention Is All You Need" (the sequence read as one dimension):

        pos[n, 2i] = sin(n / 10000^(2i / D)),    pos[n, 2i+1] = cos(n / 10000^(2i / D))

    Each pair of features turns at a speed of its own, so that a shift by m tokens is the same rotation everywhere.
    """
    pair = np.arange(width) // 2 * 2  # 0 0 2 2 4 4 ...
    angle = np.arange(n)[:, None] / 10000.0 ** (pair / width)  # (N, D)
    return fixed(np.where(np.arange(width) % 2 == 0, np.sin(angle), np.cos(angle)), xp, dtype)


class ClsToken:
    """One learned token in front of the patches. What it gathers in the blocks is what the head reads. Weight: w (D,)."""

    def __init__(self, width: int) -> None:
        self.w = Param((width,), normal_02)

    def forward(self, params: Buffer, x: Array) -> tuple[Array, None]:
        """x (B, N-1, D)  ->  y (B, N, D), cache."""
        return cls_token_forward(x, params[self.w])

    def backward(self, dy: Array, cache: None, grads: Buffer) -> Array:
        """dy (B, N, D)  ->  dx (B, N-1, D); adds dw into grads."""
        dx, dw = cls_token_backward(dy, cache)
        grads[self.w] += dw
        return dx


class Positions:
    """Learned positions: a vector for each place in the sequence. Weight: w (N, D)."""

    def __init__(self, n: int, width: int) -> None:
        self.w = Param((n, width), normal_02)

    def forward(self, params: Buffer, x: Array) -> tuple[Array, None]:
        """x (B, N, D)  ->  y (B, N, D), cache."""
        return add_positions_forward(x, params[self.w])

    def backward(self, dy: Array, cache: None, grads: Buffer) -> Array:
        """dy (B, N, D)  ->  dx (B, N, D); adds dw into grads."""
        dx, dw = add_positions_backward(dy, cache)
        grads[self.w] += dw
        return dx
