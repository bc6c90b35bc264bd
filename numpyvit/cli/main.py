"""The command: numpyvit train, evaluate, predict, info, gradcheck, download, compare, augment. What it reads, and how it
complains; commands.py does the work."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from ..errors import UserError, check_choice

COMMANDS = ("train", "evaluate", "predict", "info", "gradcheck", "download", "compare", "augment")


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def count(value: str) -> int:
    """The type of options that count something."""
    if not (value.isascii() and value.isdigit() and len(value) < 10 and int(value) > 0):
        raise argparse.ArgumentTypeError(f"{value[:40]!r} is not a whole number above 0")
    return int(value)


def text(value: str) -> str:
    """The type of options that name something. An empty one is most often a variable that was not set."""
    if not value:
        raise argparse.ArgumentTypeError("it is empty")
    return value


def path(value: str) -> Path:
    return Path(text(value))


def add_data(p: argparse.ArgumentParser) -> None:
    from .. import data

    p.add_argument(
        "--data",
        type=text,
        metavar="NAME",
        help=f"{', '.join(data.names)}, the path of a folder of pictures (CLASS/*, or train/CLASS/* and "
        "test/CLASS/*), or that of an .npz with images and labels; default: digits",
    )
    p.add_argument(
        "--recipe",
        type=text,
        metavar="NAME",
        help="a recipe other than the data set's own, mnist-best say; implies its data set",
    )
    add_data_dir(p)
    p.add_argument(
        "--image-size",
        type=count,
        metavar="N",
        help="make pictures of a folder fit NxN (default 64)",
    )
    p.add_argument(
        "--test",
        type=float,
        metavar="FRACTION",
        help="share of your own images that is the test set, where they have none (default 0.2)",
    )
    p.add_argument(
        "--val",
        type=float,
        metavar="FRACTION",
        help="hold out this share of the training set; keep the best epoch by it",
    )
    p.add_argument(
        "--patience",
        type=count,
        metavar="N",
        help="stop after N epochs that were no better by --val",
    )
    p.add_argument("--seed", type=int, metavar="N", help="of everything random (default 0)")
    p.add_argument(
        "--micro-batch",
        type=count,
        metavar="N",
        help="images in one thread's piece (default: by the model)",
    )


def add_data_dir(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--data-dir",
        type=text,
        metavar="DIR",
        help="where the data sets lie, mnist in DIR/mnist and so on, or are to be put "
        "(default: NUMPYVIT_DATA, else your cache folder)",
    )


def add_device(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--device",
        type=text,
        metavar="cpu|cuda|cuda:N",
        default="cpu",
        help="where to compute; a GPU needs CuPy: numpyvit[cuda13] or [cuda12] (default cpu)",
    )


def add_recipe(p: argparse.ArgumentParser) -> None:
    """An option for each field of a Recipe."""
    from ..train.recipes import OPTIONS, Recipe, option

    group = p.add_argument_group("recipe", "by default the data set's own")
    for name, kind in Recipe.__annotations__.items():
        if kind is bool:
            group.add_argument(
                option(name), action=argparse.BooleanOptionalAction, help=OPTIONS[name]
            )
        else:
            readers: dict[Any, Callable[[str], Any]] = {int: count, float: float, str: text}
            read = int if name == "randaugment" else readers[kind]
            group.add_argument(
                option(name),
                type=read,
                help=OPTIONS[name],
                metavar={int: "N", float: "X", str: "NAME"}[kind],
            )


def make_parser() -> Parser:
    from ..version import __version__

    parser = Parser(
        prog="numpyvit",
        description="A Vision Transformer in NumPy, every gradient written by hand.",
    )
    parser.add_argument("--version", action="version", version=f"numpyvit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="|".join(COMMANDS))

    p = commands.add_parser(
        "train",
        allow_abbrev=False,
        help="train a model; with no argument, on the digits that ship with the package",
    )
    add_data(p)
    p.add_argument(
        "--workers", type=count, metavar="N", help="threads (default: the cores); changes no result"
    )
    add_device(p)
    p.add_argument(
        "--precision",
        type=text,
        metavar="NAME",
        default="float32",
        help="of a GPU's products: float32 (default), tf32, or float16, with float32 for the sums and all else",
    )
    p.add_argument(
        "--out",
        type=path,
        metavar="DIR",
        help="the run's folder (default runs/DATA-PRESET-DATE-TIME)",
    )
    p.add_argument("--resume", type=path, metavar="DIR", help="go on with the run in DIR")
    p.add_argument("--quiet", action="store_true", help="print nothing but errors")
    add_recipe(p)

    p = commands.add_parser(
        "evaluate", allow_abbrev=False, help="measure a trained model on its test set"
    )
    p.add_argument("run", type=path, metavar="RUN", help="a run's folder")
    p.add_argument(
        "--data",
        type=text,
        metavar="PATH",
        help="where your own images are now, if they were moved",
    )
    add_data_dir(p)
    p.add_argument("--workers", type=count, metavar="N")
    add_device(p)

    p = commands.add_parser(
        "predict",
        allow_abbrev=False,
        help="say what is in images",
        usage="numpyvit predict [-h] [RUN] IMAGE...",
    )
    p.add_argument(
        "files",
        nargs="+",
        type=text,
        metavar="FILE",
        help="RUN: a run's folder, or a model.npz; without it, the model of handwritten digits that ships with "
        "the package. IMAGE...: PNG, JPEG, TIFF, WebP, GIF ... of any size",
    )

    p = commands.add_parser(
        "info",
        allow_abbrev=False,
        help="layers, shapes, weights and FLOPs of a model, and how it would run here",
    )
    p.add_argument(
        "run", nargs="?", type=path, metavar="RUN", help="a run's folder, or a model.npz"
    )
    p.add_argument("--preset", type=text, metavar="NAME")
    p.add_argument("--time", action="store_true", help="time a training step, layer by layer")
    p.add_argument("--batch-size", type=count, metavar="N", help="of that step; default 128")
    p.add_argument("--workers", type=count, metavar="N", help="as for train")
    p.add_argument("--micro-batch", type=count, metavar="N", help="as for train")

    p = commands.add_parser(
        "gradcheck",
        allow_abbrev=False,
        help="hold the gradients of every layer, and of a model, against numerical differences",
    )
    p.add_argument(
        "--preset",
        type=text,
        metavar="NAME",
        help="the whole model of this preset, and nothing else",
    )
    p.add_argument(
        "--all",
        action="store_true",
        help="the layers, and a tiny model in every combination of its options",
    )
    add_device(p)

    p = commands.add_parser(
        "download",
        allow_abbrev=False,
        help="fetch data sets; train does so too where they are missing",
    )
    p.add_argument(
        "names",
        nargs="+",
        type=text,
        metavar="NAME",
        help="mnist, fashion-mnist, cifar10, cifar100",
    )
    add_data_dir(p)

    p = commands.add_parser("compare", allow_abbrev=False, help="print runs side by side")
    p.add_argument("runs", nargs="+", type=path, metavar="RUN", help="runs' folders")

    p = commands.add_parser(
        "augment",
        allow_abbrev=False,
        help="draw a picture of a training batch, as it is and as train would see it",
    )
    add_data(p)
    add_device(p)
    p.add_argument("--out", type=path, metavar="FILE.png", required=True)
    p.add_argument("--quiet", action="store_true", help="show no progress")
    add_recipe(p)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, 1 where gradcheck found something or nobody reads the output, 2 for a
    user's error (one line on stderr), 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that the terminal cannot show
    try:
        if argv and not argv[0].startswith("-"):
            check_choice("command", argv[0], COMMANDS)
        args = make_parser().parse_args(argv)
        from . import commands

        return getattr(commands, args.command)(args) or 0
    except UserError as error:
        message = str(error)[:2000]
    except KeyboardInterrupt as stop:
        print(f"numpyvit: {stop if stop.args else 'interrupted'}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `numpyvit info | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print("numpyvit: stopped, since nothing reads its output any more", file=sys.stderr)
        return 1
    except OSError as error:
        message = f"{error.filename or 'the output'}: {error.strerror or error}; choose another file, or mend this one"
    except MemoryError:
        message = "out of memory: try fewer --workers, a smaller --micro-batch, --batch-size (on a GPU) or --preset"
    print("numpyvit: error: " + " ".join(message.split()), file=sys.stderr)
    return 2
