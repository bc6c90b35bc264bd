"""Random changes to a whole batch at once. Each takes (images (B, H, W, C) uint8, rng) and returns new images, where the old
ones are. What is random is drawn on the host, so that it is the same on all devices."""

from collections.abc import Callable

import numpy as np

from ..backend.arrays import Array, get_xp

Augment = Callable[[Array, np.random.Generator], Array]


def shift(pixels: int) -> Augment:
    """Move each image by -pixels..pixels in both directions, black coming in at the edge (pad and random crop)."""

    def augment(images: Array, rng: np.random.Generator) -> Array:
        xp, (B, H, W, C), n = get_xp(images), images.shape, pixels
        padded = xp.zeros((B, H + 2 * n, W + 2 * n, C), images.dtype)
        padded[:, n : n + H, n : n + W] = images
        # Rows of W * C bytes, beginning at every multiple of C: one gather copies whole rows
        lines = padded.reshape(B, H + 2 * n, (W + 2 * n) * C)
        rows = xp.lib.stride_tricks.sliding_window_view(lines, W * C, axis=2)[:, :, ::C]
        top, left = xp.asarray(rng.integers(0, 2 * n + 1, (2, B)))
        picked = rows[
            xp.arange(B)[:, None], top[:, None] + xp.arange(H), left[:, None]
        ]  # (B, H, W C)
        return picked.reshape(B, H, W, C)

    return augment


def flip() -> Augment:
    """Mirror half of the images, left to right."""

    def augment(images: Array, rng: np.random.Generator) -> Array:
        mirrored = get_xp(images).asarray(np.flatnonzero(rng.integers(0, 2, len(images), np.uint8)))
        images = images.copy()
        images[mirrored] = images[mirrored][:, :, ::-1]
        return images

    return augment


def compose(*steps: Augment) -> Augment:
    """One after the other."""

    def augment(images: Array, rng: np.random.Generator) -> Array:
        for step in steps:
            images = step(images, rng)
        return images

    return augment


def affine(
    degrees: float = 0.0, scale: float = 0.0, pixels: float = 0.0, shear: float = 0.0
) -> Augment:
    """Turn each image by up to `degrees`, resize it by a factor of 1 - scale to 1 + scale, slant it by up to `shear` columns
    a row, and move it by up to `pixels`, all about its middle."""

    def augment(images: Array, rng: np.random.Generator) -> Array:
        turn, factor, up, left, slant = rng.uniform(-1, 1, (5, len(images))).astype(np.float32)
        angle, factor, slant = np.radians(degrees) * turn, 1 / (1 + scale * factor), shear * slant
        cos, sin = np.cos(angle) * factor, np.sin(angle) * factor
        matrices = np.array(
            [[cos, -sin, pixels * up], [sin + slant * cos, cos - slant * sin, pixels * left]]
        )
        return warp(images, get_xp(images).asarray(matrices.transpose(2, 0, 1)))

    return augment


def warp(images: Array, matrices: Array) -> Array:
    """Each image as seen through its own affine map: images (B, H, W, C) uint8, matrices (B, 2, 3).

    The new pixel at (y, x), counted from the middle, is the old one at matrix @ (y, x, 1), by bilinear interpolation between
    the four around that place, with black outside.
    """
    xp, (B, H, W, C) = get_xp(images), images.shape
    m = matrices.astype(np.float32)[..., None, None]  # (B, 2, 3, 1, 1)
    y, x = (
        xp.arange(H, dtype=np.float32)[:, None] - (H - 1) / 2,
        xp.arange(W, dtype=np.float32) - (W - 1) / 2,
    )
    # Where each new pixel comes from, in a frame with one black pixel all around
    source_y = xp.clip(m[:, 0, 0] * y + m[:, 0, 1] * x + (m[:, 0, 2] + (H + 1) / 2), 0, H + 0.999)
    source_x = xp.clip(m[:, 1, 0] * y + m[:, 1, 1] * x + (m[:, 1, 2] + (W + 1) / 2), 0, W + 0.999)
    top, first = xp.floor(source_y), xp.floor(source_x)  # (B, H, W)
    dy, dx = (source_y - top)[..., None], (source_x - first)[..., None]
    padded = xp.zeros((B, H + 2, W + 2, C), np.float32)
    padded[:, 1:-1, 1:-1] = images
    flat = padded.reshape(-1, C)
    corner = (top * (W + 2) + first).astype(np.intp) + xp.arange(0, len(flat), (H + 2) * (W + 2))[
        :, None, None
    ]
    upper, lower = flat.take(corner, axis=0), flat.take(corner + (W + 2), axis=0)
    upper += (flat.take(corner + 1, axis=0) - upper) * dx
    lower += (flat.take(corner + (W + 3), axis=0) - lower) * dx
    upper += (lower - upper) * dy
    upper += 0.5
    return upper.astype(images.dtype)


def erase(share: float) -> Augment:
    """Random erasing (Zhong et al., 2020): in this share of the images, noise in a rectangle of 2 to 33 % of the area, up to
    3.3 times as high as wide, or as wide as high."""

    def augment(images: Array, rng: np.random.Generator) -> Array:
        B, H, W, _ = images.shape
        chosen, area, ratio, y, x = rng.random((5, B))
        area, ratio = (0.02 + 0.31 * area) * H * W, 3.3 ** (2 * ratio - 1)
        height, width = (
            np.minimum(np.sqrt(area * ratio).round(), H),
            np.minimum(np.sqrt(area / ratio).round(), W),
        )
        inside = box(y * (H - height + 1) // 1, x * (W - width + 1) // 1, height, width, H, W)
        inside &= (chosen < share)[:, None, None]
        xp, noise = get_xp(images), rng.integers(0, 256, images.shape, np.uint8)
        return xp.where(xp.asarray(inside)[..., None], xp.asarray(noise), images)

    return augment


def box(top: Array, left: Array, height: Array, width: Array, H: int, W: int) -> Array:
    """(B,) each  ->  (B, H, W) bool: which pixels of each image lie in its rectangle."""
    y, x = np.arange(H), np.arange(W)
    rows = (y >= top[:, None]) & (y < (top + height)[:, None])
    columns = (x >= left[:, None]) & (x < (left + width)[:, None])
    return rows[:, :, None] & columns[:, None, :]
