"""The ink of a drawing on a photographed page: local background, noise, components.

A photograph of a page is (light) times (how much the page reflects), plus noise. The
light is uneven, the page lies on a desk, and there may be dust, ruled lines or a frame.

1. The background is a morphological closing of the image (Serra, 1982, "Image Analysis
   and Mathematical Morphology", chapter II): consider the squares of a certain size that
   contain a pixel, and the lightest point of each. The closing is the darkest of these
   lightest points. Strokes, which are narrower than the square, vanish from it. What is
   wider, or goes on beyond the border, remains: a gradient, the straight edge of a
   shadow, the desk. The closing minus the image is called the "black top-hat".
2. Ink is what is darker than the background by several times the noise, whose standard
   deviation is computed from quantiles and therefore hardly depends on the ink.
3. Of the connected components of the ink, those of a drawing are kept. Not kept are
   areas without an edge in the image (the background was wrong there), areas too wide
   for strokes, specks, frames, ruled lines, and what touches the border while a drawing
   does not.

Light ink on a dark page is dark ink on the negative. Both are tried (`find_ink`).
"""

from dataclasses import dataclass

import numpy as np

from ..backend.arrays import Array
from .morphology import Components, closing, components, grown, running

WINDOW = 0.6  # the side of the closing's square. Lengths are relative to the longer side
MIN_CONTRAST = 16  # grey levels: what is less dark than this is not ink
NOISE_FACTOR = 6  # nor is what is less dark than this many standard deviations of noise
DARKEST = 48  # grey levels: a background counts as at least this light
FAINT = 0.35  # ink below this fraction of the strongest of its component is left out
MIN_EXTENT = 1 / 28  # a component with a shorter box is a speck
MIN_PIXELS = 4  # so is one with a box of fewer pixels
MIN_AMOUNT = 0.0027  # the depth of a stroke times its thickness; ruled lines have less
THIN = 0.015  # the thickness of a ruled line that goes from border to border
SHARP = 0.95  # the part of a component's outline that must be an edge in the image
REACH = 1 / 28  # "shortly" outside of an edge
CONTOUR = 12  # the pixels of a stroke's outline, relative to its extent
CROWD = 12  # so many strokes of similar size are noise or text, and no drawing
SHEET = 0.6  # what has this extent and fills its box to this part, and is no narrow
FULL = 0.7  # numeral 1, is a sheet of paper
STROKE = 0.12  # a further stroke has this extent at least, relative to the main one,
ALIKE = 0.4  # this depth,
GAP = 0.35  # and this distance from it at most


@dataclass(frozen=True)
class Ink:
    """A drawing, cut out of its page.

    pixels: (H, W, 1) uint8, 0 for the page, 255 for ink that reflects no light.
    is_dark: whether the ink is darker than the page.
    touches_border, has_other_marks: whether the drawing touches the border of the
        image, and whether something that is not a part of it was left out.
    """

    pixels: Array
    is_dark: bool
    touches_border: bool
    has_other_marks: bool


def find_ink(pixels: Array, is_dark: bool | None = None) -> Ink | None:
    """Return the drawing on a page (H, W) uint8, or None if there is none.

    is_dark: whether the ink is darker than the page; None if that is not known. Then both
    are tried: the areas of the page that strokes enclose look like ink of the opposite
    kind, but they are wider than strokes, and have a smaller extent.
    """
    candidates = []
    for dark in (True, False) if is_dark is None else (is_dark,):
        candidate = drawing_on(pixels if dark else 255 - pixels, dark)
        if candidate is not None:
            candidates.append(candidate)
    return max(candidates, key=lambda pair: pair[1])[0] if candidates else None


def drawing_on(page: Array, is_dark: bool) -> tuple[Ink, float] | None:
    """Return the drawing on a page (H, W) uint8 with dark ink, or None.

    is_dark: whether the page is the original or the negative. Returns the drawing, and a
    number that is larger the more it consists of long, thin and strong strokes.
    """
    background, darker, noise = background_of(page)
    depth = (darker / np.maximum(background, np.float32(DARKEST))).clip(0, 1)
    stands_out = darker > max(MIN_CONTRAST, NOISE_FACTOR * noise)
    if not stands_out.any():
        return None
    # The lines of ruled paper are connected with the digit, but are much fainter.
    marks = components(stands_out)
    is_ink = stands_out & (depth > FAINT * marks.largest(depth)[marks.labels])
    marks = components(is_ink)
    peak = marks.largest(depth)
    may_be = is_stroke(marks, depth) & (sharpness(page, marks, darker, noise) > SHARP)
    score = marks.sums(depth) * peak * may_be  # the most and the strongest ink
    kept, main = choose(marks, peak, score)
    if not kept.any():
        return None
    core = kept[marks.labels] & is_ink
    # The edges of strokes are too faint for the core.
    mask = grown(core, 2) | (grown(core, reach_of(page)) & stands_out)
    mask &= core | ~is_ink
    if not mask.all() and np.quantile(darker[~mask], 0.8) > FAINT * np.median(darker[core]):
        return None  # the rest of the page varies nearly as much: this is noise
    others = ~kept & (marks.extent >= MIN_PIXELS) & (peak > ALIKE * peak[main])
    ink = Ink(
        (255 * np.where(mask, depth, 0)[..., None]).round().astype(np.uint8),
        is_dark,
        touches_border=bool((marks.touches & kept).any()),
        has_other_marks=bool(others.any()),
    )
    thickness = 2 * marks.area[main] / marks.edges[main]
    return ink, float((peak[main] * marks.extent[main]) ** 2 / thickness)


def background_of(page: Array) -> tuple[Array, Array, float]:
    """Return the background of a page with dark ink, how much darker it is, and the noise.

    page and background: (H, W) uint8. The second result is float32. Where there is no ink,
    it has the mean 0 and the third result as its standard deviation.
    """
    from PIL import Image, ImageFilter

    smooth = Image.fromarray(page).filter(ImageFilter.MedianFilter(3))
    background = closing(np.asarray(smooth), round(WINDOW * max(page.shape)))
    darker = background.astype(np.float32) - page
    # Two estimates of the noise, of which the edges of ink can only increase the first and
    # large areas of ink only the second. In 5x5 pixels of normal noise, the largest and the
    # smallest differ by 3.93 standard deviations on average. Of all its values, a tenth
    # is below -1.28 and three tenths are below -0.52 standard deviations.
    around = np.pad(page, 2, mode="edge")
    ranges = running(np.maximum, around, 5) - running(np.minimum, around, 5)
    low, high = np.quantile(darker, (0.1, 0.3))
    noise = min(float(np.median(ranges)) / 3.93, float(high - low) / (1.28 - 0.52))
    return background, darker - np.float32(low + 1.28 * noise), noise


def reach_of(page: Array) -> int:
    """Return how many pixels of page (H, W) the edge of a stroke may be wide."""
    return max(2, round(REACH * max(page.shape)))


def is_stroke(marks: Components, depth: Array) -> Array:
    """Return which components have the size and the shape of strokes."""
    H, W = depth.shape
    side = max(H, W)
    may_be = marks.extent >= max(MIN_PIXELS, MIN_EXTENT * side)
    amount = 2 * marks.sums(depth) / marks.edges
    may_be &= amount >= MIN_AMOUNT * side
    may_be &= marks.edges <= CONTOUR * marks.extent
    crosses = (marks.left == 0) & (marks.right == W) | (marks.top == 0) & (marks.bottom == H)
    may_be &= ~(crosses & (2 * marks.area / marks.edges < THIN * side))
    height = marks.bottom - marks.top
    width = marks.right - marks.left
    is_square = np.minimum(height, width) > 0.6 * marks.extent
    may_be &= ~(is_square & (marks.extent > SHEET * side) & (marks.area > FULL * height * width))
    for i in np.flatnonzero(may_be):
        may_be[i] = not is_frame(marks, int(i), depth.shape)
    return may_be


def sharpness(page: Array, marks: Components, darker: Array, noise: float) -> Array:
    """Return which part of each component's outline is an edge in the image, 0 to 1.

    At an edge, the page shortly outside is lighter than the ink shortly inside, by a
    quarter of the component's largest contrast.
    """
    reach = reach_of(page)
    page = np.pad(page, reach, mode="edge")
    labels = np.pad(marks.labels, reach, constant_values=-1)
    mask = labels >= 0
    is_outside = grown(mask, reach) & ~grown(mask, reach - 1)
    owner = running(np.maximum, np.pad(labels, reach, constant_values=-1), 2 * reach + 1)
    # What goes on beyond the border has no edge there, which is not held against it.
    goes_on = np.append(marks.touches, False)
    is_beyond = np.pad(np.zeros(marks.labels.shape, bool), reach, constant_values=True)
    is_outside &= ~(is_beyond & goes_on[owner])
    ink = np.pad(np.where(mask, page, 255), reach + 2, constant_values=255)
    ink = running(np.minimum, ink, 2 * reach + 5)
    owner = owner[is_outside]
    step = page[is_outside].astype(np.float32) - ink[is_outside] - 3 * np.float32(noise)
    shares = (step / (0.25 * marks.largest(darker)[owner])).clip(0, 1)
    n = len(marks.area)
    counts = np.bincount(owner, minlength=n)
    return np.where(counts > 0, np.bincount(owner, shares, n) / np.maximum(1, counts), 1)


def choose(marks: Components, peak: Array, score: Array) -> tuple[Array, int]:
    """Return which components are the drawing's, and the number of the main one.

    peak: the largest depth of each component.
    score: how likely each one is the main one, 0 for what is no stroke.
    """
    extent = marks.extent
    main = int(score.argmax())
    if (score > 0.1 * score[main]).sum() > CROWD:
        return np.zeros(len(score), bool), main
    inside = score * ~marks.touches
    if inside.max() > 0.2 * score.max():
        score = inside
    main = int(score.argmax())
    gap = np.maximum(
        np.maximum(marks.top - marks.bottom[main], marks.top[main] - marks.bottom),
        np.maximum(marks.left - marks.right[main], marks.left[main] - marks.right),
    )
    is_near = gap < GAP * extent[main]
    is_alike = (extent >= STROKE * extent[main]) & (peak > ALIKE * peak[main])
    return (score > 0) & is_near & is_alike, main


def is_frame(marks: Components, i: int, shape: tuple[int, int]) -> bool:
    """Return whether a component is a rectangle drawn around others or around the page."""
    top, bottom, left, right = marks.top[i], marks.bottom[i], marks.left[i], marks.right[i]
    height = bottom - top
    width = right - left
    inside = (marks.top > top) & (marks.bottom < bottom)
    inside &= (marks.left > left) & (marks.right < right)
    encloses = bool((inside & (marks.extent > 0.15 * marks.extent[i])).any())
    if not encloses and min(height, width) < 0.7 * min(shape):
        return False
    ink = marks.labels[top:bottom, left:right] == i
    h = max(1, round(0.12 * height))
    w = max(1, round(0.12 * width))
    has_corners = all(
        part.any() for part in (ink[:h, :w], ink[:h, -w:], ink[-h:, :w], ink[-h:, -w:])
    )
    return has_corners and ink[h:-h, w:-w].sum() < 0.05 * ink.sum()
