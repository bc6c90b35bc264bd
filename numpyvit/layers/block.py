"""The encoder block (equations 2 and 3 of the ViT paper):

    x = x + attention(norm1(x))            (2)
    x = x + mlp(norm2(x))                  (3)

The path from x to x that only additions touch is called the residual stream; attention and
MLP are branches that read it and add to it. If both branches gave zero, a block would pass
x on unchanged: a branch has to learn only what to add. In the backward pass the gradient of
the stream reaches every block directly, because at each addition it goes to both sides:

    y = x + f(x)    =>    dx = dy + (dy through the backward of f).

The norm stands inside the branch, before attention and MLP ("pre-norm"). In the original
transformer it stood after the addition, and deep models were hard to train.
"""

from typing import Any

import numpy as np

from ..backend.arrays import Array
from ..config import ViTConfig
from ..errors import check_int, check_type
from ..params import Buffer
from .attention import Attention
from .dropout import (
    drop_path_backward,
    drop_path_forward,
    dropout_backward,
    dropout_forward,
)
from .layernorm import LayerNorm
from .mlp import MLP
from .rotary import RotaryAttention


class Block:
    """norm1, attention, norm2, mlp.

    Each branch ends in dropout and drop path (dropout.py), which act only in training; in
    evaluation both return their input. LastBlock (last_block.py) repeats this computation
    for one token: a change here belongs there, too.
    """

    def __init__(self, config: ViTConfig, i: int) -> None:
        """Block i, from 0, of a model; drop path increases linearly with the depth."""
        check_type("config", config, ViTConfig, "a ViTConfig")
        check_int("i", i, least=0, most=config.depth - 1)
        c = config
        attention = RotaryAttention if c.positions == "rotary" else Attention
        self.norm1 = LayerNorm(c.width, c.norm_eps)
        self.attention = attention(c.width, c.heads, c.qkv_bias, c.attention_dropout)
        self.norm2 = LayerNorm(c.width, c.norm_eps)
        self.mlp = MLP(c.width, c.mlp_width, c.gelu)
        self.dropout = c.dropout
        self.drop_path = c.drop_path * (i + 1) / c.depth

    def forward(
        self,
        params: Buffer,
        x: Array,
        rng: np.random.Generator | None = None,
        rotation: Any = None,
    ) -> tuple[Array, tuple]:
        """x (B, N, D)  ->  y (B, N, D), cache.

        rng draws dropout's masks; without it nothing is dropped. rotation: the tokens'
        positions, if they are rotary, or None.
        """
        a, c1 = self.norm1.forward(params, x)
        a, c2 = self.attention.forward(params, a, rng, rotation)
        a, c3 = dropout_forward(a, self.dropout, rng)
        a, c4 = drop_path_forward(a, self.drop_path, rng)
        x = x + a

        a, c5 = self.norm2.forward(params, x)
        a, c6 = self.mlp.forward(params, a)
        a, c7 = dropout_forward(a, self.dropout, rng)
        a, c8 = drop_path_forward(a, self.drop_path, rng)
        x = x + a
        return x, (c1, c2, c3, c4, c5, c6, c7, c8)

    def backward(self, dy: Array, cache: tuple, grads: Buffer) -> Array:
        """dy (B, N, D)  ->  dx (B, N, D); adds the weights' gradients into grads.

        Forward, read from bottom to top.
        """
        c1, c2, c3, c4, c5, c6, c7, c8 = cache
        da = drop_path_backward(dy, c8)
        da = dropout_backward(da, c7)
        da = self.mlp.backward(da, c6, grads)
        da = self.norm2.backward(da, c5, grads)
        dx = dy + da  # x = x + a: dy reaches both sides

        da = drop_path_backward(dx, c4)
        da = dropout_backward(da, c3)
        da = self.attention.backward(da, c2, grads)
        da = self.norm1.backward(da, c1, grads)
        return dx + da
