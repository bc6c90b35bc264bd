"""Reading one image file of any size and format as the pixels that a model expects."""

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..backend.arrays import Array
from ..errors import UserError, is_positive_int
from ..storage.archives import reason
from ..storage.files import open_file

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

# The formats that Pillow decodes itself. PostScript is excluded: Pillow passes it to
# another program, which would execute it. So are icons (ICO): Pillow decodes the PNG in
# them before its size can be looked at.
FORMATS = (
    "AVIF",
    "BMP",
    "DIB",
    "GIF",
    "JPEG",
    "JPEG2000",
    "MPO",
    "PCX",
    "PNG",
    "PPM",
    "QOI",
    "SGI",
    "SUN",
    "TGA",
    "TIFF",
    "WEBP",
    "XBM",
)
# An image with more pixels than MAX_PIXELS + MAX_PIXELS_PER_BYTE * (size of the file) is
# taken for damaged. Only images of one colour can be compressed nearly that much. Pillow
# refuses more than 179 million pixels in any case (Image.MAX_IMAGE_PIXELS).
MAX_PIXELS = 8_000_000
MAX_PIXELS_PER_BYTE = 500
LARGEST_SIDE = 8192  # that an image is fitted into
ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = {  # the transposition that undoes each orientation
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
GREY_MODES = ("1", "L", "LA", "La")
STDERR = 2  # the file descriptor
stderr_lock = threading.Lock()
NO_LOG = logging.NullHandler()  # a handler is added once, however often it is added


def read_picture(
    path: str | Path, size: tuple[int, int], channels: int | None = None, oversample: int = 1
) -> tuple[Array, str]:
    """Read an image file and fit it into size (H, W).

    Returns the pixels (H, W, C) uint8 and a remark on how the image was changed.

    size: positive integers.
    channels: 1 for grey, 3 for RGB, None for what the image itself has.
    oversample: if this is above 1, an image of another size is scaled to fit into this
        many times (H, W), without a border, for a caller that will crop it.

    The first frame of the image is rotated as its EXIF data says, put on white where it
    is transparent, and scaled to fit completely, with a border in the colour of its own
    edge. Raises UserError for a file that is not an image, for an image that declares
    more pixels than its bytes can hold, and for an impossible size or number of
    channels.
    """
    from PIL import Image

    if channels not in (None, 1, 3):
        raise UserError(f"channels is {channels!r}: it must be 1 (grey), 3 (RGB) or None")
    if len(size) != 2 or not all(is_positive_int(n) and n <= LARGEST_SIDE for n in size):
        raise UserError(
            f"size is {size!r}: it must be (height, width), two integers from 1 to {LARGEST_SIDE:,}"
        )
    if not Path(path).is_file():
        raise UserError(f"{str(path)!r} does not exist or is not a file")
    H, W = size
    enough = 4 * max(H, W) * oversample  # pixels on the shorter side, before the last scaling
    try:
        with open_picture(Path(path)) as opened:
            # The frames are not counted: that can take minutes.
            is_animated = getattr(opened, "is_animated", False)
            width, height = opened.size
            check_pixel_count(width, height, Path(path).stat().st_size)
            channels = channels or (1 if is_grey(opened.mode) else 3)
            if opened.format == "JPEG":  # let the decoder reduce a large image
                opened.draft(None, (enough, enough))
            with silent_libtiff(opened):
                opened.load()
            is_transparent = opened.has_transparency_data
            orientation = opened.getexif().get(ORIENTATION, 1)
            image = reduce_size(opened, "L" if channels == 1 else "RGB", enough)
    except UserError:
        raise
    except Exception as error:  # decoders raise many kinds for a damaged file
        why = error.strerror if isinstance(error, OSError) and error.strerror else reason(error)
        if isinstance(error, Image.UnidentifiedImageError):
            why = "its format is unknown, or its beginning is damaged"
        raise UserError(f"{path} cannot be read as an image ({why})") from None

    if orientation in UPRIGHT:
        image = image.transpose(Image.Transpose[UPRIGHT[orientation]])
        if orientation >= 5:
            width, height = height, width
    remark = f"{width}x{height}"
    if (width, height) != (W, H):
        remark += f" fitted into {W}x{H}"
        W *= oversample
        H *= oversample
    if is_animated:
        remark += ", first of several frames"
    if is_transparent:
        remark += ", transparency replaced by white"
    if oversample > 1:
        scale = min(W / image.width, H / image.height)
        width = max(1, round(scale * image.width))
        height = max(1, round(scale * image.height))
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        return np.atleast_3d(np.asarray(image)), remark
    return fit(image, (H, W)), remark


def fit(image: "Image", size: tuple[int, int]) -> Array:
    """Return an image of mode "L" or "RGB", scaled into size (H, W), as (H, W, C) uint8.

    What remains on two sides gets the colour of the image's own border.
    """
    from PIL import Image, ImageOps

    pixels = np.atleast_3d(np.asarray(image))
    border = [int(border_grey(pixels[None, ..., c])) for c in range(pixels.shape[2])]
    colour = tuple(border) if len(border) > 1 else border[0]
    H, W = size
    fitted = ImageOps.pad(image, (W, H), Image.Resampling.BICUBIC, color=colour)
    return np.atleast_3d(np.asarray(fitted))


@contextmanager
def open_picture(path: Path) -> Iterator["ImageFile"]:
    """Open an image file whose header has been read, but whose pixels have not.

    Raises many kinds of errors for a damaged file.
    """
    from PIL import Image

    # Pillow warns of large images and of damaged metadata, and logs what it does not know.
    # Where a program has not asked for the log, Python would print it.
    logging.getLogger("PIL").addHandler(NO_LOG)
    with (
        warnings.catch_warnings(action="ignore"),
        open_file(path) as file,
        Image.open(file, formats=readable_formats()) as image,
    ):
        yield image


@contextmanager
def silent_libtiff(image: "ImageFile") -> Iterator[None]:
    """Discard what is written to stderr while a TIFF is decoded.

    libtiff, which Pillow calls for compressed TIFFs, writes complaints about damaged
    files to the file descriptor itself, and Pillow has no switch for that. So the
    descriptor leads nowhere for this moment. It belongs to the whole process. The lock
    keeps a second thread from taking "nowhere" for the real stderr, and restoring that
    at the end. What other threads print in this moment is lost.
    """
    # If the process has no stderr, the file itself may have been given its number.
    if image.format != "TIFF" or image.fp is None or image.fp.fileno() == STDERR:
        yield
        return
    with stderr_lock:
        try:
            saved = os.dup(STDERR)
        except OSError:  # this process has no stderr
            saved = -1
        try:
            if saved >= 0:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, STDERR)
                os.close(nowhere)
            yield
        finally:
            if saved >= 0:
                os.dup2(saved, STDERR)
                os.close(saved)


def check_pixel_count(width: int, height: int, size: int) -> None:
    """Raise ValueError if `size` bytes cannot hold this many pixels."""
    if width * height > MAX_PIXELS + MAX_PIXELS_PER_BYTE * size:
        raise ValueError(f"{width:,}x{height:,} pixels in {size:,} bytes: it is damaged")


def reduce_size(image: "Image", mode: str, enough: int) -> "Image":
    """Convert an image to "L" or "RGB" and divide its size by an integer.

    The integer is the largest that leaves `enough` pixels on the shorter side. The work
    is done in bands, because converting a large image at once needs several times its
    memory.
    """
    from PIL import Image

    by = max(1, min(image.size) // enough)
    width = -(-image.width // by)
    height = -(-image.height // by)
    reduced = Image.new(mode, (width, height))
    white = white_value(image)
    rows = by * max(1, 1_000_000 // (by * image.width))  # of a band
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        band = convert(image.crop((0, top, image.width, bottom)), mode, white)
        reduced.paste(band.reduce(by), (0, top // by))
    return reduced


def readable_formats() -> list[str]:
    """Return those of FORMATS that this Pillow was built with. (JPEG opens MPO.)"""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def is_grey(mode: str) -> bool:
    """Return whether images of this Pillow mode have no colours."""
    return mode in GREY_MODES or is_deep(mode)


def is_deep(mode: str) -> bool:
    """Return whether this Pillow mode is grey with more than 8 bits."""
    return mode == "F" or mode.startswith("I")


def border_grey(images: Array) -> float:
    """Return the median of the border pixels of images (n, H, W, ...), 0 to 255."""
    edges = [images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]]
    return float(np.median(np.concatenate([edge.reshape(-1) for edge in edges])))


def white_value(image: "Image") -> int:
    """Return the value of white: 255, or 65535 for 16-bit greys.

    Grey values without a declared depth (32-bit integers and floats) are taken to go up
    to 1, 255 or 65535, whichever is the first to contain them all. Raises ValueError if
    none does.
    """
    if not is_deep(image.mode):
        return 255
    low, high = map(float, image.getextrema())  # type: ignore[arg-type]    # one channel: a pair
    if not (low >= 0 and high <= 65535):
        raise ValueError(
            f"its values go from {low:g} to {high:g}, wanted 0 to 1, to 255 or to 65535"
        )
    if image.mode.startswith("I;16"):
        return 65535
    if image.mode == "F" and high <= 1:
        return 1
    return 255 if high <= 255 else 65535


def convert(image: "Image", mode: str, white: int) -> "Image":
    """Convert an image to "L" or "RGB".

    Deep greys are scaled to 8 bits, and transparent pixels become white.
    """
    from PIL import Image

    if is_deep(image.mode):
        values = np.asarray(image, np.float64)
        grey = (values * (255 / white)).round()
        is_transparent = values == image.info.get("transparency")
        grey = np.where(is_transparent, 255, grey)
        return Image.fromarray(grey.astype(np.uint8)).convert(mode)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
