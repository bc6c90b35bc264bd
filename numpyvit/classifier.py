"""A trained model with everything that is needed to use it, saved in one .npz file."""

from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from .backend.arrays import Array
from .data import Dataset, read_picture
from .data.drawing import drawing_box, fit_drawing
from .data.image import border_grey
from .engine.workers import Workers
from .errors import UserError
from .layers.softmax import softmax_forward
from .params import Buffer
from .storage.archives import load_npz, save_npz
from .vit import ViT, ViTConfig

KIND = "numpyvit classifier 1"
SAMPLE = 1000  # images of the training set that background and box are computed from


@dataclass(frozen=True)
class Classifier:
    """A model, its weights, the preprocessing of its images, and the names of its classes.

    mean, std: (C,), of the pixels of the training images divided by 255.
    classes: K names.
    background: the usual grey of the border of the training images, 0 to 255.
    box: if the training images are centred drawings, as in MNIST, the side of the box
        that they fill, in pixels; otherwise 0.

    Raises UserError if the parts do not fit each other.
    """

    model: ViT
    params: Buffer
    mean: Array
    std: Array
    classes: tuple[str, ...]
    background: float = 0.0
    box: int = 0

    def __post_init__(self) -> None:
        C = self.config.channels
        K = self.config.classes
        arrays = [self.params.flat, self.mean, self.std]
        are_finite = all(a.dtype.kind == "f" and np.isfinite(a).all() for a in arrays)
        if not (are_finite and (self.std > 0).all()):
            raise UserError("weights, mean and std must be finite floats, and std above 0")
        limit = min(self.config.image) if C == 1 else 1
        if not 0 <= self.box < limit:
            raise UserError(
                f"box is {self.box}: it must be 0, or, for grey images, smaller than their sides"
            )
        are_names = all(isinstance(name, str) for name in self.classes)
        if not (self.mean.shape == self.std.shape == (C,) and len(self.classes) == K and are_names):
            raise UserError(
                f"mean and std must have {C} values, and classes {K} names, to fit the config"
            )

    @property
    def config(self) -> ViTConfig:
        """The config of the model."""
        return self.model.config

    @classmethod
    def of(cls, model: ViT, params: Buffer, train: Dataset) -> "Classifier":
        """Make a Classifier with the preprocessing of its training set."""
        sample = train.images[:SAMPLE]
        return cls(
            model,
            params,
            train.mean,
            train.std,
            train.classes,
            background=border_grey(sample),
            box=drawing_box(sample),
        )

    def save(self, path: str | Path) -> None:
        """Write one .npz file, atomically. Raises UserError if it cannot be written."""
        note = {
            "config": self.config.to_dict(),
            "classes": self.classes,
            "background": self.background,
            "box": self.box,
        }
        arrays = {"weights": self.params.flat, "mean": self.mean, "std": self.std}
        save_npz(Path(path), KIND, note, arrays)

    @classmethod
    def load(cls, path: str | Path) -> "Classifier":
        """Read a file that `save` wrote.

        Raises UserError if it is damaged, incomplete or of another kind.
        """
        note, arrays = load_npz(Path(path), KIND)
        try:
            model = ViT(ViTConfig.from_dict(note["config"]))
            return cls(
                model,
                Buffer(model.params, arrays["weights"]),
                arrays["mean"],
                arrays["std"],
                tuple(note["classes"]),
                background=float(note["background"]),
                box=int(note.get("box", 0)),  # files of version 0.2.0 have no box
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(f"{path} does not contain a complete classifier ({error})") from None

    @classmethod
    def mnist(cls) -> "Classifier":
        """Return the packaged model of handwritten digits (`--recipe mnist-30k`)."""
        with as_file(files(__package__) / "weights" / "mnist.npz") as path:
            return cls.load(path)

    def predict(self, images: Array, workers: int | None = None) -> Array:
        """images (n, H, W, C) uint8  ->  probabilities (n, K).

        workers: the number of threads, by default one for each core.

        Raises UserError for images that do not fit the model.
        """
        images = np.asarray(images)
        if images.dtype != np.uint8:
            raise UserError(
                f"images are {images.dtype}, wanted uint8 (0 to 255): "
                "give the original pixels, which predict normalises itself"
            )
        labels = np.zeros(len(images), np.int64)  # predictions do not depend on them
        data = Dataset("", images, labels, self.mean, self.std, self.classes)
        with Workers(self.model, workers=workers) as threads:
            logits = threads.predict(self.params, data)
        return softmax_forward(logits)[0]

    def read_image(self, path: str | Path) -> tuple[Array, str]:
        """Read an image file so that it resembles the training images.

        Returns the pixels (H, W, C) uint8 and a remark on how the image was changed.
        First read_picture fits it into the model's size. A grey image is inverted if it
        is dark on light and the training images are light on dark, or vice versa. If
        those are centred drawings, the drawing is scaled and centred too, unless the
        file has exactly the model's size.

        Raises UserError if the file is not an image, if nothing is drawn on it, or if
        the model does not have 1 or 3 channels.
        """
        size = self.config.image
        channels = self.config.channels
        if channels not in (1, 3):
            raise UserError(
                f"this model expects images with {channels} channels, but image files have 1 or 3: "
                "use Classifier.predict"
            )
        oversample = 4 if self.box else 1
        pixels, remark = read_picture(path, size, channels, oversample)
        is_drawing = self.box > 0 and pixels.shape[:2] != size
        background = border_grey(pixels[None])
        if is_drawing:
            # The paper may have any grey. The ink is what differs from it most.
            is_inverted = background - pixels.min() > pixels.max() - background
        else:
            is_inverted = channels == 1 and abs(background - self.background) > 127
        if is_inverted:
            pixels = 255 - pixels
            was = "dark on light" if self.background < 128 else "light on dark"
            remark += f", inverted: it was {was}"
        if is_drawing:
            pixels = fit_drawing(pixels, size, self.box)
            remark += ", centred"
            if not pixels.any():
                raise UserError(
                    f"{path}: nothing is drawn on it that stands out from the background "
                    "(transparent pixels count as white)"
                )
        return pixels, remark
