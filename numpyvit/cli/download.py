"""numpyvit download: fetch data sets before they are needed."""

import argparse
from typing import Any

from ..errors import say
from .options import add_command, add_data_dir, text


def add_parser(commands: Any) -> None:
    """Add the parser of `numpyvit download`."""
    p = add_command(
        commands,
        "download",
        "download data sets; train also downloads those that are missing",
        "mnist cifar10 --data-dir DIR",
    )
    p.add_argument(
        "names",
        nargs="+",
        type=text,
        metavar="NAME",
        help="mnist, fashion-mnist, cifar10, cifar100",
    )
    add_data_dir(p)


def run(args: argparse.Namespace) -> None:
    """Download each data set that is missing, and print where it is."""
    from .. import data

    for name in args.names:
        if name == "digits":
            say("digits: they ship with the package")
            continue
        say(f"{name}: {data.download(name, args.data_dir)}")
