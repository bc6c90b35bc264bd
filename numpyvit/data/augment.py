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
        turn, factor, up, left = rng.uniform(-1, 1, (4, B, 1, 1))
        angle, factor = np.radians(degrees) * turn, 1 + scale * factor
        y, x = np.arange(H)[:, None] - (H - 1) / 2, np.arange(W) - (W - 1) / 2
        # Where each new pixel comes from, in a frame with one black pixel all around
        source_y = np.clip((np.cos(angle) * y - np.sin(angle) * x) / factor + pixels * up + (H + 1) / 2, 0, H + 0.999)
        source_x = np.clip((np.sin(angle) * y + np.cos(angle) * x) / factor + pixels * left + (W + 1) / 2, 0, W + 0.999)
        top, first = source_y.astype(np.intp), source_x.astype(np.intp)                      # (B, H, W)
        dy = (source_y - top).astype(np.float32)[..., None]
        dx = (source_x - first).astype(np.float32)[..., None]
        padded = np.zeros((B, H + 2, W + 2, C), np.float32)
        padded[:, 1:-1, 1:-1] = images
        flat, corner = padded.reshape(-1, C), (np.arange(B)[:, None, None] * (H + 2) + top) * (W + 2) + first
        upper = flat[corner] * (1 - dx) + flat[corner + 1] * dx
        lower = flat[corner + W + 2] * (1 - dx) + flat[corner + W + 3] * dx
        return (upper * (1 - dy) + lower * dy + 0.5).astype(images.dtype)
    return augment
