"""The entry point of the `numpyvit` command: its parser, exit codes and errors."""

import argparse
import os
import signal
import sys
from typing import Any, NoReturn

from ..errors import UserError, check_choice, closest_match, say
from . import (
    augment,
    compare,
    demo,
    download,
    evaluate,
    gradcheck,
    info,
    predict,
    show,
    trace,
    train,
)

MODULES = (
    train,
    evaluate,
    predict,
    info,
    demo,
    trace,
    show,
    gradcheck,
    download,
    compare,
    augment,
)
COMMANDS = {module.__name__.rpartition(".")[2]: module for module in MODULES}

EPILOG = """\
`numpyvit COMMAND --help` describes a command. Exit codes:
  0    success
  1    gradcheck found a wrong gradient, predict or train could not read some
       of the images and did the rest, or nothing reads the output any more
  2    an error that you can correct, in one line on stderr
  130  stopped by Ctrl-C; train has saved the run
  143  stopped by SIGTERM; train has saved the run"""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are UserErrors, with suggestions for unknown options."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse unknown arguments here, since only the command's parser knows its options.

        argparse would report them by the parser of `numpyvit`.
        """
        namespace, unknown = super().parse_known_args(*args, **kwargs)
        if unknown:
            word = next((word for word in unknown if word.startswith("-")), unknown[0])
            names = [name[2:] for name in self._option_string_actions if name.startswith("--")]
            match = closest_match(word.partition("=")[0].lstrip("-"), names)
            hint = f": did you mean --{match}?" if match else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return namespace, unknown


def make_parser() -> Parser:
    """Return the parser of the command line, with a parser for each command."""
    from ..version import __version__

    parser = Parser(
        prog="numpyvit",
        description="A Vision Transformer in NumPy whose every gradient is written by hand.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"numpyvit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="|".join(COMMANDS))
    for module in MODULES:
        module.add_parser(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    EPILOG lists the codes.
    """
    is_program = argv is None
    argv = sys.argv[1:] if argv is None else argv
    try:
        if hasattr(sys.stdout, "reconfigure"):  # for names that the terminal cannot show
            sys.stdout.reconfigure(errors="backslashreplace")
        if argv and not argv[0].startswith("-"):
            check_choice("command", argv[0], COMMANDS)
        args = make_parser().parse_args(argv)
        return COMMANDS[args.command].run(args) or 0
    except UserError as error:
        message = str(error)[:2000]
    except KeyboardInterrupt as stop:
        if is_program:  # it ends now, and a traceback of another Ctrl-C would hide the line
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        say(f"numpyvit: {stop if stop.args else 'interrupted'}", sys.stderr)
        return 130
    except BrokenPipeError:  # `numpyvit info | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        say("numpyvit: stopped, because nothing reads its output any more", sys.stderr)
        return 1
    except OSError as error:
        where = error.filename or "the output"
        message = f"{where}: {error.strerror or error}; check the path and its permissions"
    except MemoryError:
        message = (
            "out of memory: try fewer --workers, a smaller --micro-batch, --batch-size (on a GPU) "
            "or --preset"
        )
    say(f"numpyvit: error: {message}", sys.stderr)
    return 2
