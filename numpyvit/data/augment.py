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


def affine(degrees: float = 0.0, scale: float = 0.0, pixels: float = 0.0) -> Augment:
    """Turn each image by up to `degrees`, resize it by a factor of 1 - scale to 1 + scale, and move it by up to `pixels`,
    all about its middle, with bilinear interpolation and black coming in at the edge."""
    def augment(images: Array, rng: np.random.Generator) -> Array:
        B, H, W, C = images.shape
        turn, factor, up, left = rng.uniform(-1, 1, (4, B, 1, 1)).astype(np.float32)
        angle, factor = np.radians(degrees) * turn, 1 / (1 + scale * factor)
        y, x = np.arange(H, dtype=np.float32)[:, None] - (H - 1) / 2, np.arange(W, dtype=np.float32) - (W - 1) / 2
        cos, sin = np.cos(angle) * factor, np.sin(angle) * factor
        # Where each new pixel comes from, in a frame with one black pixel all around
        source_y = np.clip(cos * y - sin * x + (pixels * up + (H + 1) / 2), 0, H + 0.999)
        source_x = np.clip(sin * y + cos * x + (pixels * left + (W + 1) / 2), 0, W + 0.999)
        top, first = np.floor(source_y), np.floor(source_x)                                  # (B, H, W)
        dy, dx = (source_y - top)[..., None], (source_x - first)[..., None]
        padded = np.zeros((B, H + 2, W + 2, C), np.float32)
        padded[:, 1:-1, 1:-1] = images
        flat = padded.reshape(-1, C)
        corner = (top * (W + 2) + first).astype(np.intp) + np.arange(0, len(flat), (H + 2) * (W + 2))[:, None, None]
        upper, lower = flat.take(corner, axis=0), flat.take(corner + (W + 2), axis=0)
        upper += (flat.take(corner + 1, axis=0) - upper) * dx
        lower += (flat.take(corner + (W + 3), axis=0) - lower) * dx
        upper += (lower - upper) * dy
        upper += 0.5
        return upper.astype(images.dtype)
    return augment
