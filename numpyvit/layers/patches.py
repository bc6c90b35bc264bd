"""Patches: an image is cut into squares, and each square becomes a token (equation 1 of
"An Image is Worth 16x16 Words", Dosovitskiy et al., 2021).

A transformer works on a sequence of vectors. The pixels of each patch, P by P by C of
them, are written as one row x_p, and a linear layer with the same weights for all patches
turns it into a token of D features. In equation 1 these are the terms x_p E, where the
paper's matrix E is our `w` (and not our E, the width of a head).

Cutting is reshape, transpose, reshape. A reshape alone would cut the rows of the image
into runs of pixels, not the image into squares:

    image, 4 x 4, P = 2      reshape (2, 2, 2, 2) names the axes     transpose, reshape (4, 4):
     0  1 |  2  3            [patch row, row in patch,               one row for each patch
     4  5 |  6  7             patch column, column in patch]           0  1  4  5
    ------+------            transpose brings the two patch axes       2  3  6  7
     8  9 | 10 11            together, and the two pixel axes          8  9 12 13
    12 13 | 14 15                                                     10 11 14 15

>>> import numpy as np
>>> patchify(np.arange(16).reshape(1, 4, 4, 1), (2, 2))[0]
array([[ 0,  1,  4,  5],
       [ 2,  3,  6,  7],
       [ 8,  9, 12, 13],
       [10, 11, 14, 15]])

Patches times a matrix is the same as a convolution whose kernel size and stride are both P.
"""

from typing import Any

from ..backend.arrays import Array, get_xp
from ..errors import UserError, check_sizes, shown
from ..params import Buffer, Param, xavier, zeros
from .linear import linear_backward, linear_forward

Size = tuple[int, int]


def patchify(images: Array, patch: Size) -> Array:
    """images (B, H, W, C), patch (P1, P2)  ->  patches (B, H/P1 * W/P2, P1 * P2 * C)."""
    B, H, W, C = images.shape
    p1, p2 = patch
    x = images.reshape(B, H // p1, p1, W // p2, p2, C)
    x = x.transpose(0, 1, 3, 2, 4, 5)  # (B, H/P1, W/P2, P1, P2, C)
    return x.reshape(B, (H // p1) * (W // p2), p1 * p2 * C)


def unpatchify(patches: Array, patch: Size, image: Size) -> Array:
    """patches (B, H/P1 * W/P2, P1 * P2 * C), patch (P1, P2), image (H, W)  ->  (B, H, W, C).

    This is the inverse of patchify and also its backward. Patchify is a permutation: each
    pixel goes to exactly one place, and its gradient comes back from there.
    """
    p1, p2 = patch
    H, W = image
    B, C = patches.shape[0], patches.shape[-1] // (p1 * p2)
    x = patches.reshape(B, H // p1, W // p2, p1, p2, C)
    x = x.transpose(0, 1, 3, 2, 4, 5)  # (B, H/P1, P1, W/P2, P2, C): the same swap undoes itself
    return x.reshape(B, H, W, C)


# The next two are for patch dropout (patch_dropout.py); without it, keep is None.


def select_patches(patches: Array, keep: Array) -> Array:
    """patches (B, n, I), keep (B, m) their indices  ->  (B, m, I)."""
    rows = get_xp(keep).arange(len(keep))[:, None]  # (B, 1), broadcast against keep
    return patches[rows, keep]


def put_back_patches(dy: Array, keep: Array, n: int) -> Array:
    """dy (B, m, I), keep (B, m)  ->  (B, n, I): select_patches backward.

    A patch that was selected gets its gradient; the others had no part in the loss.
    """
    xp = get_xp(dy)
    dx = xp.zeros((dy.shape[0], n, dy.shape[2]), dy.dtype)
    dx[xp.arange(len(keep))[:, None], keep] = dy
    return dx


def check_cut(image: Size, patch: Size) -> None:
    """Raise UserError unless an image of this size can be cut into patches of that size."""
    for name, size in (("image", image), ("patch", patch)):
        if not (isinstance(size, tuple) and len(size) == 2):
            raise UserError(f"{name} is {shown(size)}: it must be (height, width)")
        check_sizes(**{f"{name} height": size[0], f"{name} width": size[1]})
    if image[0] % patch[0] or image[1] % patch[1]:
        raise UserError(f"an image of {image} cannot be cut into patches of {patch}")


class PatchEmbed:
    """Images to tokens: patchify, then a linear layer. Weights: w (P1 * P2 * C, D), b (D,)."""

    def __init__(self, image: Size, patch: Size, channels: int, width: int) -> None:
        check_cut(image, patch)
        check_sizes(channels=channels, width=width)
        self.image, self.patch = image, patch
        self.w = Param((patch[0] * patch[1] * channels, width), xavier, decay=True)
        self.b = Param((width,), zeros)

    def forward(
        self, params: Buffer, images: Array, keep: Array | None = None
    ) -> tuple[Array, tuple]:
        """images (B, H, W, C), keep (B, m) or None for all patches  ->  (B, n or m, D), cache."""
        patches = self.cut(images)  # (B, n, P1 * P2 * C)
        n = patches.shape[1]
        if keep is not None:
            patches = select_patches(patches, keep)  # (B, m, P1 * P2 * C)
        y, c_linear = linear_forward(patches, params[self.w], params[self.b])
        return y, (c_linear, keep, n)

    def backward(self, dy: Array, cache: tuple, grads: Buffer, need_dx: bool = True) -> Array | Any:
        """dy (B, n or m, D)  ->  dimages (B, H, W, C), or None unless need_dx.

        Adds dw, db into grads.
        """
        c_linear, keep, n = cache
        dpatches, dw, db = linear_backward(dy, c_linear, need_dx)
        grads[self.w] += dw
        grads[self.b] += db
        if not need_dx:
            return None
        if keep is not None:
            dpatches = put_back_patches(dpatches, keep, n)
        return self.join(dpatches)

    def cut(self, images: Array) -> Array:
        """Return the patches of the images; overlap.py cuts them in another way."""
        return patchify(images, self.patch)

    def join(self, dpatches: Array) -> Array:
        """Return the gradient of the images: the backward of cut."""
        return unpatchify(dpatches, self.patch, self.image)
