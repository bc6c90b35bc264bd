"""Patches that overlap: each patch also sees some pixels of its neighbours.

In terms of convolution, the kernel grows by `overlap` pixels on each side and the stride
stays at P. (To the same end, Lee et al., 2021, "Vision Transformer for Small-Size
Datasets", section 3.1, stack shifted copies of the image.) In this repository only models
for Fashion-MNIST use it. Read patches.py first.
"""

from typing import Any

from ..backend.arrays import Array, get_xp
from ..params import Buffer, Param, xavier, zeros
from .linear import linear_backward, linear_forward
from .patches import Size, put_back_patches, select_patches


def overlapping_patchify(images: Array, patch: Size, overlap: int) -> Array:
    """images (B, H, W, C)  ->  patches (B, H/P1 * W/P2, S1 * S2 * C).

    Windows of S = P + 2 * overlap pixels, P pixels apart; outside the image there are zeros.
    """
    xp = get_xp(images)
    p1, p2 = patch
    o = overlap
    padded = xp.pad(images, ((0, 0), (o, o), (o, o), (0, 0)))
    window = (p1 + 2 * o, p2 + 2 * o)
    windows = xp.lib.stride_tricks.sliding_window_view(padded, window, (1, 2))[:, ::p1, ::p2]
    B, rows, columns, C, s1, s2 = windows.shape  # rows = H/P1, columns = W/P2
    x = windows.transpose(0, 1, 2, 4, 5, 3)  # (B, H/P1, W/P2, S1, S2, C)
    return x.reshape(B, rows * columns, s1 * s2 * C)


def overlapping_unpatchify(patches: Array, patch: Size, overlap: int, image: Size) -> Array:
    """patches (B, H/P1 * W/P2, S1 * S2 * C)  ->  images (B, H, W, C): the backward.

    A pixel was copied into several windows, so its gradients from all of them are added.
    What belongs to the zeros outside the image is dropped.
    """
    p1, p2 = patch
    H, W = image
    o = overlap
    s1, s2 = p1 + 2 * o, p2 + 2 * o
    B, C = patches.shape[0], patches.shape[-1] // (s1 * s2)
    windows = patches.reshape(B, H // p1, W // p2, s1, s2, C)
    padded = get_xp(patches).zeros((B, H + 2 * o, W + 2 * o, C), patches.dtype)
    for i in range(s1):
        for j in range(s2):
            # Pixel (i, j) of all windows: every p1-th row from i, every p2-th column from j.
            padded[:, i : i + H : p1, j : j + W : p2] += windows[:, :, :, i, j]
    return padded[:, o : o + H, o : o + W]


class OverlappingPatchEmbed:
    """As PatchEmbed, for windows of S = P + 2 * overlap. Weights: w (S1 * S2 * C, D), b (D,)."""

    def __init__(self, image: Size, patch: Size, channels: int, width: int, overlap: int) -> None:
        self.image, self.patch, self.overlap = image, patch, overlap
        s1, s2 = patch[0] + 2 * overlap, patch[1] + 2 * overlap
        self.w = Param((s1 * s2 * channels, width), xavier, decay=True)
        self.b = Param((width,), zeros)

    def forward(
        self, params: Buffer, images: Array, keep: Array | None = None
    ) -> tuple[Array, tuple]:
        """images (B, H, W, C), keep (B, m) or None  ->  tokens (B, n or m, D), cache."""
        patches = overlapping_patchify(images, self.patch, self.overlap)
        n = patches.shape[1]
        if keep is not None:
            patches = select_patches(patches, keep)
        y, c_linear = linear_forward(patches, params[self.w], params[self.b])
        return y, (c_linear, keep, n)

    def backward(self, dy: Array, cache: tuple, grads: Buffer, need_dx: bool = True) -> Array | Any:
        """dy (B, n or m, D)  ->  dimages (B, H, W, C), or None; adds dw, db into grads."""
        c_linear, keep, n = cache
        dpatches, dw, db = linear_backward(dy, c_linear, need_dx)
        grads[self.w] += dw
        grads[self.b] += db
        if not need_dx:
            return None
        if keep is not None:
            dpatches = put_back_patches(dpatches, keep, n)
        return overlapping_unpatchify(dpatches, self.patch, self.overlap, self.image)
