"""One picture, of any size and kind, as the pixels that a model wants."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..backend.arrays import Array
from ..errors import UserError
from ..storage.files import reason

if TYPE_CHECKING:
    from PIL.Image import Image

# What Pillow decodes by itself. PostScript is not among them: it would be handed to another program, which runs it.
FORMATS = (
    "AVIF",
    "BMP",
    "DIB",
    "GIF",
    "ICO",
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
MOST_PIXELS, PIXELS_A_BYTE = (
    8_000_000,
    500,
)  # an even ground can be packed as tightly as that, hardly more
ORIENTATION = 0x0112  # EXIF's; what undoes each of its values
UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
GREY = ("1", "L", "LA", "La")


def read_picture(
    path: str | Path, size: tuple[int, int], channels: int | None = None, finer: int = 1
) -> tuple[Array, str]:
    """A file that Pillow opens  ->  (H, W, C) uint8 for size (H, W), and a remark on what was done to it.

    Its first frame, turned as its EXIF says, laid on white where it is transparent, made grey (channels=1) or RGB (3; None:
    as it is itself), and fitted whole into the size, on a border of its own colour. finer: one of another size comes back
    (finer * H, finer * W, C), for somebody who will cut a part out of it. Raises UserError for what is no image,
    and for one that promises more pixels than its bytes can mean.
    """
    from PIL import Image, ImageOps

    if not Path(path).is_file():
        raise UserError(f"{str(path)!r} does not exist, or is not a file")
    H, W = size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images, of damaged remarks in them
            with Image.open(path, formats=readable()) as opened:
                frames, (width, height) = getattr(opened, "n_frames", 1), opened.size
                if width * height > MOST_PIXELS + PIXELS_A_BYTE * Path(path).stat().st_size:
                    raise ValueError(
                        f"{width:,}x{height:,} pixels in {Path(path).stat().st_size:,} bytes: it is damaged"
                    )
                channels = channels or (1 if is_grey(opened.mode) else 3)
                if opened.format == "JPEG":  # decode no more than some pixels for each of ours
                    opened.draft(None, (4 * max(H, W) * finer,) * 2)
                opened.load()
                clear = opened.has_transparency_data
                turn = opened.getexif().get(ORIENTATION, 1)
                image = shrunk(opened, "L" if channels == 1 else "RGB", 4 * max(H, W) * finer)
    except Exception as error:  # whatever a damaged file makes a decoder raise
        why = error.strerror if isinstance(error, OSError) and error.strerror else reason(error)
        if isinstance(error, Image.UnidentifiedImageError):
            why = "its format is unknown, or its beginning damaged"
        raise UserError(f"{path} cannot be read as an image ({why})") from None
    if turn in UPRIGHT:
        image = image.transpose(Image.Transpose[UPRIGHT[turn]])
        width, height = (height, width) if turn >= 5 else (width, height)
    remark = f"{width}x{height}"
    if (width, height) != (W, H):
        remark, W, H = f"{remark} fitted into {W}x{H}", finer * W, finer * H
    remark += f", first of {frames} frames" if frames > 1 else ""
    remark += ", transparency laid on white" if clear else ""
    pixels = np.atleast_3d(np.asarray(image))
    colour = tuple(int(border_grey(pixels[None, ..., c])) for c in range(pixels.shape[2]))
    padded = ImageOps.pad(
        image, (W, H), Image.Resampling.BICUBIC, color=colour if len(colour) > 1 else colour[0]
    )
    return np.atleast_3d(np.asarray(padded)), remark


def shrunk(image: "Image", mode: str, enough: int) -> "Image":
    """In mode "L" or "RGB", and its size divided by the largest number that leaves `enough` pixels on its shorter side. Done
    in bands, since converting a large picture as a whole takes several times its memory."""
    from PIL import Image

    by = max(1, min(image.size) // enough)
    found = Image.new(mode, (-(-image.width // by), -(-image.height // by)))
    top, rows = top_grey(image), by * max(1, 1_000_000 // (by * image.width))
    for y in range(0, image.height, rows):
        band = to_mode(image.crop((0, y, image.width, min(y + rows, image.height))), mode, top)
        found.paste(band.reduce(by), (0, y // by))
    return found


def readable() -> list[str]:
    """Those of FORMATS that this Pillow was built with. (JPEG opens MPO.)"""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def is_grey(mode: str) -> bool:
    return mode in GREY or is_deep(mode)


def border_grey(images: Array) -> float:
    """Median over the border pixels of images (n, H, W, ...), 0 to 255."""
    border = [images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]]
    return float(np.median(np.concatenate([b.reshape(-1) for b in border])))


def top_grey(image: "Image") -> int:
    """What is white: 255, or for 16-bit greys 65535. Greys of no declared depth (32-bit integers, floats) are read as going
    up to 1, 255 or 65535, the first that holds them all."""
    if not is_deep(image.mode):
        return 255
    low, high = map(float, image.getextrema())  # type: ignore[arg-type]    # a pair of numbers, as there is one channel
    if not (low >= 0 and high <= 65535):
        raise ValueError(
            f"its values go from {low:g} to {high:g}, wanted 0 to 1, to 255 or to 65535"
        )
    if image.mode.startswith("I;16"):
        return 65535
    return 1 if image.mode == "F" and high <= 1 else 255 if high <= 255 else 65535


def is_deep(mode: str) -> bool:
    """Whether a grey has more than 8 bits."""
    return mode == "F" or mode.startswith("I")


def to_mode(image: "Image", mode: str, top: int) -> "Image":
    """In "L" or "RGB": deep greys scaled rather than cut off, transparency laid on white."""
    from PIL import Image

    if is_deep(image.mode):
        values, clear = np.asarray(image, np.float64), image.info.get("transparency")
        grey = (values * (255 / top)).round()
        return Image.fromarray(np.where(values == clear, 255, grey).astype(np.uint8)).convert(mode)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
