"""Handwritten digits, and photographs of them under good and bad conditions.

A digit is a few smooth strokes, jittered, slanted and rotated at random. A photograph
is reflectance times light, then blurred, with noise, saved as JPEG.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Array = Any
Rng = np.random.Generator
Shape = tuple[int, int]

# Strokes of one or two styles of each digit: points (x, y) of a smooth curve in a unit
# square, y downwards. A point that is given twice in a row is a corner.
STROKES: dict[int, list[list[str]]] = {
    0: [
        ["50,0 20,15 8,50 20,85 50,100 80,85 92,50 80,15 50,0"],
        ["60,2 30,10 10,50 25,92 50,98 78,85 90,45 75,8 50,2"],
    ],
    1: [["50,0 50,100"], ["30,22 55,0 55,0 55,100"]],
    2: [
        ["12,25 25,5 55,0 80,15 80,38 50,68 12,100 12,100 90,100"],
        ["15,20 40,0 75,8 80,32 55,65 15,96 15,96 50,92 90,98"],
    ],
    3: [
        ["15,10 45,0 78,12 75,36 42,48 42,48 82,60 85,85 50,100 12,88"],
        ["12,4 80,4 80,4 45,42 45,42 80,55 84,82 50,100 12,90"],
    ],
    4: [["25,0 15,60 15,60 90,60", "68,25 66,100"], ["66,100 66,0 66,0 10,68 10,68 92,68"]],
    5: [
        ["25,3 20,45 20,45 55,38 85,60 75,92 45,100 12,90", "25,3 82,0"],
        ["82,3 28,3 28,3 22,46 22,46 58,40 86,64 72,94 42,100 12,92"],
    ],
    6: [
        ["65,0 30,30 14,68 30,97 60,98 82,78 72,55 45,52 18,70"],
        ["75,5 40,15 18,55 22,90 50,100 80,85 78,60 50,52 22,68"],
    ],
    7: [["12,3 88,3 88,3 45,100"], ["12,5 88,2 88,2 42,100", "32,52 78,50"]],
    8: [
        ["78,12 45,0 20,18 45,45 80,72 60,98 35,98 18,75 50,48 78,25 78,12"],
        ["50,48 20,25 50,0 80,25 50,48 15,75 50,100 85,75 50,48"],
    ],
    9: [
        ["82,25 60,2 30,5 15,30 35,50 65,45 82,20 82,20 80,60 70,100"],
        ["80,20 50,0 18,20 30,48 60,46 80,20 80,20 78,60 50,98 25,92"],
    ],
}


def smooth(points: Array) -> Array:
    """Return many points of the Catmull-Rom curve through points (n, 2)."""
    # A corner is two equal points: the curve is made of the parts between corners.
    corners = np.flatnonzero((np.diff(points, axis=0) == 0).all(1)) + 1
    curves = []
    t = np.linspace(0, 1, 24)[:, None]
    for part in np.split(points, corners):
        p = np.concatenate([part[:1], part, part[-1:]])
        for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False):
            curve = 2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2
            curves.append((curve + (3 * b - a - 3 * c + d) * t**3) / 2)
    return np.concatenate(curves)


def written(digit: int, rng: Rng, height: int = 300, width: float = 0.1) -> Array:
    """Return a handwritten digit, cropped: (h, w) floats, 1 where there is ink.

    height: of the digit, in pixels.  width: of the stroke, relative to the height.
    """
    style = STROKES[digit][rng.integers(len(STROKES[digit]))]
    strokes = [np.array([p.split(",") for p in s.split()], float) / 100 for s in style]
    angle, slant = rng.uniform(-0.08, 0.08), rng.uniform(-0.25, 0.1)
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = np.array([[cos, -sin], [sin, cos]]) @ np.array([[0.68, slant], [0, 1]])
    thick = 2 * max(1, round(width * height))
    n = 2 * height + 2 * thick
    canvas = Image.new("L", (n, n))
    draw = ImageDraw.Draw(canvas)
    for stroke in strokes:
        jitter = rng.normal(0, 0.015, stroke.shape)
        repeated = np.flatnonzero((np.diff(stroke, axis=0) == 0).all(1))
        jitter[repeated + 1] = jitter[repeated]
        curve = (smooth(stroke + jitter) - 0.5) @ matrix.T * (2 * height) + n / 2
        draw.line([tuple(p) for p in curve], fill=255, width=thick, joint="curve")
        for x, y in curve[:: max(1, len(curve) // 400)]:
            r = thick / 2
            draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
    ink = np.asarray(canvas.reduce(2), np.float32) / 255
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def placed(ink: Array, shape: Shape, rng: Rng, margin: int = 90) -> Array:
    """Return ink (h, w) at a random place of a page of this shape."""
    page = np.zeros(shape, np.float32)
    free = [max(0, n - k) for n, k in zip(shape, ink.shape, strict=True)]
    y, x = (rng.integers(min(margin, n // 2), max(n - margin, n // 2) + 1) for n in free)
    page[y : y + ink.shape[0], x : x + ink.shape[1]] = ink[: shape[0] - y, : shape[1] - x]
    return page


# Light (H, W), about 1, with which the page is multiplied.


def ramp(shape: Shape, angle: float) -> Array:
    """Return a plane that rises from 0 to 1 over the page in the direction of the angle."""
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    plane = x * math.cos(angle) + y * math.sin(angle)
    return (plane - plane.min()) / (plane.max() - plane.min())


def gradient(shape: Shape, rng: Rng) -> Array:
    """Return light that falls to 35 % across the page."""
    return 1 - 0.65 * ramp(shape, rng.uniform(0, 2 * math.pi))


def shadow(shape: Shape, rng: Rng, depth: float) -> Array:
    """Return light with a shadow whose rather sharp edge goes through the page."""
    plane = ramp(shape, rng.uniform(0, 2 * math.pi)) - rng.uniform(0.35, 0.65)
    return 1 - depth / (1 + np.exp(-plane / rng.uniform(0.004, 0.03)))


def vignette(shape: Shape, rng: Rng) -> Array:
    """Return light that falls to 40 % in the corners."""
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    return 1 - 0.3 * (x * x + y * y)


# What lies or is printed on the page: changes the reflectance (H, W) in place.


def lay_on_a_desk(page: Array, rng: Rng, sides: int) -> None:
    """Darken what lies beyond the paper's edges, which are tilted by a few degrees."""
    H, W = page.shape
    y, x = np.mgrid[0:H, 0:W]
    tilt = math.tan(rng.uniform(-0.07, 0.07))
    edges = [
        y - H * rng.uniform(0.03, 0.09) - tilt * (x - W / 2),
        H * (1 - rng.uniform(0.03, 0.09)) - y + tilt * (x - W / 2),
        x - W * rng.uniform(0.03, 0.09) + tilt * (y - H / 2),
        W * (1 - rng.uniform(0.03, 0.09)) - x - tilt * (y - H / 2),
    ]
    for i in rng.permutation(4)[:sides]:
        page[edges[i] < 0] = rng.uniform(0.1, 0.3)


def scatter_specks(page: Array, rng: Rng) -> None:
    """Put 8 to 20 dark specks on the page."""
    H, W = page.shape
    y, x = np.mgrid[0:H, 0:W]
    for _ in range(rng.integers(8, 21)):
        r = rng.uniform(1.5, 5)
        dark = np.hypot(y - rng.uniform(0, H), (x - rng.uniform(0, W)) * rng.uniform(0.6, 1)) < r
        page[dark] = rng.uniform(0.1, 0.4)


def draw_frame(page: Array, rng: Rng) -> None:
    """Draw a rectangle near the edges of the page, a little tilted."""
    H, W = page.shape
    top, left = 0.04 * H, 0.04 * W
    corners = [(left, top), (W - left, top), (W - left, H - top), (left, H - top)]
    corners = [(x + rng.uniform(-9, 9), y + rng.uniform(-9, 9)) for x, y in corners]
    mask = Image.new("L", (W, H))
    line = [*corners, corners[0]]
    ImageDraw.Draw(mask).line(line, fill=255, width=int(rng.integers(3, 9)), joint="curve")
    page[np.asarray(mask) > 0] = 0.15


def draw_lines(page: Array, rng: Rng, squared: bool) -> None:
    """Print the faint lines of ruled or squared paper."""
    step = int(rng.integers(30, 50))
    rows = [slice(i, i + 2) for i in range(step // 2, page.shape[0], step)]
    for row in rows:
        page[row] *= 0.72
    if squared:
        for i in range(step // 2, page.shape[1], step):
            page[:, i : i + 2] *= 0.72


def photographed(
    ink: Array,
    rng: Rng,
    light: Callable[[Shape, Rng], Array] | None = None,
    change: Callable[[Array, Rng], None] | None = None,
    noise: float = 6,
    blur: float = 1.2,
    paper: float = 0.85,
    pen: float = 0.15,
) -> Image.Image:
    """Return the photograph of a page with this ink (H, W)."""
    page = np.full(ink.shape, paper, np.float32)
    if change is not None:
        change(page, rng)
    page += ink * (pen - page) if pen > paper else np.minimum(0, ink * (pen - page))
    if light is not None:
        page *= light(ink.shape, rng)
    image = Image.fromarray((page * 255).clip(0, 255).astype(np.uint8))
    blurred = np.asarray(image.filter(ImageFilter.GaussianBlur(blur)), np.float32)
    noisy = blurred + rng.normal(0, noise, ink.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def in_colour(image: Image.Image) -> Image.Image:
    """Return the photograph of blue ink on yellow paper."""
    grey = np.asarray(image, np.float32)[..., None] / 255
    rgb = grey * (250, 235, 150) + (1 - grey) * (10, 20, 140)
    return Image.fromarray(rgb.astype(np.uint8))


def on_a_desk(ink: Array, rng: Rng, sides: int) -> Image.Image:
    """Return the photograph of a sheet beyond which a desk is seen on 1 to 4 sides."""
    return photographed(ink, rng, None, lambda page, r: lay_on_a_desk(page, r, sides))


Photograph = Callable[[Array, Rng], Image.Image]

CONDITIONS: dict[str, Photograph] = {
    "even light": photographed,
    "gradient": lambda ink, rng: photographed(ink, rng, gradient),
    "vignette": lambda ink, rng: photographed(ink, rng, vignette),
    "shadow of 30 %, noise 8": lambda ink, rng: photographed(
        ink, rng, lambda s, r: shadow(s, r, 0.3), noise=8
    ),
    "shadow of 30 %, noise 16": lambda ink, rng: photographed(
        ink, rng, lambda s, r: shadow(s, r, 0.3), noise=16
    ),
    "shadow of 40 %, noise 8": lambda ink, rng: photographed(
        ink, rng, lambda s, r: shadow(s, r, 0.4), noise=8
    ),
    "shadow of 40 %, noise 16": lambda ink, rng: photographed(
        ink, rng, lambda s, r: shadow(s, r, 0.4), noise=16
    ),
    **{f"desk on {n} of 4 sides": partial(on_a_desk, sides=n) for n in (1, 2, 3, 4)},
    "specks": lambda ink, rng: photographed(ink, rng, None, scatter_specks),
    "frame": lambda ink, rng: photographed(ink, rng, None, draw_frame),
    "ruled paper": lambda ink, rng: photographed(
        ink, rng, None, lambda page, r: draw_lines(page, r, False)
    ),
    "squared paper": lambda ink, rng: photographed(
        ink, rng, None, lambda page, r: draw_lines(page, r, True)
    ),
    "chalk on a board": lambda ink, rng: photographed(ink, rng, vignette, paper=0.2, pen=0.85),
    "blue ink on yellow paper": lambda ink, rng: in_colour(photographed(ink, rng, gradient)),
    "out of focus": lambda ink, rng: photographed(ink, rng, gradient, blur=6),
    "pencil": lambda ink, rng: photographed(ink, rng, gradient, pen=0.5),
}
