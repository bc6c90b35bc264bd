"""numpyvit download: fetch data sets before they are needed."""

import argparse
from typing import Any

from .options import add_data_dir, text


def add_parser(commands: Any) -> None:
    """Add the parser of `numpyvit download`."""
    p = commands.add_parser(
        "download",
        allow_abbrev=False,
        help="download data sets; train also downloads those that are missing",
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
        print(f"{name}: {data.download(name, args.data_dir)}")
