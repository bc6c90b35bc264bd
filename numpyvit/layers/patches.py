"""Patches: cut an image into squares and make each a token (equation 1 of "An Image is Worth 16x16 Words").

Cutting is reshape, transpose, reshape. A reshape alone would cut runs of pixels across the whole image row:

    image, 4 x 4, P = 2      reshape (2, 2, 2, 2) names the axes       transpose, reshape (4, 4): one row a patch
     0  1 |  2  3            [patch row, row in patch,                    0  1  4  5
     4  5 |  6  7             patch column, column in patch]              2  3  6  7
    ------+------            transpose brings the two patch axes          8  9 12 13
     8  9 | 10 11            together, and the two pixel axes            10 11 14 15
    12 13 | 14 15

Patches times a matrix is a convolution whose kernel and stride are both the patch: each patch is seen once, by itself. With
an overlap each patch also sees so many pixels of its neighbours, on each side: the kernel grows and the stride stays. (To
that end Lee et al., 2021, "Vision Transformer for Small-Size Datasets", section 3.1, join shifted images to the patches.)
"""

from typing import Any

from ..backend.arrays import Array, get_xp
from ..params import Buffer, Param, xavier, zeros
from .linear import Cache, linear_backward, linear_forward

Size = tuple[int, int]


def patchify(images: Array, patch: Size) -> Array:
    """images (B, H, W, C), patch (P1, P2)  ->  patches (B, H/P1 * W/P2, P1 * P2 * C), the pixels of each row by row."""
    B, H, W, C = images.shape
    p1, p2 = patch
    x = images.reshape(B, H // p1, p1, W // p2, p2, C)
    x = x.transpose(0, 1, 3, 2, 4, 5)  # (B, H/P1, W/P2, P1, P2, C)
    return x.reshape(B, (H // p1) * (W // p2), p1 * p2 * C)


def unpatchify(patches: Array, patch: Size, image: Size) -> Array:
    """patches (B, H/P1 * W/P2, P1 * P2 * C), patch (P1, P2), image (H, W)  ->  images (B, H, W, C).

    The inverse of patchify, and so also its backward: each pixel went to just one place, and its gradient comes back
    from there. (A permutation's transpose is its inverse.)
    """
    (p1, p2), (H, W) = patch, image
    B, C = patches.shape[0], patches.shape[-1] // (p1 * p2)
    x = patches.reshape(B, H // p1, W // p2, p1, p2, C)
    x = x.transpose(0, 1, 3, 2, 4, 5)  # swapping the middle pair undoes itself
    return x.reshape(B, H, W, C)


def overlapping_patchify(images: Array, patch: Size, overlap: int) -> Array:
    """images (B, H, W, C)  ->  patches (B, H/P1 * W/P2, S1 * S2 * C): windows of S = P + 2 overlap pixels, at steps of P,
    with zeros around the image."""
    xp, (p1, p2), o = get_xp(images), patch, overlap
    padded = xp.pad(images, ((0, 0), (o, o), (o, o), (0, 0)))
    windows = xp.lib.stride_tricks.sliding_window_view(padded, (p1 + 2 * o, p2 + 2 * o), (1, 2))[
        :, ::p1, ::p2
    ]
    B, rows, columns = windows.shape[:3]  # (B, H/P1, W/P2, C, S1, S2)
    return windows.transpose(0, 1, 2, 4, 5, 3).reshape(
        B, rows * columns, (p1 + 2 * o) * (p2 + 2 * o) * images.shape[3]
    )


def overlapping_unpatchify(patches: Array, patch: Size, overlap: int, image: Size) -> Array:
    """patches (B, H/P1 * W/P2, S1 * S2 * C)  ->  images (B, H, W, C), the backward of overlapping_patchify: a pixel was
    copied to several windows, so its gradients from all of them add up. What fell on the zeros around is dropped."""
    (p1, p2), (H, W), o = patch, image, overlap
    S1, S2 = p1 + 2 * o, p2 + 2 * o
    B, C = patches.shape[0], patches.shape[-1] // (S1 * S2)
    windows = patches.reshape(B, H // p1, W // p2, S1, S2, C)
    padded = get_xp(patches).zeros((B, H + 2 * o, W + 2 * o, C), patches.dtype)
    for i in range(S1):
        for j in range(S2):  # pixel (i, j) of every window
            padded[:, i : i + H : p1, j : j + W : p2] += windows[:, :, :, i, j]
    return padded[:, o : o + H, o : o + W]


class PatchEmbed:
    """Images to tokens: patchify, then one linear layer. Weights: w (S1 * S2 * C, D), b (D,), with S = P + 2 overlap."""

    def __init__(
        self, image: Size, patch: Size, channels: int, width: int, overlap: int = 0
    ) -> None:
        self.image, self.patch, self.overlap = image, patch, overlap
        self.w = Param(
            ((patch[0] + 2 * overlap) * (patch[1] + 2 * overlap) * channels, width),
            xavier,
            decay=True,
        )
        self.b = Param((width,), zeros)

    def forward(self, params: Buffer, images: Array) -> tuple[Array, Cache]:
        """images (B, H, W, C)  ->  tokens (B, H/P1 * W/P2, D), cache."""
        patches = (
            overlapping_patchify(images, self.patch, self.overlap)
            if self.overlap
            else patchify(images, self.patch)
        )
        return linear_forward(patches, params[self.w], params[self.b])

    def backward(self, dy: Array, cache: Cache, grads: Buffer, need_dx: bool = True) -> Array | Any:
        """dy (B, H/P1 * W/P2, D)  ->  dimages (B, H, W, C), None unless need_dx; adds dw, db into grads."""
        dpatches, dw, db = linear_backward(dy, cache, need_dx)
        grads[self.w] += dw
        grads[self.b] += db
        if not need_dx:
            return None
        if self.overlap:
            return overlapping_unpatchify(dpatches, self.patch, self.overlap, self.image)
        return unpatchify(dpatches, self.patch, self.image)
