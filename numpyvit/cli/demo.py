"""numpyvit demo: a page in the browser that shows every number of a model."""

import argparse
from typing import Any

from ..errors import UserError, say
from .models import FILES_HELP, load_model, read_examples, split_files
from .options import add_command, text


def add_parser(commands: Any) -> None:
    """Add the parser of `numpyvit demo`."""
    p = add_command(
        commands,
        "demo",
        "open a page that shows every number a model computes, forward and backward",
        "runs/mnist digit.png",
        usage="numpyvit demo [-h] [--port N] [--no-browser] [RUN] [IMAGE...]",
    )
    p.add_argument("files", nargs="*", type=text, metavar="FILE", help=FILES_HELP)
    p.add_argument(
        "--port", type=port, metavar="N", default=0, help="the port to use (default: any free one)"
    )
    p.add_argument("--no-browser", action="store_true", help="print the address only")


def port(value: str) -> int:
    """Return the number of a port, 0 to 65535."""
    if not (value.isascii() and value.isdigit() and len(value) < 6 and int(value) < 65536):
        raise argparse.ArgumentTypeError(f"{value[:40]!r} is not a port: use 0 to 65535")
    return int(value)


def run(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    import sys
    import threading
    import webbrowser

    from ..engine.process import process_settings
    from ..look.page import page_html
    from ..look.samples import accuracy_images, some_of_each_class
    from ..look.server import Server
    from ..look.session import Session

    folder, images = split_files(args.files)
    classifier = load_model(folder)
    test = None
    try:
        test = accuracy_images(classifier, folder)
    except UserError as error:  # the page then shows no accuracy
        say(f"numpyvit: without test images, because {error}", sys.stderr)
    examples = read_examples(classifier, images) or some_of_each_class(test)
    # One BLAS thread: the matrices of a single image are too small for more, and waiting
    # for each other makes them up to ten times slower on a busy machine.
    with process_settings():
        session = Session(classifier, examples, test)
        with Server(session, page_html, args.port) as server:
            threading.Thread(target=session.find_gradients, daemon=True).start()
            say(server.url)
            say("Open this address on this machine; stop with Ctrl-C.")
            if not args.no_browser:
                threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                say("stopped")
    return 0
