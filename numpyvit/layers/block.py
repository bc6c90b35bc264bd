"""The encoder block, pre-norm (equations 2 and 3 of the ViT paper):

    z'  = z  + attention(norm(z))            (2)
    out = z' + mlp(norm(z'))                 (3)

What runs straight through from z to out is the residual stream. Each branch reads it through a norm and adds to it, so
the gradient always has one path back that nothing scales.
"""

from typing import Any

import numpy as np

from ..backend.arrays import Array, fused
from ..params import Buffer
from .attention import Attention
from .dropout import add_branch_backward, add_branch_forward
from .layernorm import LayerNorm
from .mlp import MLP


class Block:
    """norm1, attention, norm2, mlp. Each branch ends in dropout (of elements) and drop path (of the whole branch)."""

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_width: int,
        *,
        gelu: str = "tanh",
        qkv_bias: bool = True,
        eps: float = 1e-6,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        self.norm1 = LayerNorm(width, eps)
        self.attention = Attention(width, heads, qkv_bias, attention_dropout)
        self.norm2 = LayerNorm(width, eps)
        self.mlp = MLP(width, mlp_width, gelu)
        self.dropout, self.drop_path = dropout, drop_path

    def forward(
        self,
        params: Buffer,
        x: Array,
        rng: np.random.Generator | None = None,
        rows: int | None = None,
        taps: dict[str, Any] | None = None,
        turn: Array | None = None,
    ) -> tuple[Array, tuple]:
        """x (B, N, D)  ->  y (B, rows or N, D), cache. taps, where given, receives "attention" and "output". turn: the
        tokens' places, for rotary.py, or None."""
        a, c1 = self.norm1.forward(params, x)
        a, c2 = self.attention.forward(
            params, a, rng, rows, taps, turn
        )  # (B, rows, D), of all N keys and values
        stream = x[:, :rows]  # rows=None: all of them
        z, c3 = fused(add_branch_forward, x)(
            stream, a, self.dropout, self.drop_path, rng, x.shape
        )  # z = stream + a

        a, c4 = self.norm2.forward(params, z)
        a, c5 = self.mlp.forward(params, a)
        y, c6 = fused(add_branch_forward, x)(
            z, a, self.dropout, self.drop_path, rng, x.shape
        )  # y = z + a
        if taps is not None:
            taps["output"] = y
        return y, (c1, c2, c3, c4, c5, c6)

    def backward(self, dy: Array, cache: tuple, grads: Buffer) -> Array:
        """dy (B, rows or N, D)  ->  dx (B, N, D); adds the weights' gradients into grads. Forward, read upwards."""
        c1, c2, c3, c4, c5, c6 = cache
        da = fused(add_branch_backward, dy)(dy, c6)
        da = self.mlp.backward(da, c5, grads)
        dz = dy + self.norm2.backward(da, c4, grads)  # y = z + a: dy goes both ways

        da = fused(add_branch_backward, dz)(dz, c3)
        da = self.attention.backward(da, c2, grads)  # (B, N, D): keys and values felt every token
        dx = self.norm1.backward(da, c1, grads)  # a new array, so += below is safe
        dx[:, : dz.shape[1]] += dz  # stream = x[:, :rows]
        return dx
