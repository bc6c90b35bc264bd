"""numpyvit info: describe a model, a recipe, and how training would run here."""

import argparse
import textwrap
from dataclasses import fields
from typing import Any

from ..errors import UserError, check_choice
from .inputs import model_file
from .options import add_workers, count, option_name, path, text


def add_parser(commands: Any) -> None:
    """Add the parser of `numpyvit info`."""
    p = commands.add_parser(
        "info",
        allow_abbrev=False,
        help="show the layers, shapes, weights and FLOPs of a model, or what a recipe is made of",
    )
    p.add_argument(
        "run", nargs="?", type=path, metavar="RUN", help="the folder of a run, or a model.npz"
    )
    p.add_argument("--preset", type=text, metavar="NAME", help="the model of this preset")
    p.add_argument(
        "--recipe", type=text, metavar="NAME", help="a recipe; `list` prints a line for each"
    )
    p.add_argument("--time", action="store_true", help="time a training step, layer by layer")
    p.add_argument(
        "--batch-size", type=count, metavar="N", help="images in that step (default: 128)"
    )
    add_workers(p)
    p.add_argument(
        "--micro-batch", type=count, metavar="N", help="images that a thread processes at a time"
    )


def run(args: argparse.Namespace) -> None:
    """Print a description of a recipe, or of a model and this machine."""
    if sum(bool(given) for given in (args.run, args.preset, args.recipe)) > 1:
        raise UserError("info needs one of RUN, --preset and --recipe")
    if not args.time and (args.batch_size or args.workers or args.micro_batch):
        raise UserError("--batch-size, --workers and --micro-batch are for info --time")
    if not args.recipe:
        print_model(args)
    elif args.time:
        raise UserError("--time is for a model: give a RUN or a --preset in place of --recipe")
    elif args.recipe == "list":
        print_recipes()
    else:
        print_recipe(args.recipe)


def print_model(args: argparse.Namespace) -> None:
    """Print a model's table, this machine's settings and, if wanted, a step's times."""
    from ..classifier import Classifier
    from ..engine.process import settings
    from ..look.costs import summary
    from ..look.timing import profile
    from ..presets import presets

    if args.run:
        config = Classifier.load(model_file(args.run)).config
    else:
        name = args.preset or "digits"
        check_choice("preset", name, presets)
        config = presets[name]
    print(summary(config))
    if not args.run:
        print(f"presets: {', '.join(presets)}")
    for name, description in settings():
        print(f"{name:12} {description}")
    if args.time:
        print(profile(config, args.batch_size or 128, args.workers, args.micro_batch))


def print_recipes() -> None:
    """Print one line for each recipe."""
    from ..train.recipes import catalogue

    width = max(map(len, catalogue))
    for name, entry in catalogue.items():
        print(f"{name:{width}}  {entry.summary}")


def print_recipe(name: str) -> None:
    """Print the description and the settings of a recipe."""
    from ..train.recipes import catalogue

    check_choice("recipe", name, catalogue)
    entry = catalogue[name]
    data = " --data PATH" if name == "own" else ""
    about = " ".join(entry.about.split())
    print(f"recipe {name}, for {entry.summary}")
    print()
    print(textwrap.fill(about, 88))
    print()
    print(f"numpyvit train --recipe {name}{data}")
    print()
    for field in fields(entry.recipe):
        value = getattr(entry.recipe, field.name)
        print(f"  {option_name(field.name):16} {value!s:14} {field.metadata['help']}")
