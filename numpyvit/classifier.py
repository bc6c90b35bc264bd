"""A trained model with everything that is needed to use it, saved in one .npz file."""

from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np

from .backend.arrays import Array, as_array, check_array
from .data import Dataset, read_picture
from .data.dataset import check_classes
from .data.drawing import OVERSAMPLE, drawing_box, read_drawing
from .data.image import border_grey
from .engine.workers import Workers
from .errors import UserError, check_int, check_number, check_path, check_type, shown
from .layers.softmax import softmax_forward
from .params import Buffer, Param
from .storage.archives import load_npz, save_npz
from .vit import ViT, ViTConfig
from .vit_checks import check_shape

KIND = "numpyvit classifier 1"
LARGEST = 1e6  # mean and std that float32 can compute with; usual ones are below 1
SAMPLE = 1000  # images of the training set that background and box are computed from


@dataclass(frozen=True, eq=False, repr=False)
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
        check_type("model", self.model, ViT, "a ViT")
        check_type("params", self.params, Buffer, "the weights, such as model.init() returns")
        if not all(p in self.params for p in self.model.params.values()):
            raise UserError("params are the weights of another model: use those of model.init()")
        C = self.config.channels
        K = self.config.classes
        check_array("mean", self.mean, "floats", (C,))
        check_array("std", self.std, "floats", (C,))
        arrays = [self.params.flat, self.mean, self.std]
        if not (all(np.isfinite(a).all() for a in arrays) and (self.std > 0).all()):
            raise UserError("weights, mean and std must be finite floats, and std above 0")
        if (abs(self.mean) > LARGEST).any() or (abs(np.log(self.std)) > np.log(LARGEST)).any():
            raise UserError(
                f"mean must be at most {LARGEST:g}, and std from {1 / LARGEST:g} to {LARGEST:g}: "
                "they are of pixels divided by 255"
            )
        check_number("background", self.background, least=0, most=255)
        check_int("box", self.box)
        limit = min(self.config.image) if C == 1 else 1
        if not 0 <= self.box < limit:
            raise UserError(
                f"box is {self.box}: it must be 0, or, for grey images, smaller than their sides"
            )
        object.__setattr__(self, "classes", check_classes(self.classes))
        if len(self.classes) != K:
            raise UserError(f"classes has {len(self.classes)} names: the model has {K} classes")

    def __repr__(self) -> str:
        return f"<Classifier of {len(self.classes)} classes, {self.model!r}>"

    @property
    def config(self) -> ViTConfig:
        """The config of the model."""
        return self.model.config

    @classmethod
    def of(cls, model: ViT, params: Buffer, train: Dataset) -> "Classifier":
        """Make a Classifier with the preprocessing of its training set."""
        check_type("train", train, Dataset, "the Dataset that the model was trained on")
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
        """Write one .npz file, atomically.

        Raises UserError if it cannot be written, or if layers of the model were exchanged:
        the file has only the config and the weights, from which `load` builds ViT(config).
        """
        check_path("path", path)
        if not Path(path).name:
            raise UserError(f"path is {shown(path)}: it must end in the name of a file")
        check_standard(self.model)
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
        check_path("path", path)
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

        Raises UserError for images that do not fit the model, and if its weights are so
        large that the result is not finite.
        """
        images = as_array("images", images)
        check_shape(self.config, images)
        if images.dtype != np.uint8:
            raise UserError(
                f"images are {images.dtype}, wanted uint8 (0 to 255): "
                "give the original pixels, which predict normalises itself"
            )
        labels = np.zeros(len(images), np.int64)  # predictions do not depend on them
        data = Dataset("", images, labels, self.mean, self.std, self.classes)
        with Workers(self.model, workers=workers) as threads:
            logits = threads.predict(self.params, data)
        if not np.isfinite(logits).all():
            raise UserError(
                "the model's result is not finite: its weights are damaged, train again"
            )
        return softmax_forward(logits)[0]

    def read_image(self, path: str | Path) -> tuple[Array, str]:
        """Read an image file so that it resembles the training images.

        Returns the pixels (H, W, C) uint8 and a remark on how the image was changed.
        First read_picture fits it into the model's size. A grey image is inverted if it
        is dark on light and the training images are light on dark, or vice versa. If
        those are centred drawings, the drawing is found on the page, scaled and centred
        (read_drawing), unless the file has exactly the model's size and this was done
        before.

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
        if self.box:
            pixels, remark = read_picture(path, size, channels, OVERSAMPLE)
            drawing = read_drawing(pixels, size, self.box)
            if drawing is None:
                message = f"{path}: nothing is drawn on it that stands out from the background"
                if "transparency" in remark:
                    message += " (transparent pixels count as white)"
                raise UserError(message)
            return drawing[0], remark + drawing[1]
        pixels, remark = read_picture(path, size, channels)
        if channels == 1 and abs(border_grey(pixels[None]) - self.background) > 127:
            pixels = 255 - pixels
            was = "dark on light" if self.background < 128 else "light on dark"
            remark += f", inverted: it was {was}"
        return pixels, remark


def check_standard(model: ViT) -> None:
    """Raise UserError unless a model is what ViT(config) builds, with or without shortcuts."""
    ours = parts(model)
    for shortcuts in (False, True):
        standard = ViT(model.config, shortcuts)
        theirs = parts(standard)
        differing = [name for name in {**theirs, **ours} if not same(name, ours, theirs)]
        if not differing and list(model.params) == list(standard.params):
            return
    why = "a weight occurs twice"
    if differing:
        name = differing[0]
        found, wanted = (
            getattr(part, "__name__", shown(part))
            for part in (ours.get(name, "missing"), theirs.get(name, "missing"))
        )
        why = f"{name or 'the model'} is {found}, there it is {wanted}"
    raise UserError(
        f"the file would be loaded as ViT(config), which is another model than this one ({why}): "
        "keep the weights with np.savez(file, **params), and build the model in your own code"
    )


def parts(item: Any, name: str = "") -> dict[str, Any]:
    """Return what a layer consists of: {"norm": LayerNorm, "norm.eps": 1e-6, ...}."""
    found: dict[str, Any] = {}
    if isinstance(item, list | tuple):
        children: dict[Any, Any] = dict(enumerate(item))
    elif hasattr(item, "forward") and hasattr(item, "__dict__"):
        children = vars(item)
        found[name] = type(item)
    else:
        return {name: item.shape if isinstance(item, Param) else item}
    for key, child in children.items():
        found |= parts(child, f"{name}.{key}" if name else str(key))
    return found


def same(name: str, ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Return whether two models have the same part, or value, of this name."""
    if name not in ours or name not in theirs or type(ours[name]) is not type(theirs[name]):
        return False
    return bool(ours[name] == theirs[name])
