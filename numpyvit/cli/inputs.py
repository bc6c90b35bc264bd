"""From options to data, configurations and models, for several commands."""

import argparse
import dataclasses
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError, check_choice, say

if TYPE_CHECKING:
    from ..data import Dataset
    from ..train.config import TrainConfig

LARGEST_IMAGE = 4096  # pixels on a side


def make_config(
    args: argparse.Namespace, say: Callable[[str], None], left_out: list[str] | None = None
) -> "tuple[TrainConfig, tuple[Dataset, Dataset]]":
    """Return the config that the options describe, and (training set, test set).

    left_out: receives a message if images cannot be read (see data.folder).
    """
    from .. import data
    from ..data.loading import has_test_set, is_path
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
    check_data_dir(args, name)
    side = args.image_size or 64
    if side > LARGEST_IMAGE:
        raise UserError(f"--image-size is {side}: it can be {LARGEST_IMAGE} at most")
    test = 0.2 if args.test is None else args.test
    sets = data.load(name, args.data_dir, (side, side), test, say, not args.quiet, left_out)
    if args.test is not None and has_test_set(name):
        raise UserError(f"--test is for images without a test set: {name} has its own")
    names = [field.name for field in dataclasses.fields(Recipe)]
    names += ["recipe", "seed", "micro_batch", "val", "patience", "test"]
    given = {key: getattr(args, key) for key in names}
    return TrainConfig.make(name, sets[0], **given), sets


def check_data_dir(args: argparse.Namespace, name: str) -> None:
    """Raise UserError if --data-dir is given for images that are not looked for there."""
    from ..data.readers import LOADERS

    if args.data_dir and name not in LOADERS:
        raise UserError(
            f"--data-dir is for {', '.join(LOADERS)}: {name} is not read from it; leave it out"
        )


def load_data(
    folder: Path,
    args: argparse.Namespace,
    say: Callable[[str], None] = say,
    bar: bool = False,
    left_out: list[str] | None = None,
) -> "tuple[Dataset, Dataset]":
    """Return the training set and test set of the run in `folder`.

    They are read from --data if they were moved. left_out: receives a message if images
    cannot be read (see data.folder). Raises UserError if they are no longer where they
    were.
    """
    from .. import data
    from ..data.loading import is_path
    from ..train.folder import read_config

    config, _, _ = read_config(folder)
    if not args.data and is_path(config.data) and not Path(config.data).exists():
        raise UserError(
            f"{config.data}, on which {folder} was trained, does not exist any more: if it was "
            "moved, name its new place with --data"
        )
    name = args.data or config.data
    where = data_dir_of(folder, args, name)
    return data.load(name, where, config.model.image, config.test, say, bar, left_out)


def data_dir_of(folder: Path, args: argparse.Namespace, name: str) -> str | None:
    """Return --data-dir, or else that with which the run in `folder` was started.

    Raises UserError if `name` has to be read from there, and it does not exist any more.
    """
    from ..data.readers import LOADERS
    from ..train.folder import read_data_dir

    check_data_dir(args, name)
    if args.data_dir or name not in LOADERS:
        return args.data_dir
    data_dir = read_data_dir(folder)
    if data_dir and not Path(data_dir).is_dir():
        raise UserError(
            f"{folder} was started with the data folder {data_dir}, which does not exist any more: "
            "name the folder of the data sets with --data-dir"
        )
    return data_dir


def arguments_for(folder: Path, args: argparse.Namespace) -> str:
    """Return the arguments with which another command finds this run, to be copied."""
    words = [str(folder)]
    if args.resume and args.data:  # a new run remembers both
        words += ["--data", args.data]
    if args.resume and args.data_dir:
        words += ["--data-dir", args.data_dir]
    if args.device != "cpu":
        words += ["--device", args.device]
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
