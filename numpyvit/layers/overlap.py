"""Patches that overlap: each patch also sees some pixels of its neighbours.

In terms of convolution, the kernel grows by `overlap` pixels on each side and the stride
stays at P. (To the same end, Lee et al., 2021, "Vision Transformer for Small-Size
Datasets", section 3.1, stack shifted copies of the image.) In this repository only models
for Fashion-MNIST use it. Read patches.py first.
"""

from ..backend.arrays import Array, get_xp
from ..errors import check_int
from ..params import Param, xavier
from .patches import PatchEmbed, Size


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


class OverlappingPatchEmbed(PatchEmbed):
    """PatchEmbed for windows of S = P + 2 * overlap. Weights: w (S1 * S2 * C, D), b (D,)."""

    def __init__(self, image: Size, patch: Size, channels: int, width: int, overlap: int) -> None:
        super().__init__(image, patch, channels, width)
        check_int("overlap", overlap)
        self.overlap = overlap
        s1, s2 = patch[0] + 2 * overlap, patch[1] + 2 * overlap
        self.w = Param((s1 * s2 * channels, width), xavier, decay=True)

    def cut(self, images: Array) -> Array:
        """Return the windows of the images."""
        return overlapping_patchify(images, self.patch, self.overlap)

    def join(self, dpatches: Array) -> Array:
        """Return the gradient of the images: the backward of cut."""
        return overlapping_unpatchify(dpatches, self.patch, self.overlap, self.image)
