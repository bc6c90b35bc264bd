"""From options to data, configurations and models, for several commands."""

import argparse
import dataclasses
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError, check_choice

if TYPE_CHECKING:
    from ..data import Dataset
    from ..train.config import TrainConfig

LARGEST_IMAGE = 4096  # pixels on a side


def make_config(
    args: argparse.Namespace, say: Callable[[str], None]
) -> "tuple[TrainConfig, tuple[Dataset, Dataset]]":
    """Return the config that the options describe, and (training set, test set)."""
    from .. import data
    from ..data.loading import is_path
    from ..train.config import TrainConfig
    from ..train.recipe import Recipe
    from ..train.recipes import catalogue

    name = args.data or "digits"
    if args.recipe:
        check_choice("recipe", args.recipe, catalogue)
        name = args.data or catalogue[args.recipe].data
    if args.recipe == "own" and not args.data:
        raise UserError("--recipe own needs --data with the path of your own images")
    if args.test is not None and not is_path(name):
        raise UserError(f"--test is for your own images: {name} has its own test set")
    if args.image_size and not Path(name).is_dir():
        raise UserError(
            "--image-size is for a folder of images: the images of other data sets have a size"
        )
    side = args.image_size or 64
    if side > LARGEST_IMAGE:
        raise UserError(f"--image-size is {side}: it can be {LARGEST_IMAGE} at most")
    test = 0.2 if args.test is None else args.test
    sets = data.load(name, args.data_dir, (side, side), test, say, not args.quiet)
    names = [field.name for field in dataclasses.fields(Recipe)]
    names += ["recipe", "seed", "micro_batch", "val", "patience", "test"]
    given = {key: getattr(args, key) for key in names}
    return TrainConfig.make(name, sets[0], **given), sets


def load_data(
    config: "TrainConfig",
    args: argparse.Namespace,
    say: Callable[[str], None] = print,
    bar: bool = False,
) -> "tuple[Dataset, Dataset]":
    """Return a run's training set and test set, from --data if they were moved."""
    from .. import data

    name = args.data or config.data
    return data.load(name, args.data_dir, config.model.image, config.test, say, bar)


def arguments_for(folder: Path, args: argparse.Namespace) -> str:
    """Return the arguments with which another command finds this run, to be copied."""
    words = [str(folder)]
    if args.resume and args.data:
        words += ["--data", args.data]
    if args.device != "cpu":
        words += ["--device", args.device]
    if args.data_dir:
        words += ["--data-dir", args.data_dir]
    return shlex.join(words)


def model_file(run: Path) -> Path:
    """Return the path of the model in a run's folder, or an .npz file as it is.

    Raises UserError if a run has no model.
    """
    from ..train.metrics import read_metrics

    if not run.is_dir() and run.suffix == ".npz":
        return run
    if (run / "config.json").exists() and not (run / "model.npz").exists():
        if read_metrics(run):
            raise UserError(
                f"{run} has lost its model.npz: restore it, or continue with numpyvit train "
                f"--resume {run}, which writes it again unless --val chose its epoch"
            )
        raise UserError(
            f"{run} has no model.npz yet, because no epoch is finished: continue with numpyvit "
            f"train --resume {run}"
        )
    return run / "model.npz"
