"""How each data set is trained unless the command line says otherwise, and the whole of what decides a run's result.

The recipes were chosen on held-out parts of the training sets; but the length of cifar10's, by the time that it takes, after
test curves of longer runs had been seen.
"""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import data as datasets
from ..data import Dataset
from ..data.by_name import is_own
from ..errors import UserError, check_choice
from ..optim.adamw import AdamW
from ..optim.muon import Muon
from ..optim.schedules import SHAPES
from ..vit import ViTConfig, is_count, is_real, presets

OPTIMIZERS: dict[str, type[AdamW]] = {"adamw": AdamW, "muon": Muon}


@dataclass(frozen=True)
class Recipe:
    """OPTIONS says what each field means. Raises UserError for values that make no sense."""

    preset: str
    epochs: int
    batch_size: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.05
    beta2: float = 0.999
    average: float = 0.0
    optimizer: str = "adamw"
    schedule: str = "cosine"
    warmup: float = 1.0
    clip: float = 1.0
    smoothing: float = 0.0
    turn: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    shift: float = 0.0
    flip: bool = False
    randaugment: int = 0
    magnitude: float = 9.0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    whole: float = 0.3

    def __post_init__(self) -> None:
        check_choice("preset", self.preset, presets)
        check_choice("--optimizer", self.optimizer, OPTIMIZERS)
        check_choice("--schedule", self.schedule, SHAPES)
        for name in ("epochs", "batch_size"):
            if not is_count(getattr(self, name)):
                raise UserError(
                    f"{option(name)} is {getattr(self, name)!r}: it must be a whole number above 0"
                )
        for name, kind in Recipe.__annotations__.items():
            value, above = getattr(self, name), name in ("lr", "clip")
            if kind is float and (
                not is_real(value) or value < 0 or (above and value == 0) or value > 1e6
            ):
                least = "above 0" if above else "from 0"
                raise UserError(f"{option(name)} is {value!r}: it must be a number {least} to 1e6")
        for name in ("smoothing", "scale", "beta2", "average"):
            if getattr(self, name) >= 1:
                raise UserError(f"{option(name)} is {getattr(self, name)}: it must be below 1")
        if self.whole > 1:
            raise UserError(f"--whole is {self.whole}: it goes to 1")
        if self.erase > 1 or self.magnitude > 10:
            raise UserError(
                f"--erase is {self.erase}, --magnitude {self.magnitude}: they go to 1, and to 10"
            )
        if not (self.randaugment == 0 or is_count(self.randaugment)):
            raise UserError(
                f"--randaugment is {self.randaugment!r}: it must be a whole number, 0 or above"
            )
        if not isinstance(self.flip, bool):
            raise UserError(f"flip is {self.flip!r}: it must be true or false")


OPTIONS = {
    "preset": "the model; `numpyvit info` lists them",
    "epochs": "how often each image is seen",
    "batch_size": "images in a step",
    "lr": "the highest learning rate",
    "weight_decay": "of the matrices",
    "beta2": "decay of AdamW's second moment",
    "average": "decay of the average of the weights that is evaluated and kept in place of the last ones; 0: none",
    "optimizer": "adamw, or muon, for the matrices",
    "schedule": "of the learning rate after its warm-up: cosine, linear or constant",
    "warmup": "epochs, but at most a fifth of the run",
    "clip": "the gradients' largest norm",
    "smoothing": "this much of each target is spread over all classes",
    "turn": "images by up to so many degrees",
    "scale": "images by a factor of 1 - X to 1 + X",
    "shear": "slant images by up to so many columns a row",
    "shift": "images by up to so many pixels; black comes in",
    "flip": "half of the images, left to right",
    "randaugment": "operations on each image, of fourteen on its form and colours",
    "magnitude": "of RandAugment, from 0 to 10",
    "erase": "share of the images that get a rectangle of noise",
    "mixup": "mix two images and their labels; X: both parameters of the Beta distribution of their shares",
    "whole": "share of the run, at its end, that sees all patches, where the model has patch dropout",
    "cutmix": "put a piece of one image into another; X as for mixup. With both, one of them in each batch",
}

MUON: dict[str, Any] = {
    "optimizer": "muon",
    "lr": 5e-3,
    "beta2": 0.98,
    "average": 0.998,
    "smoothing": 0.05,
}
CIFAR = Recipe("cifar10", epochs=26, weight_decay=0.2, shift=4, flip=True, whole=0.15, **MUON)

recipes: dict[str, Recipe] = {
    "digits": Recipe("digits", epochs=80, lr=3e-3, warmup=5, turn=10, scale=0.1, shift=0.5),
    "mnist": Recipe("mnist", epochs=8, weight_decay=0.1, turn=10, scale=0.1, shift=1, **MUON),
    "mnist-30k": Recipe(
        "mnist-30k", epochs=30, weight_decay=0.1, turn=10, scale=0.1, shift=1, whole=0.25, **MUON
    ),
    "mnist-best": Recipe(
        "mnist-best", epochs=25, weight_decay=0.1, turn=10, scale=0.1, shear=0.1, shift=2, **MUON
    ),
    "fashion-mnist": Recipe(
        "fashion-mnist", epochs=28, weight_decay=0.2, shift=1, flip=True, whole=0.2, **MUON
    ),
    "cifar10": CIFAR,
    "cifar10-150k": dataclasses.replace(CIFAR, preset="cifar10-150k", epochs=150),
    "cifar10-best": dataclasses.replace(CIFAR, epochs=45, whole=0.25),
    "cifar100": CIFAR,
    "own": Recipe(
        "photos", epochs=40, batch_size=64, lr=1e-3, warmup=4, turn=5, scale=0.1, shift=2
    ),
}
# the data set, where it is not called like the recipe
MADE_FOR = {
    "mnist-30k": "mnist",
    "mnist-best": "mnist",
    "cifar10-150k": "cifar10",
    "cifar10-best": "cifar10",
}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the result of a run, but for the versions of the libraries."""

    data: str  # a name, or the path of one's own images
    model: ViTConfig
    recipe: Recipe
    seed: int = 0
    test: float = 0.2  # share of one's own images that is the test set, where there is none
    val: float = 0.0  # share of the training set that is held out to choose the best epoch
    patience: int | None = None  # stop after so many epochs without a better one by it
    micro_batch: int | None = None  # None: micro_batch_size's

    def __post_init__(self) -> None:
        if not isinstance(self.data, str):
            raise UserError(f"data is {self.data!r}: it must be a name or a path")
        if not (self.seed == 0 or is_count(self.seed)):
            raise UserError(f"--seed is {self.seed!r}: it must be a whole number, 0 or above")
        for name, value in (("test", self.test), ("val", self.val)):
            if not (is_real(value) and 0 <= value < 1):
                raise UserError(
                    f"--{name} is {value!r}: it must be a share of the images, from 0 to below 1"
                )
        for name, number in (("micro-batch", self.micro_batch), ("patience", self.patience)):
            if not (number is None or is_count(number)):
                raise UserError(f"--{name} is {number!r}: it must be a whole number above 0")
        if self.patience and not self.val:
            raise UserError(
                "--patience wants --val: which share of the training set is to tell when it gets no better?"
            )

    @classmethod
    def make(
        cls,
        name: str,
        train: Dataset,
        preset: str | None = None,
        recipe: str | None = None,
        **changes: Any,
    ) -> "TrainConfig":
        """The recipe of this name, by default that of data set `name`, with the preset's model made to fit its images, and
        with `changes`, which are fields of Recipe or of TrainConfig; those that are None change nothing."""
        own = is_own(name)
        of = recipe or ("own" if own else name)
        check_choice("recipe", of, recipes)
        changes = {
            key: value for key, value in {**changes, "preset": preset}.items() if value is not None
        }
        ours = {f.name for f in dataclasses.fields(cls)}
        r = dataclasses.replace(recipes[of], **{k: v for k, v in changes.items() if k not in ours})
        H, W, C = train.images.shape[1:]
        model = presets[r.preset]
        model = dataclasses.replace(
            model,
            image_size=H if H == W else (H, W),
            channels=C,
            classes=len(train.classes),
            patch_size=fitting_patch(H, W) if own and not preset else model.patch_size,
        )
        return cls(
            str(Path(name).resolve()) if own else name,
            model,
            r,
            **{k: v for k, v in changes.items() if k in ours},
        )

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def flat(self) -> dict[str, Any]:
        """Its fields, with those of its model and recipe beside them."""
        fields = self.to_dict()
        return {**fields.pop("model"), **fields.pop("recipe"), **fields}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "TrainConfig":
        """The inverse of to_dict, also after JSON. Raises UserError for what is missing, unknown or makes no sense."""
        try:
            model, recipe = ViTConfig.from_dict(dict(fields["model"])), Recipe(**fields["recipe"])
            return cls(**{**fields, "model": model, "recipe": recipe})
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise UserError(f"its settings cannot be used: {error}") from None


def fitting_patch(H: int, W: int) -> int:
    """The side of square patches that cut HxW into a number of them as near to 64 as can be. Raises UserError where that is
    more than 1024, which would take long."""
    sides = [p for p in range(1, min(H, W) + 1) if H % p == W % p == 0]
    side = min(sides, key=lambda p: abs(math.log(H * W / p**2 / 64)))
    if (tokens := H * W // side**2) > 1024:
        raise UserError(
            f"images of {H}x{W} can only be cut into {tokens:,} patches of {side}x{side}: make them of a size "
            "with more divisors, 64x64 say (--image-size, for a folder of pictures), or choose a --preset"
        )
    return side


def option(name: str) -> str:
    """How a field is called on the command line."""
    return f"--{name.replace('_', '-')}"


def augmentation(r: Recipe) -> datasets.Augment | None:
    """What the recipe does to the training images."""
    steps = [datasets.flip()] if r.flip else []
    if r.turn or r.scale or r.shear or r.shift % 1:
        steps.append(datasets.affine(r.turn, r.scale, r.shift, r.shear))
    elif r.shift:
        steps.append(datasets.shift(int(r.shift)))
    if r.randaugment:
        steps.append(datasets.randaugment(r.randaugment, r.magnitude))
    if r.erase:
        steps.append(datasets.erase(r.erase))
    return datasets.compose(*steps) if steps else None


def mixing(r: Recipe) -> datasets.Mix | None:
    """How the recipe mixes images and labels."""
    mixes = [
        kind(alpha)
        for kind, alpha in ((datasets.mixup, r.mixup), (datasets.cutmix, r.cutmix))
        if alpha
    ]
    return datasets.one_of(*mixes) if mixes else None
