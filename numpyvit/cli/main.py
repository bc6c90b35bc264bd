"""The entry point of the `numpyvit` command: its parser, exit codes and errors."""

import argparse
import os
import sys
from typing import NoReturn

from ..errors import UserError, check_choice
from . import augment, compare, download, evaluate, gradcheck, info, predict, train

MODULES = (train, evaluate, predict, info, gradcheck, download, compare, augment)
COMMANDS = {module.__name__.rpartition(".")[2]: module for module in MODULES}


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are UserErrors."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def make_parser() -> Parser:
    """Return the parser of the command line, with a parser for each command."""
    from ..version import __version__

    parser = Parser(
        prog="numpyvit",
        description="A Vision Transformer in NumPy whose every gradient is written by hand.",
    )
    parser.add_argument("--version", action="version", version=f"numpyvit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="|".join(COMMANDS))
    for module in MODULES:
        module.add_parser(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    0: success. 1: gradcheck found a wrong gradient, or nothing reads the output.
    2: an error that the user can correct, in one line on stderr. 130: Ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else argv
    if hasattr(sys.stdout, "reconfigure"):  # for names that the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if argv and not argv[0].startswith("-"):
            check_choice("command", argv[0], COMMANDS)
        args = make_parser().parse_args(argv)
        return COMMANDS[args.command].run(args) or 0
    except UserError as error:
        message = str(error)[:2000]
    except KeyboardInterrupt as stop:
        print(f"numpyvit: {stop if stop.args else 'interrupted'}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `numpyvit info | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print("numpyvit: stopped, because nothing reads its output any more", file=sys.stderr)
        return 1
    except OSError as error:
        where = error.filename or "the output"
        message = f"{where}: {error.strerror or error}; check the path and its permissions"
    except MemoryError:
        message = (
            "out of memory: try fewer --workers, a smaller --micro-batch, --batch-size (on a GPU) "
            "or --preset"
        )
    print("numpyvit: error: " + " ".join(message.split()), file=sys.stderr)
    return 2
