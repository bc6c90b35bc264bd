"""Small pieces of pictures, as arrays (h, w, 3) uint8, and how they are put together.

Both tables of colours can be told apart with any form of colour blindness, and in grey:
`sequential` is viridis, from dark blue to yellow; `diverging` goes from blue over white,
which is zero, to orange.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend.arrays import Array

if TYPE_CHECKING:
    from PIL.Image import Image

WHITE = (255, 255, 255)
INK = (32, 32, 32)
GREY = (110, 110, 110)
LINE = (176, 176, 176)
SMALL, NORMAL, LARGE = 13, 15, 20  # sizes of text, in pixels
GAP = 8
VIRIDIS = """440154 472c7a 3b518b 2c718e 21908d 27ad81 5cc863 aadc32 fde725"""
BLUE_ORANGE = """08306b 2171b5 6baed6 c6dbef ffffff fee0b6 fdb863 e08214 7f3b08"""


def interpolated(stops: str, x: Array) -> Array:
    """stops, hexadecimal colours at equal distances; x (...) from 0 to 1  ->  (..., 3) uint8."""
    colours = np.array([list(bytes.fromhex(stop)) for stop in stops.split()], float)
    places = np.linspace(0, 1, len(colours))
    channels = [np.interp(x, places, channel) for channel in colours.T]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def sequential(values: Array, low: float, high: float) -> Array:
    """values (...)  ->  colours (..., 3) uint8: `low` is dark blue and `high` yellow."""
    span = high - low
    return interpolated(VIRIDIS, (values - low) / span if span > 0 else np.zeros(values.shape))


def diverging(values: Array, limit: float) -> Array:
    """values (...)  ->  colours (..., 3) uint8: -limit is blue, 0 white and limit orange."""
    scaled = values / limit if limit > 0 else np.zeros(np.shape(values))
    return interpolated(BLUE_ORANGE, (scaled + 1) / 2)


def as_rgb(pixels: Array) -> Array:
    """pixels (H, W, C) uint8  ->  (H, W, 3): colours as they are, otherwise the first channel."""
    return pixels if pixels.shape[-1] == 3 else pixels[..., :1].repeat(3, -1)


def zoom(image: Array, height: int, width: int | None = None) -> Array:
    """image (h, w, 3)  ->  (height, width), by default as wide as high.

    Pixels stay sharp if both sides grow by integers. Otherwise they are interpolated, or
    averaged if the image becomes smaller.
    """
    from PIL import Image

    width = height if width is None else width
    h, w = image.shape[:2]
    if height % h == 0 and width % w == 0:
        method = Image.Resampling.NEAREST
    else:
        method = Image.Resampling.BICUBIC if height > h else Image.Resampling.BOX
    return np.asarray(Image.fromarray(image).resize((width, height), method))


def cell_size(patch: tuple[int, int], grid: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the height and width in which each patch is drawn, for a map of about `side`.

    An image that is less than half as large is enlarged by an integer, so that all of
    its pixels have the same size.
    """
    factor = side / max(patch[0] * grid[0], patch[1] * grid[1])
    if factor >= 2:
        factor = int(factor)
    return max(1, round(patch[0] * factor)), max(1, round(patch[1] * factor))


def blocks(colours: Array, cell: tuple[int, int]) -> Array:
    """colours (rows, columns, 3)  ->  an image in which each of them fills a cell."""
    return colours.repeat(cell[0], 0).repeat(cell[1], 1)


@lru_cache(maxsize=8)
def font(size: int) -> Any:
    """Return Pillow's own font, which has the letters of European languages."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


@lru_cache(maxsize=2048)
def text(words: str, size: int = NORMAL, colour: tuple[int, int, int] = INK) -> Array:
    """Return one line of text on white; what cannot be printed becomes a question mark."""
    from PIL import Image, ImageDraw

    words = "".join(c if c.isprintable() else "?" for c in words)
    ascent, descent = font(size).getmetrics()
    width = max(1, int(np.ceil(font(size).getlength(words))))
    canvas = Image.new("RGB", (width + 1, ascent + descent), WHITE)
    ImageDraw.Draw(canvas).text((0, 0), words, fill=colour, font=font(size))
    result = np.asarray(canvas)
    result.flags.writeable = False
    return result


def wrapped(words: str, width: int, size: int = NORMAL, colour: Any = INK) -> Array:
    """Return text in lines of at most `width` pixels; only a longer word is wider."""
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text(longer, size).shape[1] > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return above([text(line, size, colour) for line in lines], gap=2, align="left")


def shortened(words: str, length: int = 18) -> str:
    """Return at most `length` characters, of which the last is "…" if some are missing."""
    return words if len(words) <= length else words[: length - 1] + "…"


def padded(image: Array, height: int, width: int, align: str = "centre") -> Array:
    """Put an image on white of at least this size: at the top, or vertically centred too.

    align: "left", "right", "centre" (all at the top), or "middle" for the left side.
    """
    h, w = image.shape[:2]
    more_h, more_w = max(height - h, 0), max(width - w, 0)
    left = {"left": 0, "middle": 0, "right": more_w, "centre": more_w // 2}[align]
    top = more_h // 2 if align == "middle" else 0
    margins = ((top, more_h - top), (left, more_w - left), (0, 0))
    return np.pad(image, margins, constant_values=255)


def above(parts: Sequence[Array], gap: int = GAP, align: str = "centre") -> Array:
    """Put parts one above the other."""
    width = max(part.shape[1] for part in parts)
    rows = []
    for part in parts:
        rows += [padded(part, 0, width, align), np.full((gap, width, 3), 255, np.uint8)]
    return np.concatenate(rows[:-1])


def beside(parts: Sequence[Array], gap: int = GAP, align: str = "left") -> Array:
    """Put parts side by side; "middle" centres them vertically."""
    height = max(part.shape[0] for part in parts)
    columns = []
    for part in parts:
        columns += [padded(part, height, 0, align), np.full((height, gap, 3), 255, np.uint8)]
    return np.concatenate(columns[:-1], axis=1)


def framed(image: Array) -> Array:
    """Draw a thin grey frame around an image."""
    frame = np.empty((image.shape[0] + 2, image.shape[1] + 2, 3), np.uint8)
    frame[:] = LINE
    frame[1:-1, 1:-1] = image
    return frame


def titled(image: Array, title: str, note: str = "") -> Array:
    """Put a title above an image, and a note in grey below it."""
    parts = [text(title, NORMAL), image]
    if note:
        parts.append(text(note, SMALL, GREY))
    return above(parts, gap=4)


def table(
    cells: Sequence[Sequence[Array]], rows: Sequence[str] = (), columns: Sequence[str] = ()
) -> Array:
    """Arrange images in rows and columns with labels; rows may have different lengths."""
    width = max(cell.shape[1] for row in cells for cell in row)
    width = max([width, *(text(label).shape[1] for label in columns)])
    lines = []
    if columns:
        lines.append(beside([padded(text(label), 0, width) for label in columns]))
    lines += [beside([padded(cell, 0, width) for cell in row]) for row in cells]
    if rows:
        labels = [text(label) for label in rows]
        side = max(label.shape[1] for label in labels)
        first = np.full((1, side, 3), 255, np.uint8)
        labels = [padded(label, 0, side, "right") for label in labels]
        labels = [first] * (len(lines) - len(labels)) + labels
        lines = [
            beside([label, line], align="middle") for label, line in zip(labels, lines, strict=True)
        ]
    return above(lines, align="left")


def colour_bar(colours: Array, ends: Sequence[str], width: int = 200) -> Array:
    """colours (n, 3)  ->  a horizontal scale, with labels at equal distances below it."""
    index = np.arange(width) * len(colours) // width
    bar = framed(np.broadcast_to(colours[index], (12, width, 3)))
    half = max(text(label, SMALL).shape[1] for label in ends) // 2 + 1
    line = np.full((text("0", SMALL).shape[0], width + 2 * half, 3), 255, np.uint8)
    for label, place in zip(ends, np.linspace(0, width - 1, len(ends)).astype(int), strict=True):
        drawn = text(label, SMALL)
        left = half + place - drawn.shape[1] // 2
        line[:, left : left + drawn.shape[1]] = drawn
    return above([bar, line], gap=2)


def sequential_bar(low: float, high: float, form: str = ".3g") -> Array:
    """Return the scale of `sequential`, with its ends and its middle as numbers."""
    ends = [format(x, form) for x in (low, (low + high) / 2, high)]
    return colour_bar(sequential(np.linspace(0, 1, 256), 0, 1), ends)


def diverging_bar(limit: float, form: str = ".3g") -> Array:
    """Return the scale of `diverging`, with its ends and zero."""
    ends = [format(-limit, form), "0", format(limit, form)]
    return colour_bar(diverging(np.linspace(-1, 1, 257), 1), ends)


def overlay(image: Array, colours: Array) -> Array:
    """Blend the colours of a map (h, w, 3) with an image in greys, (h, w, 3)."""
    grey = image.mean(-1, keepdims=True)
    return (0.35 * grey + 0.65 * colours).round().astype(np.uint8)


def page(title: str, parts: Sequence[Array], caption: str) -> "Image":
    """Put parts under a title, and a caption below them; both are as wide as the parts."""
    from PIL import Image

    body = above(parts, gap=2 * GAP, align="left")
    width = max(body.shape[1], 480)
    head = wrapped(title, width, LARGE)
    foot = wrapped(caption, width, NORMAL, GREY)
    sheet = above([head, body, foot], gap=2 * GAP, align="left")
    return Image.fromarray(np.pad(sheet, ((16, 16), (16, 16), (0, 0)), constant_values=255))


def readable_on(colour: Array) -> tuple[int, int, int]:
    """Return black or white ink, whichever stands out from a colour (3,)."""
    brightness = np.asarray(colour, float) @ [0.299, 0.587, 0.114]
    return INK if brightness > 128 else WHITE


def cell(words: str, colour: Array, height: int, width: int, ink: Any = None) -> Array:
    """Write a few words at the centre of a cell of colour (3,), in ink that can be read."""
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (width, height), tuple(int(v) for v in colour))
    if words:
        middle = (width / 2, height / 2)
        ImageDraw.Draw(canvas).text(
            middle, words, ink or readable_on(colour), font(SMALL), anchor="mm"
        )
    return np.asarray(canvas)


def centred(image: Array, height: int, width: int) -> Array:
    """Put an image at the centre of a white cell of this size, cut to fit."""
    result = np.full((height, width, 3), 255, np.uint8)
    image = image[:height, :width]
    y, x = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
    result[y : y + image.shape[0], x : x + image.shape[1]] = image
    return result
