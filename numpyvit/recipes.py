"""How each data set is trained unless the command line says otherwise, and the whole of what decides a run's result.

The recipes were chosen on held-out parts of the training sets, never on a test set.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from .data import Dataset
from .errors import UserError, check_choice
from .vit import ViTConfig, is_count, is_real, presets


@dataclass(frozen=True)
class Recipe:
    """lr is AdamW's highest rate, beta2 the decay of its second moment, average that of the average of the weights which is
    evaluated and kept in place of the last ones (0: none); warmup in epochs, but at most a fifth of the run; clip: the
    gradients' largest norm; smoothing of the labels; up to how many degrees, what share of their size and how many pixels
    images are turned, scaled and shifted; flip: half of them. Raises UserError for values that make no sense."""

    preset: str
    epochs: int
    batch_size: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.05
    beta2: float = 0.999
    average: float = 0.0
    warmup: float = 1.0
    clip: float = 1.0
    smoothing: float = 0.0
    turn: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    flip: bool = False

    def __post_init__(self) -> None:
        check_choice("preset", self.preset, presets)
        for name in ("epochs", "batch_size"):
            if not is_count(getattr(self, name)):
                raise UserError(f"{option(name)} is {getattr(self, name)!r}: it must be a whole number above 0")
        for name, above in (("lr", True), ("clip", True), ("weight_decay", False), ("warmup", False), ("turn", False),
                            ("scale", False), ("shift", False), ("smoothing", False), ("beta2", False),
                            ("average", False)):
            value = getattr(self, name)
            if not is_real(value) or value < 0 or (above and value == 0) or value > 1e6:
                least = "above 0" if above else "from 0"
                raise UserError(f"{option(name)} is {value!r}: it must be a number {least} to 1e6")
        if max(self.smoothing, self.scale, self.beta2, self.average) >= 1:
            raise UserError("smoothing, scale, beta2 and average must be below 1")
        if not isinstance(self.flip, bool):
            raise UserError(f"flip is {self.flip!r}: it must be true or false")


recipes: dict[str, Recipe] = {
    "digits": Recipe("digits", epochs=80, lr=3e-3, warmup=5, turn=10, scale=0.1, shift=0.5),
    "mnist": Recipe("mnist", epochs=8, lr=4e-3, weight_decay=0.1, beta2=0.98, average=0.998, smoothing=0.05,
                    turn=10, scale=0.1, shift=1),
    "fashion-mnist": Recipe("fashion-mnist", epochs=12, shift=1, flip=True),
    "cifar10": Recipe("cifar10", epochs=6, shift=4, flip=True),
}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the result of a run, but for the versions of the libraries."""

    data: str
    model: ViTConfig
    recipe: Recipe
    seed: int = 0
    val: float = 0.0                                  # share of the training set that is held out to choose the best epoch
    micro_batch: int | None = None                    # None: micro_batch_size's

    def __post_init__(self) -> None:
        if not (self.seed == 0 or is_count(self.seed)):
            raise UserError(f"--seed is {self.seed!r}: it must be a whole number, 0 or above")
        if not (is_real(self.val) and 0 <= self.val < 1):
            raise UserError(f"--val is {self.val!r}: it must be a share of the training set, from 0 to below 1")
        if not (self.micro_batch is None or is_count(self.micro_batch)):
            raise UserError(f"--micro-batch is {self.micro_batch!r}: it must be a whole number above 0")

    @classmethod
    def make(cls, name: str, train: Dataset, preset: str | None = None, **changes: Any) -> "TrainConfig":
        """The recipe of data set `name`, with the preset's model made to fit its images, and with `changes`, which are
        fields of Recipe or of TrainConfig; those that are None change nothing."""
        check_choice("recipe", name, recipes)
        changes = {key: value for key, value in {**changes, "preset": preset}.items() if value is not None}
        ours = {f.name for f in dataclasses.fields(cls)}
        recipe = dataclasses.replace(recipes[name], **{k: v for k, v in changes.items() if k not in ours})
        H, W, C = train.images.shape[1:]
        model = dataclasses.replace(presets[recipe.preset], image_size=H if H == W else (H, W), channels=C,
                                    classes=len(train.classes))
        return cls(name, model, recipe, **{k: v for k, v in changes.items() if k in ours})

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "TrainConfig":
        """The inverse of to_dict, also after JSON. Raises UserError for what is missing, unknown or makes no sense."""
        try:
            model, recipe = ViTConfig.from_dict(dict(fields["model"])), Recipe(**fields["recipe"])
            return cls(**{**fields, "model": model, "recipe": recipe})
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise UserError(f"its settings cannot be used: {error}") from None


def option(name: str) -> str:
    """How a field is called on the command line, where it is."""
    return f"--{name.replace('_', '-')}" if name in ("epochs", "batch_size", "lr", "weight_decay") else name
