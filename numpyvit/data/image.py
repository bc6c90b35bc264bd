"""One picture, of any size and kind, as the pixels that a model wants."""

import warnings
from pathlib import Path

import numpy as np

from ..backend import Array
from ..disk import reason
from ..errors import UserError

# What Pillow decodes by itself. PostScript is not among them: it would be handed to another program, which runs it.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "QOI", "SGI", "SUN", "TGA",
           "TIFF", "WEBP", "XBM")
GREY = ("1", "L", "LA", "La", "F")                    # and all of the 16- and 32-bit ones, "I..."


def read_picture(path: str | Path, size: tuple[int, int], channels: int | None = None) -> tuple[Array, str]:
    """A file that Pillow opens  ->  (H, W, C) uint8 for size (H, W), and a remark on what was done to it.

    Its first frame, turned as its EXIF says, laid on white where it is transparent, made grey (channels=1) or RGB (3; None:
    as it is itself), and fitted whole into the size, on a border of its own colour. Raises UserError for what is no image.
    """
    from PIL import Image, ImageOps

    if not Path(path).is_file():
        raise UserError(f"{str(path)!r} does not exist, or is not a file")
    H, W = size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")                              # of large images, of damaged remarks in them
            with Image.open(path, formats=readable()) as opened:
                frames, full = getattr(opened, "n_frames", 1), opened.size
                channels = channels or (1 if is_grey(opened.mode) else 3)
                if opened.format == "JPEG":                              # decode no more than some pixels for each of ours
                    opened.draft(None, (4 * max(H, W), 4 * max(H, W)))
                clear = opened.has_transparency_data
                image = ImageOps.exif_transpose(opened)
                full = full if (image.width > image.height) == (opened.width > opened.height) else full[::-1]
                image = to_mode(image, "L" if channels == 1 else "RGB")
    except Exception as error:                                           # whatever a damaged file makes a decoder raise
        why = error.strerror if isinstance(error, OSError) and error.strerror else reason(error)
        if isinstance(error, Image.UnidentifiedImageError):
            why = "its format is unknown, or its beginning damaged"
        raise UserError(f"{path} cannot be read as an image ({why})") from None
    remark = f"{full[0]}x{full[1]}" + (f" fitted into {W}x{H}" if full != (W, H) else "")
    remark += f", first of {frames} frames" if frames > 1 else ""
    remark += ", transparency laid on white" if clear else ""
    pixels = np.atleast_3d(np.asarray(image))
    colour = tuple(int(border_grey(pixels[None, ..., c])) for c in range(pixels.shape[2]))
    padded = ImageOps.pad(image, (W, H), Image.Resampling.BICUBIC, color=colour if len(colour) > 1 else colour[0])
    return np.atleast_3d(np.asarray(padded)), remark


def readable() -> list[str]:
    """Those of FORMATS that this Pillow was built with. (JPEG opens MPO.)"""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def is_grey(mode: str) -> bool:
    return mode in GREY or mode.startswith("I")


def border_grey(images: Array) -> float:
    """Median over the border pixels of images (n, H, W, ...), 0 to 255."""
    border = [images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]]
    return float(np.median(np.concatenate([b.reshape(-1) for b in border])))


def to_mode(image, mode: str):  # type: ignore[no-untyped-def]     # Pillow's types need the import that we put off
    """A Pillow image in "L" or "RGB": 16-bit greys scaled rather than cut off, transparency laid on white. Greys of no
    declared depth (32-bit integers, floats) are read as going up to 1, 255 or 65535, the first that holds them all."""
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image, np.float64)
        low, high = values.min(), values.max()
        if not (low >= 0 and high <= 65535):
            raise ValueError(f"its values go from {low:g} to {high:g}, wanted 0 to 1, to 255 or to 65535")
        if image.mode.startswith("I;16"):
            top = 65535
        else:
            top = 1 if image.mode == "F" and high <= 1 else 255 if high <= 255 else 65535
        image = Image.fromarray((values * (255 / top)).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
