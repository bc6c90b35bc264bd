"""Rotary positions (Su et al., 2021, "RoFormer", section 3.2).

Instead of adding a position to each token once, attention rotates every query and every
key by angles that grow with the position of its token. A score then depends on the
positions of two tokens only through their difference: how far apart the tokens are, and in
which direction.

To see why, take two features (a, b) of a vector as a point in the plane. Rotate those of a
query at position s by the angle s f, and those of a key at position t by t f. A dot product
depends on the lengths of the two points and on the angle between them. Rotations leave the
lengths as they are and change the angle by (s - t) f, so only s - t matters. Each pair of
features has its own frequency f, from fast to slow.

In an image a position is a row and a column. Half of the pairs rotate with the row and
half with the column ("axial": Heo et al., 2024, "Rotary Position Embedding for Vision
Transformer", section 3.2). Nothing here is learned.

>>> import numpy as np
>>> q, k = np.array([1.0, 2.0, 0.5, -1.0]), np.array([0.3, -1.0, 2.0, 0.7])
>>> rotation = rotation_table(grid=(1, 6), head_width=4)  # six patches in a row, E = 4
>>> def score(s, t):  # of a query at s and a key at t
...     qs, _ = rotary_forward(q[None], rotation[s : s + 1])
...     kt, _ = rotary_forward(k[None], rotation[t : t + 1])
...     return (qs @ kt.T).item()
>>> round(score(0, 2), 12) == round(score(3, 5), 12)  # the same distance, the same score
True
"""

from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from ..backend.arrays import Array, get_xp, read_only
from ..backend.ops import fast_twin
from ..errors import UserError, check_int, check_sizes, shown
from ..params import Buffer
from .attention import (
    Attention,
    attention_backward,
    attention_forward,
    attention_mask,
    merge_heads,
    split_heads,
)
from .positions import NoPositions, with_prefix
from .rotary_fast import rotary_fast_backward, rotary_fast_forward

# Frequencies go from 1 down towards 1 / BASE (Heo et al. use 100; language models, 10,000).
BASE = 100.0


@lru_cache(maxsize=8)
def rotation_table(
    grid: tuple[int, int],
    head_width: int,
    prefix: int = 0,
    xp: ModuleType = np,
    dtype: Any = np.float64,
) -> Array:
    """Return the rotations of all tokens, (N, E/2, 2): cosine and sine for each pair.

    grid: rows and columns of patches; head_width: E, a multiple of 4. The `prefix`
    tokens before the patches have no position in the image: their angle is 0.
    """
    f = BASE ** -(np.arange(head_width // 4) / (head_width // 4))  # (E/4,)
    row, column = np.indices(grid).reshape(2, -1, 1)  # (patches, 1) each
    angle = np.concatenate([row * f, column * f], axis=1)  # (patches, E/2)
    angle = np.concatenate([np.zeros((prefix, head_width // 2)), angle])  # (N, E/2)
    return read_only(np.stack([np.cos(angle), np.sin(angle)], axis=-1), xp, dtype)


@fast_twin(rotary_fast_forward)
def rotary_forward(x: Array, rotation: Array) -> tuple[Array, Array]:
    """x (..., N, E), rotation (N, E/2, 2)  ->  y (..., N, E), cache.

    Each pair (a, b) of features is rotated: (a cos - b sin, a sin + b cos). rotation may
    have leading axes that broadcast against those of x.
    """
    cos, sin = rotation[..., 0], rotation[..., 1]
    a, b = x[..., 0::2], x[..., 1::2]
    y = get_xp(x).empty_like(x)
    y[..., 0::2] = a * cos - b * sin
    y[..., 1::2] = a * sin + b * cos
    return y, rotation


@fast_twin(rotary_fast_backward)
def rotary_backward(dy: Array, rotation: Array) -> Array:
    """dy (..., N, E), rotation from forward  ->  dx (..., N, E).

    y = R x with an orthogonal matrix R, so dx = Rᵀ dy = R⁻¹ dy: the rotation by the opposite
    angle.
    """
    cos, sin = rotation[..., 0], rotation[..., 1]
    da, db = dy[..., 0::2], dy[..., 1::2]
    dx = get_xp(dy).empty_like(dy)
    dx[..., 0::2] = da * cos + db * sin
    dx[..., 1::2] = db * cos - da * sin
    return dx


class RotaryPositions(NoPositions):
    """The positions as rotations, to be passed to RotaryAttention; nothing is added to x."""

    def __init__(self, grid: tuple[int, int], head_width: int, prefix: int = 0) -> None:
        if not (isinstance(grid, tuple) and len(grid) == 2):
            raise UserError(f"grid is {shown(grid)}: it must be (rows, columns)")
        check_sizes(rows=grid[0], columns=grid[1], head_width=head_width)
        if head_width % 4:
            raise UserError(f"head_width is {head_width}: it must be a multiple of 4")
        check_int("prefix", prefix)
        self.grid, self.head_width, self.prefix = grid, head_width, prefix

    def rotation(self, x: Array, keep: Array | None = None) -> Array:
        """x (B, N, D), keep (B, m) or None  ->  (N, E/2, 2), or with keep (B, 1, N, E/2, 2).

        The array is on x's device and in x's precision, but at least in float32.
        """
        dtype = f"f{max(x.itemsize, 4)}"
        table = rotation_table(self.grid, self.head_width, self.prefix, get_xp(x), dtype)
        if keep is None:
            return table
        return table[with_prefix(keep, self.prefix)][:, None]  # the same for all heads


class RotaryAttention(Attention):
    """Attention whose queries and keys are rotated by their positions. Weights as Attention."""

    def forward(
        self,
        params: Buffer,
        x: Array,
        rng: np.random.Generator | None = None,
        rotation: Any = None,
    ) -> tuple[Array, tuple]:
        """x (B, N, D), rotation (N, E/2, 2) or (B, 1, N, E/2, 2)  ->  y (B, N, D), cache."""
        qkv, c_qkv = self.qkv.forward(params, x)  # (B, N, 3D)
        qkv = split_heads(qkv, 3, self.heads)  # (3, B, h, N, E)
        (q, k), c_rotary = rotary_forward(qkv[:2], rotation)
        mask = attention_mask(rng, self.dropout, q)
        o, c_attention = attention_forward(q, k, qkv[2], mask)  # (B, h, N, E)
        y, c_proj = self.proj.forward(params, merge_heads(o[None]))  # (B, N, D)
        return y, (c_qkv, c_rotary, c_attention, c_proj)

    def backward(self, dy: Array, cache: tuple, grads: Buffer) -> Array:
        """dy (B, N, D)  ->  dx (B, N, D); adds the weights' gradients into grads."""
        c_qkv, c_rotary, c_attention, c_proj = cache
        do = self.proj.backward(dy, c_proj, grads)  # (B, N, D)
        do = split_heads(do, 1, self.heads)[0]  # (B, h, N, E)
        dqkv = attention_backward(do, c_attention)  # (3, B, h, N, E)
        dqkv[:2] = rotary_backward(dqkv[:2], c_rotary)
        return self.qkv.backward(merge_heads(dqkv), c_qkv, grads)
