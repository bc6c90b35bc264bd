"""Drawings, such as handwritten digits: scaled and centred as in the training images.

MNIST's digits were scaled to a box of 20x20 pixels, which was placed with its centre of
mass at the centre of 28x28 pixels (LeCun et al., 1998, "Gradient-based learning applied
to document recognition", section III.A). A model that was trained on such images only
does not recognise a digit in a corner. Here "ink" is the brightness above a black
background. How it is found on a photograph is explained in photograph.py.
"""

from typing import Any

import numpy as np

from ..backend.arrays import Array
from .image import border_grey
from .photograph import Ink, find_ink

FAINT = 0.25  # ink below this fraction of the strongest is not part of the drawing
PURE = 0.2  # the least part of a page that is exactly black or white, if its corners are
BLURRED = 64  # the largest step between neighbouring pixels of a blurred drawing
SMALLEST = 0.25  # the least extent of a drawing on such a page, relative to the page
OVERSAMPLE = 8  # the ink is searched for in an image this many times as large
OFF_CENTRE = 0.55  # pixels; rounding the position gives 0.5, and rounding the ink adds some


def drawing_box(images: Array) -> int:
    """Return the side of the box that the drawings in all the images fill, or 0.

    images: (n, H, W, 1) uint8, light on dark. The result is 0 unless at least 99 % of
    the drawings have this size, to a pixel, and their centre of mass at the centre.
    """
    n, H, W, C = images.shape
    if not n or C != 1 or not images.any((1, 2)).all():
        return 0
    box = int(np.median(sides(images)))
    return box if box < min(H, W) and np.mean(are_fitted(images, box)) > 0.99 else 0


def sides(images: Array) -> Array:
    """Return the longer side of the ink's box in each of images (n, H, W, 1)."""
    _, H, W, _ = images.shape
    rows = images.max((2, 3)) > 0  # (n, H): which rows have ink
    columns = images.max((1, 3)) > 0
    heights = H - rows.argmax(1) - rows[:, ::-1].argmax(1)
    widths = W - columns.argmax(1) - columns[:, ::-1].argmax(1)
    return np.maximum(heights, widths)


def are_fitted(images: Array, box: int) -> Array:
    """Return which of images (n, H, W, 1) are scaled to `box` pixels and centred.

    Every image must contain ink.
    """
    _, H, W, _ = images.shape
    y, x = centre(images[..., 0])
    is_centred = np.maximum(abs(y - H // 2), abs(x - W // 2)) <= OFF_CENTRE
    return is_centred & (abs(sides(images) - box) <= 1)


def centre(ink: Array) -> tuple[Any, Any]:
    """Return the row and the column of the centre of mass of ink (..., H, W)."""
    H, W = ink.shape[-2:]
    mass = ink.sum((-2, -1), dtype=np.float64)
    y = ink.sum(-1, dtype=np.float64) @ np.arange(H) / mass
    x = ink.sum(-2, dtype=np.float64) @ np.arange(W) / mass
    return y, x


def read_drawing(pixels: Array, size: tuple[int, int], box: int) -> tuple[Array, str] | None:
    """Find the drawing on an image, scale it to `box` pixels and centre it.

    pixels: (H', W', 1) uint8, dark on light or light on dark, even a photograph.
    Returns (H, W, 1) uint8, white on black, and remarks on what was done, each of which
    begins with ", ". Returns None if nothing is drawn. An image of this size (H, W) that
    is already scaled and centred is at most inverted.
    """
    inverted = ", inverted: it was dark on light"
    if pixels.shape[:2] == size:
        is_dark = border_grey(pixels[None]) > 127
        ready = 255 - pixels if is_dark else pixels
        if ready.any() and are_fitted(ready[None], box)[0]:
            return ready, inverted if is_dark else ""
        pixels = enlarge(pixels, OVERSAMPLE)
    page = pure_page(pixels[..., 0])
    if page is None:
        ink = find_ink(pixels[..., 0])
    else:
        ink = find_ink(pixels[..., 0], is_dark=page == 255) or all_ink(pixels[..., 0], page)
    if ink is None:
        return None
    fitted = fit_drawing(ink.pixels, size, box)
    remark = inverted if ink.is_dark else ""
    remark += ", centred"
    if ink.has_other_marks:
        remark += ", other marks left out"
    if ink.touches_border:
        remark += ", the ink touches the border: leave a margin"
    return (fitted, remark) if fitted.any() else None


def pure_page(pixels: Array) -> int | None:
    """Return 0 or 255 if pixels (H, W) uint8 show a purely black or white page, or None.

    Only drawing programs make a page whose corners are all exactly 0, or all exactly 255:
    in a photograph the light, a shadow, or the desk reach a corner.
    """
    page = int(pixels[0, 0])
    corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]]
    is_pure = page in (0, 255) and (corners == page).all() and (pixels == page).mean() > PURE
    return page if is_pure else None


def all_ink(pixels: Array, page: int) -> Ink | None:
    """Return everything on a pure page (H, W) uint8 as the drawing; None if that is little.

    This is for enlarged images of few pixels, whose strokes are too wide and too blurred
    for `find_ink`. What is not blurred is noise.
    """
    ink = pixels if page == 0 else 255 - pixels
    steps = [np.diff(ink.astype(np.int16), axis=axis) for axis in (0, 1)]
    if max(abs(step).max(initial=0) for step in steps) > BLURRED:
        return None
    is_drawn = ink > FAINT * 255
    rows = np.flatnonzero(is_drawn.any(1))
    columns = np.flatnonzero(is_drawn.any(0))
    if not len(rows) or max(np.ptp(rows), np.ptp(columns)) < SMALLEST * max(pixels.shape):
        return None
    edges = [is_drawn[0], is_drawn[-1], is_drawn[:, 0], is_drawn[:, -1]]
    touches_border = any(edge.any() for edge in edges)
    return Ink(ink[..., None], page == 255, touches_border, has_other_marks=False)


def enlarge(pixels: Array, by: int) -> Array:
    """Return pixels (H, W, 1) uint8 enlarged to (by*H, by*W, 1)."""
    from PIL import Image

    H, W, _ = pixels.shape
    image = Image.fromarray(pixels[..., 0])
    return np.asarray(image.resize((by * W, by * H), Image.Resampling.BICUBIC))[..., None]


def fit_drawing(pixels: Array, size: tuple[int, int], box: int) -> Array:
    """Scale a drawing to `box` pixels and centre it by its centre of mass.

    pixels (H', W', 1) uint8 of any size, light on black  ->  (H, W, 1) uint8 on black,
    the strongest ink being white. The result is black if nothing is drawn.
    """
    from PIL import Image

    H, W = size
    fitted = np.zeros((H, W, 1), np.uint8)
    ink = pixels[..., 0].astype(np.float32)
    if not ink.any():
        return fitted
    is_drawn = ink > FAINT * ink.max()
    rows = np.flatnonzero(is_drawn.any(1))
    columns = np.flatnonzero(is_drawn.any(0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = box / max(ink.shape)
    h, w = (max(1, round(n * scale)) for n in ink.shape)
    scaled = np.asarray(Image.fromarray(ink).resize((w, h), Image.Resampling.BICUBIC))
    scaled = np.maximum(scaled, 0)  # bicubic interpolation can go below 0
    if not scaled.any():  # for example two single pixels that are far apart
        return fitted
    y, x = centre(scaled)
    top = min(max(0, H // 2 - round(y)), H - h)
    left = min(max(0, W // 2 - round(x)), W - w)
    # Thin strokes become fainter when they are scaled down.
    fitted[top : top + h, left : left + w, 0] = (scaled * (255 / scaled.max())).round()
    return fitted
