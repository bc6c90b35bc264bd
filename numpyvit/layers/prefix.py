"""Prefix tokens: learned tokens in front of the patches.

The class token is one: z_0 = [x_class; x_1 E; x_2 E; ...] in equation 1 of the ViT paper,
where z_0 is the sequence that enters the first block, ";" stacks tokens, and x_1 E is the
first patch after the embedding. It carries no part of the image. In every block it gathers
information from the patches through attention, and at the end the head reads only this
token. (The alternative, reading the mean of all tokens, is in pooling.py.)

ViTConfig.prefix is the number of tokens that a model has in front of its patches.
"""

from ..backend.arrays import Array, get_xp
from ..errors import check_sizes
from ..params import Buffer, Param, normal_02


def cls_token_forward(x: Array, token: Array) -> tuple[Array, None]:
    """x (B, N-1, D), token (D,)  ->  y (B, N, D), the token before each image's patches; cache."""
    xp = get_xp(x)
    first = xp.broadcast_to(token, (x.shape[0], 1, x.shape[2]))
    return xp.concatenate([first, x], axis=1), None


def cls_token_backward(dy: Array, cache: None) -> tuple[Array, Array]:
    """dy (B, N, D)  ->  dx (B, N-1, D), dtoken (D,).

    The one token is used in B images, so its gradients from all of them are added.
    """
    return dy[:, 1:], dy[:, 0].sum(0)


class ClsToken:
    """The class token. Weight: w (D,)."""

    def __init__(self, width: int) -> None:
        check_sizes(width=width)
        self.w = Param((width,), normal_02)

    def forward(self, params: Buffer, x: Array) -> tuple[Array, None]:
        """x (B, N-1, D)  ->  y (B, N, D), cache."""
        return cls_token_forward(x, params[self.w])

    def backward(self, dy: Array, cache: None, grads: Buffer) -> Array:
        """dy (B, N, D)  ->  dx (B, N-1, D); adds dw into grads."""
        dx, dw = cls_token_backward(dy, cache)
        grads[self.w] += dw
        return dx


class NoPrefix:
    """No prefix tokens: the sequence consists of the patches."""

    def forward(self, params: Buffer, x: Array) -> tuple[Array, None]:
        """x (B, N, D)  ->  y (B, N, D), which is x itself, cache."""
        return x, None

    def backward(self, dy: Array, cache: None, grads: Buffer) -> Array:
        """dy (B, N, D)  ->  dx (B, N, D), which is dy itself."""
        return dy
