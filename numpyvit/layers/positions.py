"""Positions: the last term of equation 1, z_0 = [x_class; x_1 E; ...] + E_pos.

Attention treats its tokens as a set: if the patches are shuffled, its outputs are shuffled
in the same way, and nothing else changes. The vector that is added here tells the model
where in the image each token comes from.

`keep` and `with_prefix` belong to patch dropout (patch_dropout.py); until then read keep as
None. The vectors can be learned, or given by sines and cosines. Rotary positions are another way
to the same end: they add nothing here, and attention uses the positions (rotary.py).
"""

from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from ..backend.arrays import Array, get_xp, read_only
from ..errors import check_int, check_sizes
from ..params import Buffer, Param, normal_02
from .patches import put_back_patches


def add_positions_forward(x: Array, positions: Array) -> tuple[Array, None]:
    """x (B, N, D), positions (N, D)  ->  y (B, N, D), cache."""
    return x + positions, None


def add_positions_backward(dy: Array, cache: None) -> tuple[Array, Array]:
    """dy (B, N, D)  ->  dx (B, N, D), which is dy itself, and dpositions (N, D).

    All images share the positions, so the gradient is a sum over the batch.
    """
    return dy, dy.sum(0)


@lru_cache(maxsize=8)
def sinusoidal(tokens: int, width: int, xp: ModuleType = np, dtype: Any = np.float64) -> Array:
    """Return fixed positions (N, D) ("Attention Is All You Need", section 3.5).

        pos[t, 2i] = sin(t f_i),    pos[t, 2i+1] = cos(t f_i),    f_i = 10000^(-2i/D)

    for the token at place t. The two features of pair i are a point on a circle, at the
    angle t f_i. Moving on by s tokens adds s f_i to the angle, wherever in the sequence one
    starts: a fixed rotation, which a linear layer can learn. A class token has t = 0, and
    the patches follow, row by row.
    """
    even = np.arange(width) // 2 * 2  # 0 0 2 2 4 4 ...
    angle = np.arange(tokens)[:, None] / 10000.0 ** (even / width)  # (N, D)
    table = np.where(np.arange(width) % 2 == 0, np.sin(angle), np.cos(angle))
    return read_only(table, xp, dtype)


def with_prefix(keep: Array, prefix: int) -> Array:
    """keep (B, m), indices of patches  ->  (B, prefix + m), indices of tokens."""
    xp = get_xp(keep)
    first = xp.broadcast_to(xp.arange(prefix), (len(keep), prefix))
    return xp.concatenate([first, keep + prefix], axis=1)


def check_tokens(tokens: int, width: int, prefix: int) -> None:
    """Raise UserError unless a sequence can have these sizes."""
    check_sizes(tokens=tokens, width=width)
    check_int("prefix", prefix, least=0, most=tokens)


class NoPositions:
    """Nothing is added: the model sees its patches as a set.

    The other kinds inherit from it and override what differs.
    """

    def forward(self, params: Buffer, x: Array, keep: Array | None = None) -> tuple[Array, Any]:
        """x (B, N, D), keep (B, m) or None  ->  y (B, N, D), cache.

        With keep, x has the prefix tokens and only m of the patches: N = prefix + m.
        """
        return x, None

    def backward(self, dy: Array, cache: Any, grads: Buffer) -> Array:
        """dy (B, N, D)  ->  dx (B, N, D); adds the weights' gradients, if any, into grads."""
        return dy

    def rotation(self, x: Array, keep: Array | None = None) -> Array | None:
        """The rotations for RotaryAttention of the tokens x; None except in rotary.py."""
        return None


class LearnedPositions(NoPositions):
    """A learned vector for each place in the sequence. Weight: w (N, D)."""

    def __init__(self, tokens: int, width: int, prefix: int = 0) -> None:
        check_tokens(tokens, width, prefix)
        self.prefix = prefix
        self.w = Param((tokens, width), normal_02)

    def forward(self, params: Buffer, x: Array, keep: Array | None = None) -> tuple[Array, Any]:
        """x (B, N, D), keep (B, m) or None  ->  y (B, N, D), cache."""
        w = params[self.w]
        if keep is None:
            return add_positions_forward(x, w)
        index = with_prefix(keep, self.prefix)  # (B, N): which rows of w the tokens get
        return x + w[index], index

    def backward(self, dy: Array, cache: Any, grads: Buffer) -> Array:
        """dy (B, N, D)  ->  dx (B, N, D); adds dw into grads."""
        # put_back_patches works for tokens, too: rows of w that were not used get 0.
        all_places = dy if cache is None else put_back_patches(dy, cache, self.w.shape[0])
        _, dw = add_positions_backward(all_places, None)
        grads[self.w] += dw
        return dy


class SinusoidalPositions(NoPositions):
    """Fixed vectors by sine and cosine. Backward is that of NoPositions: a constant is added."""

    def __init__(self, tokens: int, width: int, prefix: int = 0) -> None:
        check_tokens(tokens, width, prefix)
        self.tokens, self.width, self.prefix = tokens, width, prefix

    def forward(self, params: Buffer, x: Array, keep: Array | None = None) -> tuple[Array, Any]:
        """x (B, N, D), keep (B, m) or None  ->  y (B, N, D), cache."""
        table = sinusoidal(self.tokens, self.width, get_xp(x), x.dtype)  # (N, D)
        if keep is not None:
            table = table[with_prefix(keep, self.prefix)]  # (B, N, D)
        return x + table, None
