"""Random changes to a whole batch at once. Each takes (images (B, H, W, C) uint8, rng) and returns new images."""

from collections.abc import Callable

import numpy as np

from ..backend import Array

Augment = Callable[[Array, np.random.Generator], Array]


def shift(pixels: int) -> Augment:
    """Move each image by -pixels..pixels in both directions, black coming in at the edge (pad and random crop)."""
    def augment(images: Array, rng: np.random.Generator) -> Array:
        B, H, W, C = images.shape
        n = pixels
        padded = np.zeros((B, H + 2 * n, W + 2 * n, C), images.dtype)
        padded[:, n:n + H, n:n + W] = images
        windows = np.lib.stride_tricks.sliding_window_view(padded, (H, W), axis=(1, 2))      # (B, 2n+1, 2n+1, C, H, W)
        top, left = rng.integers(0, 2 * n + 1, (2, B))
        return windows.transpose(0, 1, 2, 4, 5, 3)[np.arange(B), top, left]                  # (B, H, W, C)
    return augment


def flip() -> Augment:
    """Mirror half of the images, left to right."""
    def augment(images: Array, rng: np.random.Generator) -> Array:
        mirrored = rng.integers(0, 2, len(images), np.uint8).astype(bool)
        images = images.copy()
        images[mirrored] = images[mirrored, :, ::-1]
        return images
    return augment


def compose(*steps: Augment) -> Augment:
    """One after the other."""
    def augment(images: Array, rng: np.random.Generator) -> Array:
        for step in steps:
            images = step(images, rng)
        return images
    return augment
