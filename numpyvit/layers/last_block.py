"""The fast twin of the last block of a model with a class token.

The head reads only the class token of the last block's output, so everything after the
attention of this block is computed for that token only, and attention has only one query
(attention_pool.py). This saves 93 % of the multiplications of the block in the preset
mnist. Read block.py first; the values are the same, up to rounding, as those of the first
token there.
"""

from typing import Any

import numpy as np

from ..backend.arrays import Array
from ..config import ViTConfig
from ..params import Buffer
from .attention_pool import ClsAttention
from .block import Block
from .dropout import draw_mask, drop_path_backward, drop_path_forward


class LastBlock(Block):
    """A Block that returns its first token only. Weights as Block."""

    def __init__(self, config: ViTConfig, i: int) -> None:
        super().__init__(config, i)
        c = config
        self.attention = ClsAttention(c.width, c.heads, c.qkv_bias, c.attention_dropout)

    def forward(
        self,
        params: Buffer,
        x: Array,
        rng: np.random.Generator | None = None,
        rotation: Any = None,
    ) -> tuple[Array, tuple]:
        """x (B, N, D)  ->  y (B, 1, D), cache."""
        a, c1 = self.norm1.forward(params, x)
        a, c2 = self.attention.forward(params, a, rng)  # (B, 1, D)
        a, c3 = self.drop(a, x.shape, rng)
        a, c4 = drop_path_forward(a, self.drop_path, rng)
        z = x[:, :1] + a

        a, c5 = self.norm2.forward(params, z)
        a, c6 = self.mlp.forward(params, a)
        a, c7 = self.drop(a, x.shape, rng)
        a, c8 = drop_path_forward(a, self.drop_path, rng)
        y = z + a
        return y, (c1, c2, c3, c4, c5, c6, c7, c8)

    def backward(self, dy: Array, cache: tuple, grads: Buffer) -> Array:
        """dy (B, 1, D)  ->  dx (B, N, D); adds the weights' gradients into grads."""
        c1, c2, c3, c4, c5, c6, c7, c8 = cache
        da = drop_path_backward(dy, c8)
        # Times dropout's mask: on a GPU the cache of dropout_backward has another form.
        da = drop_path_backward(da, c7)
        da = self.mlp.backward(da, c6, grads)
        dz = dy + self.norm2.backward(da, c5, grads)  # y = z + a

        da = drop_path_backward(dz, c4)
        da = drop_path_backward(da, c3)
        da = self.attention.backward(da, c2, grads)  # (B, N, D): every token was attended to
        dx = self.norm1.backward(da, c1, grads)  # a new array, which may be changed
        dx[:, :1] += dz  # z = x[:, :1] + a
        return dx

    def drop(
        self, a: Array, shape: tuple[int, ...], rng: np.random.Generator | None
    ) -> tuple[Array, Array | None]:
        """dropout_forward with the mask that Block draws for all tokens, shape (B, N, D)."""
        if rng is None or self.dropout == 0:
            return a, None
        mask = draw_mask(rng, shape, self.dropout, a)[:, :1]
        return a * mask, mask
