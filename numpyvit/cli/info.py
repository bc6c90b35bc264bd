"""numpyvit info: describe a model, a recipe, and how training would run here."""

import argparse
import textwrap
from dataclasses import fields
from typing import Any

from ..errors import UserError, check_choice, say, say_lines
from .inputs import model_file
from .options import add_command, add_workers, count, option_name, path, text


def add_parser(commands: Any) -> None:
    """Add the parser of `numpyvit info`."""
    p = add_command(
        commands,
        "info",
        "show the layers, shapes, weights and FLOPs of a model, or what a recipe is made of",
        "--recipe mnist",
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
    say_lines(summary(config))
    if not args.run:
        say(f"presets: {', '.join(presets)}")
    for name, description in settings():
        say(f"{name:12} {description}")
    if args.time:
        say_lines(profile(config, args.batch_size or 128, args.workers, args.micro_batch))


def print_recipes() -> None:
    """Print one line for each recipe."""
    from ..train.recipes import catalogue

    width = max(map(len, catalogue))
    for name, entry in catalogue.items():
        say(f"{name:{width}}  {entry.summary}")


def print_recipe(name: str) -> None:
    """Print the description and the settings of a recipe."""
    from ..train.recipes import catalogue

    check_choice("recipe", name, catalogue)
    entry = catalogue[name]
    data = " --data PATH" if name == "own" else ""
    about = " ".join(entry.about.split())
    say(f"recipe {name}, for {entry.summary}")
    say()
    say_lines(textwrap.fill(about, 88))
    say()
    say(f"numpyvit train --recipe {name}{data}")
    say()
    for field in fields(entry.recipe):
        value = getattr(entry.recipe, field.name)
        if isinstance(value, bool):
            value = "yes" if value else "no"
        text = f"  {option_name(field.name):16} {value!s:14} {field.metadata['help']}"
        say_lines(textwrap.fill(text, 100, subsequent_indent=" " * 34))
