"""Types of options, and groups of options that several commands have."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any


def count(value: str) -> int:
    """Return the value of an option that counts something: an integer above 0."""
    if not (value.isascii() and value.isdigit() and len(value) < 10 and int(value) > 0):
        raise argparse.ArgumentTypeError(f"{value[:40]!r} is not an integer above 0")
    return int(value)


def number(value: str) -> float:
    """Return the value of an option that is a number."""
    try:
        return float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value[:40]!r} is not a number") from None


def integer(value: str) -> int:
    """Return the value of an option that is an integer, of any sign."""
    try:
        return int(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value[:40]!r} is not an integer") from None


def text(value: str) -> str:
    """Return the value of an option that names something.

    An empty one is refused, since it is most often a shell variable that was not set.
    """
    if not value:
        raise argparse.ArgumentTypeError("it is empty")
    return value


def path(value: str) -> Path:
    """Return the value of an option that is a path."""
    return Path(text(value))


def add_command(
    commands: Any, name: str, summary: str, example: str, usage: str | None = None
) -> argparse.ArgumentParser:
    """Add and return the parser of a command.

    summary: what it does, in the list of commands and in its own help. example: its
    arguments in an example.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        allow_abbrev=False,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"Example: numpyvit {name} {example}",
        usage=usage,
    )
    return parser


def option_name(field: str) -> str:
    """Return the option for a field: "--batch-size" for "batch_size"."""
    return f"--{field.replace('_', '-')}"


def add_config_options(p: argparse.ArgumentParser) -> None:
    """Add the options from which inputs.make_config makes a TrainConfig."""
    from .. import data

    p.add_argument(
        "--data",
        type=text,
        metavar="NAME",
        help=f"{', '.join(data.names)}; or the path of a folder of images (CLASS/*, or "
        "train/CLASS/* and test/CLASS/*) or of an .npz file with images and labels "
        "(default: digits)",
    )
    p.add_argument(
        "--recipe",
        type=text,
        metavar="NAME",
        help="a recipe other than the data set's own; without --data, it is trained on the data "
        "set that it was made for; `numpyvit info --recipe list` lists the recipes",
    )
    add_data_dir(p)
    p.add_argument(
        "--image-size",
        type=count,
        metavar="N",
        help="resize the images of a folder to NxN (default: 64)",
    )
    p.add_argument(
        "--test",
        type=number,
        metavar="FRACTION",
        help="fraction of your own images that becomes the test set, if they have none "
        "(default: 0.2)",
    )
    p.add_argument(
        "--val",
        type=number,
        metavar="FRACTION",
        help="hold out this fraction of the training set, and save the epoch that does best on it",
    )
    p.add_argument(
        "--patience",
        type=count,
        metavar="N",
        help="stop after N epochs without an improvement on the images that --val holds out",
    )
    p.add_argument(
        "--seed", type=integer, metavar="N", help="the seed of all randomness (default: 0)"
    )
    p.add_argument(
        "--micro-batch",
        type=count,
        metavar="N",
        help="images that a thread processes at a time (default: chosen for the model)",
    )
    add_recipe_options(p)


def add_recipe_options(p: argparse.ArgumentParser) -> None:
    """Add an option for each field of Recipe."""
    from ..train.recipe import Recipe

    group = p.add_argument_group(
        "recipe", "By default as in the recipe, which `numpyvit info --recipe NAME` shows."
    )
    for field in dataclasses.fields(Recipe):
        name = option_name(field.name)
        metadata = field.metadata
        if field.type is bool:
            group.add_argument(name, action=argparse.BooleanOptionalAction, help=metadata["help"])
            continue
        read: Callable[[str], Any] = text
        if field.type is float:
            read = number
        elif field.type is int:
            read = count if metadata["bounds"].low > 0 else integer
        group.add_argument(name, type=read, help=metadata["help"], metavar=metadata["metavar"])


def add_data_dir(p: argparse.ArgumentParser) -> None:
    """Add --data-dir."""
    p.add_argument(
        "--data-dir",
        type=text,
        metavar="DIR",
        help="the folder of the data sets (mnist in DIR/mnist, and so on), to which missing ones "
        "are downloaded (default: the environment variable NUMPYVIT_DATA, or else your cache "
        "folder)",
    )


def add_device(p: argparse.ArgumentParser) -> None:
    """Add --device."""
    p.add_argument(
        "--device",
        type=text,
        metavar="cpu|cuda|cuda:N",
        default="cpu",
        help="where to compute; a GPU needs CuPy: numpyvit[cuda13] or [cuda12] (default: cpu)",
    )


def add_workers(p: argparse.ArgumentParser) -> None:
    """Add --workers."""
    p.add_argument(
        "--workers",
        type=count,
        metavar="N",
        help="number of threads; it changes no result (default: one for each core)",
    )
