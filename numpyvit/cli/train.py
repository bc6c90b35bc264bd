"""numpyvit train: train a model, or resume a run."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from .inputs import arguments_for, load_data, make_config
from .options import add_config_options, add_device, add_workers, option_name, path, text

if TYPE_CHECKING:
    from ..train.run import Run

# All other options decide the result, so config.json has them.
WITH_RESUME = {"command", "resume", "data", "data_dir", "workers", "device", "precision", "quiet"}


def add_parser(commands: Any) -> None:
    """Add the parser of `numpyvit train`."""
    p = commands.add_parser(
        "train",
        allow_abbrev=False,
        help="train a model; without arguments, on the digits that ship with the package",
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


def run(args: argparse.Namespace) -> None:
    """Train, and say how to continue."""
    from ..backend.device import module_of
    from ..train.loop import train
    from ..train.metrics import best_row, read_metrics

    module_of(args.device)  # complain about the device before anything takes long
    say = (lambda line: None) if args.quiet else print
    training = resume(args, say) if args.resume else start(args, say)
    folder = training.folder
    try:
        train(training, args.workers, say, bar=not args.quiet)
    except KeyboardInterrupt:
        precision = "" if args.precision == "float32" else f" --precision {args.precision}"
        raise KeyboardInterrupt(
            f"stopped and saved at step {training.saved_step}; continue with: numpyvit train "
            f"--resume {arguments_for(folder, args)}{precision}"
        ) from None
    if training.step < training.steps:
        epochs = training.epochs_without_improvement
        say(f"stopped after {epochs} epochs without an improvement (--patience)")
    rows = read_metrics(folder)
    say(
        f"test accuracy {best_row(rows)['test_accuracy']:.2%} after {rows[-1]['seconds']:.1f} s of "
        f"training; next: numpyvit evaluate {arguments_for(folder, args)}"
    )


def resume(args: argparse.Namespace, say: Callable[[str], None]) -> "Run":
    """Return the run in --resume's folder."""
    from ..train.folder import read_config
    from ..train.run import Run

    for name, value in vars(args).items():
        if value is not None and name not in WITH_RESUME:
            raise UserError(
                f"{option_name(name)} cannot be given with --resume: the run's config.json "
                "decides it"
            )
    folder = args.resume
    sets = load_data(read_config(folder)[0], args, say, not args.quiet)
    training = Run.resume(folder, *sets, say, args.device, args.precision)
    say(f"resuming {folder} at step {training.step} of {training.steps}")
    return training


def start(args: argparse.Namespace, say: Callable[[str], None]) -> "Run":
    """Return a new run, as the options describe it."""
    from ..train.run import Run

    config, (train_set, test_set) = make_config(args, say)
    name = Path(config.data).stem
    preset = config.recipe.preset.replace("/", "-")
    folder = args.out or Path("runs", f"{name}-{preset}-{time.strftime('%Y%m%d-%H%M%S')}")
    if Path(config.data).is_dir() and folder.resolve().is_relative_to(config.data):
        raise UserError(
            f"{folder} lies in the folder of the images, where it would be read as a class of "
            "images: choose another --out"
        )
    training = Run.start(config, folder, train_set, test_set, args.device, args.precision)
    say(
        f"{name}: {len(training.train_set):,} training and {len(test_set):,} test images; a ViT "
        f"with {training.model.count():,} weights; {folder}"
    )
    return training
