"""The Vision Transformer of "An Image is Worth 16x16 Words" (Dosovitskiy et al., 2021).

The whole model, with the shapes of the preset "mnist" (28x28 images, patches of 7x7, D = 64):

    images     (B, 28, 28, 1)
    embed      (B, 16, 64)      16 patches of 49 pixels, each mapped to 64 features      (1)
    prefix     (B, 17, 64)      the class token in front                                 (1)
    positions  (B, 17, 64)      a learned vector added for each place                    (1)
    blocks     (B, 17, 64)      three times attention and MLP                        (2), (3)
    norm       (B, 17, 64)                                                           (4)
    pool       (B, 64)          the class token                                          (4)
    head       (B, 10)          a score for each class (logits)

(1) to (4) are the numbers of the equations in the paper. (Of the last block's output only the
class token is read. By default the last block therefore computes only this token, and the
rows after it have (B, 1, 64): see last_block.py. The table shows shortcuts=False.)
"""

from typing import Any

import numpy as np

from .backend.arrays import Array
from .config import ViTConfig
from .errors import check_bool, check_type
from .layers.block import Block
from .layers.dropout import dropout_backward, dropout_forward
from .layers.head import Head
from .layers.last_block import LastBlock
from .layers.layernorm import LayerNorm
from .layers.overlap import OverlappingPatchEmbed
from .layers.patches import PatchEmbed
from .layers.pooling import ClsPool, MeanPool
from .layers.positions import LearnedPositions, NoPositions, SinusoidalPositions
from .layers.prefix import ClsToken, NoPrefix
from .layers.rotary import RotaryPositions
from .params import Buffer, Param, init, params_of
from .vit_checks import check_inputs, check_memory, check_size

__all__ = ["ViT", "ViTConfig"]


class ViT:
    """The structure of a model; `init` makes its weights.

    shortcuts=False makes the last block compute all tokens, even if only the class token is
    read. The results are the same up to rounding.
    """

    def __init__(self, config: ViTConfig, shortcuts: bool = True) -> None:
        check_type("config", config, ViTConfig, "a ViTConfig, such as presets['mnist']")
        check_bool("shortcuts", shortcuts)
        c = self.config = config
        self.embed = make_embed(c)
        self.prefix = ClsToken(c.width) if c.pooling == "cls" else NoPrefix()
        self.positions = make_positions(c)
        check_size(c, self.embed, self.positions)
        self.blocks = [Block(c, i) for i in range(c.depth)]
        # LastBlock avoids computing keys, but rotary positions rotate them.
        if shortcuts and c.pooling == "cls" and c.positions != "rotary":
            self.blocks[-1] = LastBlock(c, c.depth - 1)
        self.norm = LayerNorm(c.width, c.norm_eps)
        self.pool = ClsPool() if c.pooling == "cls" else MeanPool()
        self.head = Head(c.width, c.classes, c.head_hidden)

    def __repr__(self) -> str:
        return f"<ViT of {self.count():,} weights, {self.config}>"

    @property
    def params(self) -> dict[str, Param]:
        """The declarations of the weights, {"blocks.0.attention.qkv.w": Param, ...}.

        The argument `params` of forward has the values. If you exchange layers of the model,
        make new weights with init.
        """
        return params_of(self)

    def init(self, seed: int = 0, dtype: Any = np.float32) -> Buffer:
        """Draw initial weights, which depend only on the seed.

        Raises UserError if this machine's memory cannot hold them.
        """
        check_memory(self.count(), dtype)
        return init(self, seed, dtype)

    def count(self) -> int:
        """Return the number of weights."""
        return sum(p.size for p in self.params.values())

    def forward(
        self,
        params: Buffer,
        images: Array,
        rng: np.random.Generator | None = None,
        keep: Array | None = None,
        need_cache: bool = True,
    ) -> tuple[Array, tuple | Any]:
        """images (B, H, W, C), normalised, of the weights' dtype  ->  logits (B, K), cache.

        rng draws dropout's masks; without it nothing is dropped. keep (B, m): the indices
        of the patches that take part, None for all of them (patch_dropout.py).
        need_cache=False saves memory in evaluation: there is no backward afterwards.
        Raises UserError for images that do not fit the model.
        """
        check_inputs(self.config, params, images, rng, keep)
        x, c_embed = self.embed.forward(params, images, keep)  # (B, n, D)       (1)
        x, c_prefix = self.prefix.forward(params, x)  # (B, N, D)                (1)
        x, c_positions = self.positions.forward(params, x, keep)  # (B, N, D)    (1)
        x, c_dropout = dropout_forward(x, self.config.dropout, rng)
        rotation = self.positions.rotation(x, keep)  # None, except for rotary positions
        c_blocks = []
        for block in self.blocks:
            x, c_block = block.forward(params, x, rng, rotation)  # (B, N, D)    (2), (3)
            c_blocks.append(c_block if need_cache else None)
            del c_block  # if it is not needed, free its arrays before the next block
        x, c_norm = self.norm.forward(params, x)  # (B, N, D), or (B, 1, D) after a LastBlock
        x, c_pool = self.pool.forward(params, x)  # (B, D)                       (4)
        logits, c_head = self.head.forward(params, x)  # (B, K)
        if not need_cache:
            return logits, None
        return logits, (
            c_embed,
            c_prefix,
            c_positions,
            c_dropout,
            c_blocks,
            c_norm,
            c_pool,
            c_head,
        )

    def backward(
        self, dlogits: Array, cache: tuple, grads: Buffer, need_dx: bool = False
    ) -> Array | Any:
        """dlogits (B, K)  ->  dimages (B, H, W, C) if need_dx, otherwise None.

        Adds the weights' gradients into grads. Forward, read from bottom to top.
        """
        c_embed, c_prefix, c_positions, c_dropout, c_blocks, c_norm, c_pool, c_head = cache
        dx = self.head.backward(dlogits, c_head, grads)  # (B, D)
        dx = self.pool.backward(dx, c_pool, grads)  # (B, N, D), or (B, 1, D)
        dx = self.norm.backward(dx, c_norm, grads)
        for block, c_block in zip(reversed(self.blocks), reversed(c_blocks), strict=True):
            dx = block.backward(dx, c_block, grads)
        dx = dropout_backward(dx, c_dropout)
        dx = self.positions.backward(dx, c_positions, grads)
        dx = self.prefix.backward(dx, c_prefix, grads)  # (B, n, D)
        return self.embed.backward(dx, c_embed, grads, need_dx)


def make_embed(c: ViTConfig) -> PatchEmbed:
    """Return the layer that turns images into tokens."""
    if c.patch_overlap:
        return OverlappingPatchEmbed(c.image, c.patch, c.channels, c.width, c.patch_overlap)
    return PatchEmbed(c.image, c.patch, c.channels, c.width)


def make_positions(c: ViTConfig) -> NoPositions:
    """Return the layer that gives the tokens their positions."""
    if c.positions == "learned":
        return LearnedPositions(c.tokens, c.width, c.prefix)
    if c.positions == "sinusoidal":
        return SinusoidalPositions(c.tokens, c.width, c.prefix)
    if c.positions == "rotary":
        return RotaryPositions(c.grid, c.width // c.heads, c.prefix)
    return NoPositions()
