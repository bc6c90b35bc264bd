"""numpyvit train: train a model, or resume a run."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError, say
from .inputs import arguments_for, load_data, make_config
from .options import (
    add_command,
    add_config_options,
    add_device,
    add_workers,
    option_name,
    path,
    text,
)

if TYPE_CHECKING:
    from ..train.run import Run

# All other options decide the result, so config.json has them.
WITH_RESUME = {"command", "resume", "data", "data_dir", "workers", "device", "precision", "quiet"}


def add_parser(commands: Any) -> None:
    """Add the parser of `numpyvit train`."""
    p = add_command(
        commands,
        "train",
        "train a model; without arguments, on the digits that ship with the package",
        "--data PHOTOS --image-size 64 --flip --val 0.1",
    )
    add_config_options(p)
    add_workers(p)
    add_device(p)
    p.add_argument(
        "--precision",
        type=text,
        metavar="NAME",
        default="float32",
        help="of a GPU's matrix products: float32 (default), tf32 or float16; their sums, and "
        "everything else, are float32",
    )
    p.add_argument(
        "--out",
        type=path,
        metavar="DIR",
        help="the folder of the run (default: runs/DATA-PRESET-DATE-TIME)",
    )
    p.add_argument("--resume", type=path, metavar="DIR", help="continue the run in DIR")
    p.add_argument("--quiet", action="store_true", help="print nothing except errors")


def silence(line: str) -> None:
    """Print nothing, for --quiet."""


def run(args: argparse.Namespace) -> int:
    """Train, and say how to continue.

    The exit code is 1 if images were left out because they cannot be read.
    """
    from ..backend.device import module_of
    from ..engine.base import check_precision
    from ..train.loop import train
    from ..train.metrics import best_row, read_metrics

    module_of(args.device)  # complain about the device before anything takes long
    check_precision(args.precision, args.device)
    if args.workers and args.device != "cpu":
        raise UserError(f"--workers is the number of threads on the CPU, not for {args.device}")
    tell = silence if args.quiet else say
    left_out: list[str] = []
    training = resume(args, tell, left_out) if args.resume else start(args, tell, left_out)
    folder = training.folder
    precision = "" if args.precision == "float32" else f" --precision {args.precision}"
    resume_command = f"numpyvit train --resume {arguments_for(folder, args)}{precision}"
    stopped = "stopped and saved at step {}; continue with: " + resume_command
    try:
        train(training, args.workers, tell, bar=not args.quiet)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(stopped.format(training.saved_step)) from None
    except SystemExit:  # SIGTERM
        say(f"numpyvit: {stopped.format(training.saved_step)}", sys.stderr)
        raise
    except UserError as error:
        if isinstance(error.__cause__, OSError):  # such as a full disk
            raise UserError(f"{error}; then continue with: {resume_command}") from error
        raise
    if training.step < training.steps:
        epochs = training.epochs_without_improvement
        tell(f"stopped after {epochs} epochs without an improvement (--patience)")
    rows = read_metrics(folder)
    if rows:  # those of an older version may have been lost
        tell(
            f"test accuracy {best_row(rows)['test_accuracy']:.2%} after {rows[-1]['seconds']:.1f} "
            f"s of training; next: numpyvit evaluate {arguments_for(folder, args)}"
        )
    for message in left_out:  # again, since the first time was before all epochs
        say(f"numpyvit: trained, but exit code 1: {message}", sys.stderr)
    return int(bool(left_out))


def resume(args: argparse.Namespace, say: Callable[[str], None], left_out: list[str]) -> "Run":
    """Return the run in --resume's folder."""
    from ..train.run import Run

    for name, value in vars(args).items():
        if value is not None and name not in WITH_RESUME:
            raise UserError(
                f"{option_name(name)} cannot be given with --resume: the run's config.json "
                "decides it"
            )
    folder = args.resume
    sets = load_data(folder, args, say, not args.quiet, left_out)
    training = Run.resume(folder, *sets, say, args.device, args.precision)
    say(f"resuming {folder} at step {training.step} of {training.steps}")
    return training


def start(args: argparse.Namespace, say: Callable[[str], None], left_out: list[str]) -> "Run":
    """Return a new run, as the options describe it."""
    from ..train.run import Run

    config, (train_set, test_set) = make_config(args, say, left_out)
    name = Path(config.data).stem
    preset = config.recipe.preset.replace("/", "-")
    default = Path("runs", f"{name}-{preset}-{time.strftime('%Y%m%d-%H%M%S')}")
    wanted = args.out or default
    if Path(config.data).is_dir() and wanted.resolve().is_relative_to(config.data):
        raise UserError(
            f"{wanted} lies in the folder of the images, where it would be read as a class of "
            "images: choose another --out"
        )
    with new_folder(args.out, default) as folder:
        training = Run.start(
            config, folder, train_set, test_set, args.device, args.precision, args.data_dir
        )
    say(
        f"{name}: {len(training.train_set):,} training and {len(test_set):,} test images; a ViT "
        f"with {training.model.count():,} weights; {folder}"
    )
    return training


@contextmanager
def new_folder(out: Path | None, default: Path) -> Iterator[Path]:
    """Yield the folder for a new run: `out`, or else one that is named after `default`.

    That is made here: runs/NAME, or runs/NAME-2, and so on, if runs that began in the same
    second have taken the name. It is removed again if the run cannot start. Raises UserError
    if it cannot be made.
    """
    if out:
        yield out
        return
    had_runs = default.parent.exists()
    folder = default
    for number in count(2):
        try:
            folder.mkdir(parents=True)  # of two processes, one makes it
            break
        except OSError as error:
            if not os.path.lexists(folder):
                raise UserError(
                    f"{folder} cannot be created ({error.strerror}): name another folder with --out"
                ) from None
        folder = default.with_name(f"{default.name}-{number}")
    try:
        yield folder
    except BaseException:
        with suppress(OSError):  # there may be something in it
            folder.rmdir()
            if not had_runs:
                folder.parent.rmdir()
        raise
