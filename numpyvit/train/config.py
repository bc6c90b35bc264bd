"""TrainConfig: everything that decides the result of a run, and reading it back."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import ViTConfig
from ..data import Dataset
from ..data.loading import is_path
from ..engine.workers import micro_batch_size
from ..errors import UserError, check_choice, is_positive_int, is_real_number
from ..presets import presets
from .recipe import Recipe, require_effect
from .recipes import recipes

# Recipe fields that had another name up to version 0.2
RENAMED = {"turn": "rotate", "shift": "translate", "whole": "full_patches"}
MOST_TOKENS = 1024  # that fitting_patch accepts; more would take long


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the result of a run, except for library versions.

    data: the name of a data set, or the path of one's own images.
    test: the fraction of one's own images that becomes the test set, if there is none.
    val: the fraction of the training set that is held out to choose the best epoch.
    patience: stop after this many epochs without an improvement on the held-out images.
    micro_batch: images in a micro-batch; None means default_micro_batch.
    Raises UserError for values that make no sense.
    """

    data: str
    model: ViTConfig
    recipe: Recipe
    seed: int = 0
    test: float = 0.2
    val: float = 0.0
    patience: int | None = None
    micro_batch: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.data, str):
            raise UserError(f"data is {self.data!r}: it must be a name or a path")
        if not (self.seed == 0 or is_positive_int(self.seed)):
            raise UserError(f"seed is {self.seed!r}: it must be an integer, 0 or above")
        for name, value in (("test", self.test), ("val", self.val)):
            if not (is_real_number(value) and 0 <= value < 1):
                raise UserError(
                    f"{name} is {value!r}: it must be a fraction of the images, from 0 to below 1"
                )
        for name, number in (("micro_batch", self.micro_batch), ("patience", self.patience)):
            if not (number is None or is_positive_int(number)):
                raise UserError(f"{name} is {number!r}: it must be an integer above 0")
        if self.patience and not self.val:
            raise UserError(
                f"patience is {self.patience}, but no validation set is held out: set val, the "
                "fraction of the training set that tells when a run no longer improves"
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
        """Return the config for the data set `name` with the training set `train`.

        recipe: the name of the recipe, by default that of the data set. The preset's
        model is made to fit the images. changes: fields of Recipe or of TrainConfig;
        those that are None change nothing. Raises UserError for an unknown name, an
        impossible value, or one without effect.
        """
        own = is_path(name)
        recipe_name = recipe or ("own" if own else name)
        check_choice("recipe", recipe_name, recipes)
        changes = {key: value for key, value in changes.items() if value is not None}
        config_names = {f.name for f in dataclasses.fields(cls)}
        config_changes = {k: v for k, v in changes.items() if k in config_names}
        recipe_changes = {k: v for k, v in changes.items() if k not in config_names}
        if preset is not None:
            recipe_changes["preset"] = preset
        chosen = dataclasses.replace(recipes[recipe_name], **recipe_changes)
        require_effect(chosen, recipe_changes)
        H, W, C = train.images.shape[1:]
        model = presets[chosen.preset]
        model = dataclasses.replace(
            model,
            image_size=H if H == W else (H, W),
            channels=C,
            classes=len(train.classes),
            patch_size=fitting_patch(H, W) if own and not preset else model.patch_size,
        )
        path = str(Path(name).resolve()) if own else name
        return cls(path, model, chosen, **config_changes)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as dicts and numbers, as config.json stores them."""
        return dataclasses.asdict(self)

    def flat(self) -> dict[str, Any]:
        """Return all fields, and those of the model and the recipe, in one dict."""
        fields = self.to_dict()
        return {**fields.pop("model"), **fields.pop("recipe"), **fields}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "TrainConfig":
        """Return the config whose to_dict, now or in an older version, gave `fields`.

        Raises UserError for a field that is missing or unknown, or a value that makes
        no sense.
        """
        try:
            fields = with_current_names(fields)
            fields["model"] = ViTConfig.from_dict(fields["model"])
            fields["recipe"] = Recipe(**fields["recipe"])
            return cls(**fields)
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise UserError(f"its settings cannot be used: {error}") from None


def with_current_names(fields: dict[str, Any]) -> dict[str, Any]:
    """Return config.json's fields, with those of older versions renamed or moved."""
    model = dict(fields["model"])
    recipe = {RENAMED.get(name, name): value for name, value in dict(fields["recipe"]).items()}
    if "patch_dropout" in model:  # up to version 0.2 a field of the model
        recipe["patch_dropout"] = model.pop("patch_dropout")
    return {**fields, "model": model, "recipe": recipe}


def fitting_patch(H: int, W: int) -> int:
    """Return the side of the square patches of which an HxW image has about 64.

    Raises UserError if the nearest number of patches is above MOST_TOKENS.
    """
    sides = [p for p in range(1, min(H, W) + 1) if H % p == W % p == 0]
    side = min(sides, key=lambda p: abs(math.log(H * W / p**2 / 64)))
    tokens = H * W // side**2
    if tokens > MOST_TOKENS:
        raise UserError(
            f"images of {H}x{W} can only be cut into {tokens:,} patches of {side}x{side}: resize "
            "them to a size with more divisors, such as 64x64, or choose a preset"
        )
    return side


def default_micro_batch(config: TrainConfig) -> int:
    """Return the number of images in a micro-batch of a run.

    The run's first part, with patch dropout, and its last part, without, share one
    size: that for the geometric mean of their numbers of tokens.
    """
    recipe = config.recipe
    kept = 1 - recipe.patch_dropout if recipe.full_patches < 1 else 1.0
    tokens = round(config.model.tokens * math.sqrt(kept))
    return micro_batch_size(tokens, recipe.batch_size)
