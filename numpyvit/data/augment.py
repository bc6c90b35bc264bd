"""Random changes to a whole batch of images at once.

An augmentation is a function of (images (B, H, W, C) uint8, rng) that returns new
images on the same device. All random numbers are drawn on the host, so that a seed
gives the same images on every device. Images of another dtype are refused with a UserError,
also by the augmentations that could change them: noise, rounding and colours are made for
0 to 255.
"""

from collections.abc import Callable

import numpy as np

from ..backend.arrays import Array, check_array, get_xp
from ..errors import check_function, check_int, check_number, check_type

Augment = Callable[[Array, np.random.Generator], Array]
MOST_PIXELS = 10_000  # of a shift; images are far smaller


def check_images(images: Array, rng: np.random.Generator) -> None:
    """Raise UserError unless these are images (B, H, W, C) uint8 and a generator."""
    check_array("images", images, "uint8", ("B", "H", "W", "C"))
    check_type("rng", rng, np.random.Generator, "a generator, np.random.default_rng(seed)")


def shift(pixels: int) -> Augment:
    """Translate each image by -pixels to pixels along both axes (pad and random crop).

    Pixels that come in at the edge are black.
    """
    pixels = check_int("pixels", pixels, most=MOST_PIXELS)

    def augment(images: Array, rng: np.random.Generator) -> Array:
        check_images(images, rng)
        xp = get_xp(images)
        B, H, W, C = images.shape
        n = pixels
        padded = xp.zeros((B, H + 2 * n, W + 2 * n, C), images.dtype)
        padded[:, n : n + H, n : n + W] = images
        # Windows of W C bytes that begin at every pixel of a row: indexing them copies
        # the rows of a crop as a whole.
        lines = padded.reshape(B, H + 2 * n, (W + 2 * n) * C)
        windows = xp.lib.stride_tricks.sliding_window_view(lines, W * C, axis=2)[:, :, ::C]
        top, left = xp.asarray(rng.integers(0, 2 * n + 1, (2, B)))
        image = xp.arange(B)[:, None]
        row = top[:, None] + xp.arange(H)
        cropped = windows[image, row, left[:, None]]  # (B, H, W C)
        return cropped.reshape(B, H, W, C)

    return augment


def flip() -> Augment:
    """Flip each image horizontally with probability 1/2."""

    def augment(images: Array, rng: np.random.Generator) -> Array:
        check_images(images, rng)
        is_flipped = rng.integers(0, 2, len(images), np.uint8)
        flipped = get_xp(images).asarray(np.flatnonzero(is_flipped))
        images = images.copy()
        images[flipped] = images[flipped][:, :, ::-1]
        return images

    return augment


def compose(*steps: Augment) -> Augment:
    """Apply several augmentations in the given order."""
    for step in steps:
        check_function("step", step, "an augmentation such as flip()")

    def augment(images: Array, rng: np.random.Generator) -> Array:
        check_images(images, rng)
        for step in steps:
            images = step(images, rng)
        return images

    return augment


def affine(
    rotate: float = 0.0, scale: float = 0.0, translate: float = 0.0, shear: float = 0.0
) -> Augment:
    """Rotate, scale, shear and translate each image about its centre.

    Each amount is drawn uniformly, for each image separately:

    rotate: by up to this many degrees, in either direction.
    scale: by a factor of 1 - scale to 1 + scale.
    translate: by up to this many pixels along both axes.
    shear: each row by up to this many columns more than the row above.
    """
    check_number("rotate", rotate, least=0)
    check_number("scale", scale, least=0, below=1)
    check_number("translate", translate, least=0, most=MOST_PIXELS)
    check_number("shear", shear, least=0, most=MOST_PIXELS)

    def augment(images: Array, rng: np.random.Generator) -> Array:
        check_images(images, rng)
        drawn = rng.uniform(-1, 1, (5, len(images))).astype(np.float32)
        angle = np.radians(rotate) * drawn[0]
        factor = 1 / (1 + scale * drawn[1])  # warp maps new positions to old ones
        up = translate * drawn[2]
        left = translate * drawn[3]
        s = shear * drawn[4]
        cos = np.cos(angle) * factor
        sin = np.sin(angle) * factor
        matrices = np.array([[cos, -sin, up], [sin + s * cos, cos - s * sin, left]])
        return warp(images, get_xp(images).asarray(matrices.transpose(2, 0, 1)))

    return augment


def warp(images: Array, matrices: Array) -> Array:
    """Transform each image by an affine map: images (B, H, W, C) uint8, matrices (B, 2, 3).

    With positions (y, x) relative to the centre of the image, the new pixel at (y, x)
    is the old image at matrix @ (y, x, 1): a bilinear interpolation between the four
    pixels around that position. The outside of the old image is black.
    """
    xp = get_xp(images)
    B, H, W, C = images.shape
    m = matrices.astype(np.float32)[..., None, None]  # (B, 2, 3, 1, 1)
    y = xp.arange(H, dtype=np.float32)[:, None] - (H - 1) / 2
    x = xp.arange(W, dtype=np.float32) - (W - 1) / 2
    # The position where each new pixel comes from, in the old image with a border of
    # one black pixel, which stands for everything outside.
    source_y = m[:, 0, 0] * y + m[:, 0, 1] * x + (m[:, 0, 2] + (H + 1) / 2)
    source_x = m[:, 1, 0] * y + m[:, 1, 1] * x + (m[:, 1, 2] + (W + 1) / 2)
    source_y = xp.clip(source_y, 0, H + 0.999)
    source_x = xp.clip(source_x, 0, W + 0.999)
    top = xp.floor(source_y)  # (B, H, W)
    left = xp.floor(source_x)
    from_top = (source_y - top)[..., None]
    from_left = (source_x - left)[..., None]

    padded = xp.zeros((B, H + 2, W + 2, C), np.float32)
    padded[:, 1:-1, 1:-1] = images
    flat = padded.reshape(-1, C)
    first_pixel = xp.arange(0, len(flat), (H + 2) * (W + 2))[:, None, None]  # of each image
    corner = (top * (W + 2) + left).astype(np.intp) + first_pixel
    upper = flat.take(corner, axis=0)  # (B, H, W, C)
    lower = flat.take(corner + (W + 2), axis=0)
    upper += (flat.take(corner + 1, axis=0) - upper) * from_left
    lower += (flat.take(corner + (W + 3), axis=0) - lower) * from_left
    upper += (lower - upper) * from_top
    upper += 0.5  # the conversion to integers rounds down
    return upper.astype(images.dtype)


def erase(probability: float) -> Augment:
    """Fill a random rectangle with noise (random erasing, Zhong et al., 2020).

    Each image is changed with this probability. The rectangle has 2 to 33 % of its
    area, and is up to 3.3 times as high as wide, or as wide as high.
    """
    check_number("probability", probability, least=0, most=1)

    def augment(images: Array, rng: np.random.Generator) -> Array:
        check_images(images, rng)
        B, H, W, _ = images.shape
        chosen, area, ratio, y, x = rng.random((5, B))
        area = (0.02 + 0.31 * area) * H * W
        ratio = 3.3 ** (2 * ratio - 1)  # of the height to the width
        height = np.minimum(np.sqrt(area * ratio).round(), H)
        width = np.minimum(np.sqrt(area / ratio).round(), W)
        top = y * (H - height + 1) // 1
        left = x * (W - width + 1) // 1
        inside = box(top, left, height, width, H, W)
        inside &= (chosen < probability)[:, None, None]
        noise = rng.integers(0, 256, images.shape, np.uint8)
        xp = get_xp(images)
        return xp.where(xp.asarray(inside)[..., None], xp.asarray(noise), images)

    return augment


def box(top: Array, left: Array, height: Array, width: Array, H: int, W: int) -> Array:
    """Return which pixels lie in the rectangle of each image.

    The first four are (B,); returns (B, H, W) bool.
    """
    y = np.arange(H)
    x = np.arange(W)
    rows = (y >= top[:, None]) & (y < (top + height)[:, None])
    columns = (x >= left[:, None]) & (x < (left + width)[:, None])
    return rows[:, :, None] & columns[:, None, :]
