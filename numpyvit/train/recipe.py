"""A recipe: all settings of a training, except for the data and the model.

Each field of Recipe is declared once, with its default, its help text, the values it
may have and what the help calls its value. The command's options, its help and the
checks below are made from that.
"""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from .. import data as datasets
from ..errors import UserError, check_choice, is_positive_int, is_real_number
from ..optim.adamw import AdamW
from ..optim.base import Optimizer
from ..optim.muon import Muon
from ..optim.schedules import SHAPES
from ..presets import presets

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"adamw": AdamW, "muon": Muon}


class Bounds(NamedTuple):
    """The numbers from low to high; an end that is open does not belong to them."""

    low: float = 0
    high: float = 1e6
    open_low: bool = False
    open_high: bool = False

    def allow(self, x: float) -> bool:
        """Return whether x lies within the bounds."""
        above = x > self.low if self.open_low else x >= self.low
        below = x < self.high if self.open_high else x <= self.high
        return above and below

    def __str__(self) -> str:
        high = f"{self.high:,.10g}"
        if self.open_low:
            return f"above {self.low:g} and {'below' if self.open_high else 'at most'} {high}"
        return f"from {self.low:g} to {'below ' if self.open_high else ''}{high}"


POSITIVE = Bounds(open_low=True)
FRACTION = Bounds(high=1)
BELOW_ONE = Bounds(high=1, open_high=True)


def setting(
    help: str,
    default: Any = dataclasses.MISSING,
    metavar: str = "X",
    bounds: Bounds | None = None,
    choices: Iterable[str] | None = None,
) -> Any:
    """Return a dataclass field with these properties in its metadata."""
    metadata = {"help": help, "metavar": metavar, "bounds": bounds, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Recipe:
    """The settings of a training. Raises UserError for values that make no sense."""

    preset: str = setting(
        "the model; `numpyvit info` lists the presets", metavar="NAME", choices=presets
    )
    epochs: int = setting("passes over the training set", metavar="N", bounds=Bounds(1, 2**31 - 1))
    batch_size: int = setting("images in a step", 128, "N", Bounds(1, 2**31 - 1))
    lr: float = setting("the highest learning rate", 2e-3, bounds=POSITIVE)
    weight_decay: float = setting("weight decay of the matrices", 0.05, bounds=Bounds())
    beta2: float = setting("decay rate of AdamW's second moment", 0.999, bounds=BELOW_ONE)
    average: float = setting(
        "evaluate and save a moving average of the weights that keeps this much of itself in "
        "each step, instead of the last weights; 0 for no average",
        0.0,
        bounds=BELOW_ONE,
    )
    optimizer: str = setting(
        "adamw, or muon, which uses Muon for the matrices and AdamW for the rest",
        "adamw",
        "NAME",
        choices=OPTIMIZERS,
    )
    schedule: str = setting(
        "the learning rate after the warm-up: cosine, linear or constant",
        "cosine",
        "NAME",
        choices=SHAPES,
    )
    warmup: float = setting(
        "epochs of warm-up, at most a fifth of the run", 1.0, "EPOCHS", Bounds()
    )
    clip: float = setting("scale gradients down to at most this norm", 1.0, bounds=POSITIVE)
    smoothing: float = setting(
        "label smoothing: spread this fraction of each target over all classes",
        0.0,
        bounds=BELOW_ONE,
    )
    rotate: float = setting("rotate each image by up to DEGREES", 0.0, "DEGREES", Bounds())
    scale: float = setting(
        "resize each image by a factor from 1 - X to 1 + X", 0.0, bounds=BELOW_ONE
    )
    shear: float = setting("shear each image by up to X columns for each row", 0.0, bounds=Bounds())
    translate: float = setting(
        "translate each image by up to PIXELS; black fills the gap", 0.0, "PIXELS", Bounds()
    )
    flip: bool = setting("mirror half of the images, left to right", False)
    randaugment: int = setting(
        "apply N of RandAugment's fourteen operations to each image",
        0,
        "N",
        Bounds(0, 2**31 - 1),
    )
    magnitude: float = setting("magnitude of RandAugment, from 0 to 10", 9.0, bounds=Bounds(0, 10))
    erase: float = setting(
        "put a rectangle of noise into this fraction of the images", 0.0, "FRACTION", FRACTION
    )
    mixup: float = setting(
        "mix pairs of images and their labels, with weights from Beta(X, X)", 0.0, bounds=Bounds()
    )
    cutmix: float = setting(
        "put a piece of one image into another and mix their labels, with areas from Beta(X, X); "
        "with mixup as well, each batch gets one of the two",
        0.0,
        bounds=Bounds(),
    )
    patch_dropout: float = setting(
        "leave out this fraction of each image's patches in training",
        0.0,
        "FRACTION",
        Bounds(0, 0.99),
    )
    full_patches: float = setting(
        "with patch dropout, train on all patches in this last fraction of the run",
        0.3,
        "FRACTION",
        FRACTION,
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_setting(field, getattr(self, field.name))


def check_setting(field: Any, value: object) -> None:
    """Raise UserError unless the value is of the field's type and within its bounds."""
    name = field.name
    bounds = field.metadata["bounds"]
    if field.type is bool and not isinstance(value, bool):
        raise UserError(f"{name} is {value!r}: it must be true or false")
    if field.type is str:
        check_choice(name, value, field.metadata["choices"])
    if field.type is int and not (is_integer(value) and bounds.allow(value)):
        raise UserError(f"{name} is {value!r}: it must be an integer of at least {bounds.low}")
    if field.type is float and not (is_real_number(value) and bounds.allow(value)):
        raise UserError(f"{name} is {value!r}: it must be a number {bounds}")


def require_effect(recipe: Recipe, given: Iterable[str]) -> None:
    """Raise UserError if one of the given settings has no effect without another one."""
    for name, needed in (("full_patches", "patch_dropout"), ("magnitude", "randaugment")):
        if name in given and not getattr(recipe, needed):
            raise UserError(
                f"{name} has no effect, because {needed} is 0: set {needed} too, or leave out "
                f"{name}"
            )


def is_integer(n: object) -> bool:
    """Return whether n is an integer from 0 to 2**31 - 1."""
    return is_positive_int(n) or (n == 0 and isinstance(n, int) and not isinstance(n, bool))


def augmentation(recipe: Recipe) -> datasets.Augment | None:
    """Return the function that augments images as the recipe says, or None."""
    r = recipe
    steps = [datasets.flip()] if r.flip else []
    if r.rotate or r.scale or r.shear or r.translate % 1:
        steps.append(datasets.affine(r.rotate, r.scale, r.translate, r.shear))
    elif r.translate:
        steps.append(datasets.shift(int(r.translate)))
    if r.randaugment:
        steps.append(datasets.randaugment(r.randaugment, r.magnitude))
    if r.erase:
        steps.append(datasets.erase(r.erase))
    return datasets.compose(*steps) if steps else None


def mixing(recipe: Recipe) -> datasets.Mix | None:
    """Return the function that mixes images as the recipe says, or None."""
    mixes = []
    if recipe.mixup:
        mixes.append(datasets.mixup(recipe.mixup))
    if recipe.cutmix:
        mixes.append(datasets.cutmix(recipe.cutmix))
    return datasets.one_of(*mixes) if mixes else None
