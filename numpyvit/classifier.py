"""A trained model as one thing: config, weights, preprocessing and class names, in one .npz."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .backend import Array
from .checkpoint import load_npz, save_npz
from .data import Dataset
from .errors import UserError
from .layers.softmax import softmax_forward
from .parallel import Workers
from .params import Buffer
from .vit import ViT, ViTConfig

KIND = "numpyvit classifier 1"


@dataclass(frozen=True)
class Classifier:
    """mean, std (C,): of the training images, with 255 as 1. background: the usual grey of their border, 0 to 255."""

    model: ViT
    params: Buffer
    mean: Array
    std: Array
    classes: tuple[str, ...]
    background: float = 0.0

    def __post_init__(self) -> None:
        C, K = self.config.channels, self.config.classes
        arrays = self.params.flat, self.mean, self.std
        if not (all(a.dtype.kind == "f" and np.isfinite(a).all() for a in arrays) and (self.std > 0).all()):
            raise UserError("weights, mean and std must be finite floats, and std above 0")
        if not (self.mean.shape == self.std.shape == (C,) and len(self.classes) == K
                and all(isinstance(name, str) for name in self.classes)):
            raise UserError(f"mean and std must have {C} values, and classes {K} names, as the model's config has it")

    @property
    def config(self) -> ViTConfig:
        return self.model.config

    @classmethod
    def of(cls, model: ViT, params: Buffer, train: Dataset) -> "Classifier":
        """With the preprocessing of the data set that it was trained on."""
        return cls(model, params, train.mean, train.std, train.classes, border_grey(train.images[:1000]))

    def save(self, path: str | Path) -> None:
        """Write one .npz file, atomically. Raises UserError where it cannot be written."""
        note = {"config": self.config.to_dict(), "classes": self.classes, "background": self.background}
        save_npz(Path(path), KIND, note, {"weights": self.params.flat, "mean": self.mean, "std": self.std})

    @classmethod
    def load(cls, path: str | Path) -> "Classifier":
        """Read what save wrote. Raises UserError for a file that is damaged, of another model, or not ours."""
        note, arrays = load_npz(Path(path), KIND)
        try:
            model = ViT(ViTConfig.from_dict(note["config"]))
            params = Buffer(model.params, arrays["weights"])
            return cls(model, params, arrays["mean"], arrays["std"], tuple(note["classes"]), float(note["background"]))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{path} does not hold a whole classifier ({error})") from None

    def predict(self, images: Array, workers: int | None = None) -> Array:
        """images (n, H, W, C) uint8  ->  probabilities (n, K). Raises UserError for images that do not fit."""
        images = np.asarray(images)
        if images.dtype != np.uint8:
            raise UserError(f"images are {images.dtype}, wanted uint8 (0 to 255): predict normalises them itself")
        data = Dataset("", images, np.zeros(len(images), np.int64), self.mean, self.std, self.classes)
        with Workers(self.model, workers=workers) as threads:
            return softmax_forward(threads.predict(self.params, data))[0]

    def read_image(self, path: str | Path) -> tuple[Array, str]:
        """Any image that Pillow opens  ->  (H, W, C) uint8 as this model wants it, and a remark on what was done to it.

        Its first frame, turned as its EXIF says, laid on white where it is transparent, made grey or RGB, fitted whole
        into the model's size on a border of its own colour, and inverted where the model learned light strokes on a dark
        ground and this is dark on light (or the other way round). Raises UserError for a file that is not an image.
        """
        from PIL import Image, ImageOps

        size = self.config.image[::-1]
        if not Path(path).is_file():
            raise UserError(f"{str(path)!r} does not exist, or is not a file")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")                          # of large images, of damaged remarks in them
                with Image.open(path) as opened:
                    frames = getattr(opened, "n_frames", 1)
                    clear = opened.has_transparency_data
                    image = to_mode(ImageOps.exif_transpose(opened), "L" if self.config.channels == 1 else "RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            if isinstance(error, Image.UnidentifiedImageError):
                reason = "Pillow does not know its format"
            raise UserError(f"{path} cannot be read as an image ({reason})") from None
        pixels = np.atleast_3d(np.asarray(image))
        colour = tuple(int(border_grey(pixels[None, ..., c])) for c in range(pixels.shape[2]))
        remark = f"{image.width}x{image.height}" + (f" fitted into {size[0]}x{size[1]}" if image.size != size else "")
        remark += f", first of {frames} frames" if frames > 1 else ""
        remark += ", transparency laid on white" if clear else ""
        padded = ImageOps.pad(image, size, Image.Resampling.BICUBIC, color=colour if len(colour) > 1 else colour[0])
        pixels = np.atleast_3d(np.asarray(padded))
        if self.config.channels == 1 and abs(colour[0] - self.background) > 127:
            pixels, remark = 255 - pixels, remark + ", inverted: it was " + (
                "dark on light" if self.background < 128 else "light on dark")
        return pixels, remark


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
