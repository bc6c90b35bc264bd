"""A trained model as one thing: config, weights, preprocessing and class names, in one .npz."""

from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from .backend.arrays import Array
from .data import Dataset, read_picture
from .data.drawing import fit_ink, ink_box
from .data.image import border_grey
from .engine.workers import Workers
from .errors import UserError
from .layers.softmax import softmax_forward
from .params import Buffer
from .storage.archives import load_npz, save_npz
from .vit import ViT, ViTConfig

KIND = "numpyvit classifier 1"


@dataclass(frozen=True)
class Classifier:
    """mean, std (C,): of the training images, with 255 as 1. background: the usual grey of their border, 0 to 255. box: the
    side that what is drawn has in nearly all of them, in the middle (MNIST); 0: they are not like that."""

    model: ViT
    params: Buffer
    mean: Array
    std: Array
    classes: tuple[str, ...]
    background: float = 0.0
    box: int = 0

    def __post_init__(self) -> None:
        C, K = self.config.channels, self.config.classes
        arrays = self.params.flat, self.mean, self.std
        if not (
            all(a.dtype.kind == "f" and np.isfinite(a).all() for a in arrays)
            and (self.std > 0).all()
        ):
            raise UserError("weights, mean and std must be finite floats, and std above 0")
        if not 0 <= self.box < (min(self.config.image) if C == 1 else 1):
            raise UserError(
                f"box is {self.box}: it must be 0, or, for grey images, less than their sides"
            )
        if not (
            self.mean.shape == self.std.shape == (C,)
            and len(self.classes) == K
            and all(isinstance(name, str) for name in self.classes)
        ):
            raise UserError(
                f"mean and std must have {C} values, and classes {K} names, as the model's config has it"
            )

    @property
    def config(self) -> ViTConfig:
        return self.model.config

    @classmethod
    def of(cls, model: ViT, params: Buffer, train: Dataset) -> "Classifier":
        """With the preprocessing of the data set that it was trained on."""
        some = train.images[:1000]
        return cls(
            model, params, train.mean, train.std, train.classes, border_grey(some), ink_box(some)
        )

    def save(self, path: str | Path) -> None:
        """Write one .npz file, atomically. Raises UserError where it cannot be written."""
        note = {
            "config": self.config.to_dict(),
            "classes": self.classes,
            "background": self.background,
            "box": self.box,
        }
        save_npz(
            Path(path),
            KIND,
            note,
            {"weights": self.params.flat, "mean": self.mean, "std": self.std},
        )

    @classmethod
    def load(cls, path: str | Path) -> "Classifier":
        """Read what save wrote. Raises UserError for a file that is damaged, of another model, or not ours."""
        note, arrays = load_npz(Path(path), KIND)
        try:
            model = ViT(ViTConfig.from_dict(note["config"]))
            params = Buffer(model.params, arrays["weights"])
            return cls(
                model,
                params,
                arrays["mean"],
                arrays["std"],
                tuple(note["classes"]),
                float(note["background"]),
                int(note.get("box", 0)),
            )  # version 0.2.0 had none
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{path} does not hold a whole classifier ({error})") from None

    @classmethod
    def mnist(cls) -> "Classifier":
        """The one that ships with the package: handwritten digits, by `numpyvit train --recipe mnist-30k`."""
        with as_file(files(__package__) / "weights" / "mnist.npz") as path:
            return cls.load(path)

    def predict(self, images: Array, workers: int | None = None) -> Array:
        """images (n, H, W, C) uint8  ->  probabilities (n, K). Raises UserError for images that do not fit."""
        images = np.asarray(images)
        if images.dtype != np.uint8:
            raise UserError(
                f"images are {images.dtype}, wanted uint8 (0 to 255): predict normalises them itself"
            )
        data = Dataset(
            "", images, np.zeros(len(images), np.int64), self.mean, self.std, self.classes
        )
        with Workers(self.model, workers=workers) as threads:
            return softmax_forward(threads.predict(self.params, data))[0]

    def read_image(self, path: str | Path) -> tuple[Array, str]:
        """Any picture as data.read_picture makes it fit this model, and a remark on what was done to it. It is inverted too,
        where the model learned light strokes on a dark ground and this is dark on light (or the other way round), and what
        is drawn is moved to the middle where the model knows it nowhere else; but a picture of the model's size is not."""
        if self.config.channels not in (1, 3):
            raise UserError(
                f"this model wants images of {self.config.channels} channels, picture files have 1 or 3: use "
                "Classifier.predict"
            )
        size = self.config.image
        pixels, remark = read_picture(path, size, self.config.channels, finer=4 if self.box else 1)
        drawn, ground = self.box and pixels.shape[:2] != size, border_grey(pixels[None])
        if drawn:  # on paper of any grey: the ink tells
            inverted = ground - pixels.min() > pixels.max() - ground
        else:
            inverted = self.config.channels == 1 and abs(ground - self.background) > 127
        if inverted:
            pixels, remark = (
                255 - pixels,
                remark
                + ", inverted: it was "
                + ("dark on light" if self.background < 128 else "light on dark"),
            )
        if drawn:
            pixels, remark = fit_ink(pixels, size, self.box), remark + ", centred"
            if not pixels.any():
                raise UserError(
                    f"{path}: nothing is drawn on it that stands out; what is transparent is white"
                )
        return pixels, remark
