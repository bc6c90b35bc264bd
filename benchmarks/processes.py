"""Tables in Markdown whose lines are found in processes of their own, one at a time: what fails costs its own line, which
says why, and what comes after it gets a new process."""

import multiprocessing
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from numpyvit import UserError

Found = tuple[list[str], Any]  # cells of a table, and a value that others need; None: it failed


def serve(connection: Connection) -> None:
    """What a process does: answers (piece, its arguments) with what it finds, or with why it fails; until it gets None."""
    sys.stdout = sys.stderr  # the tables are no place for others' words
    while (order := connection.recv()) is not None:
        try:
            found = order[0](*order[1])
        except Exception as error:
            ours = isinstance(error, UserError)
            if not ours:
                traceback.print_exc()
            found = (
                [("" if ours else f"{type(error).__name__}: ") + str(error).strip().split("\n")[0]],
                None,
            )
        connection.send(found)


def ask(
    limit: float, piece: Callable[..., Found], *args: Any, items: list[tuple]
) -> Iterator[Found]:
    """What a piece finds for each of the items, in one process; or in a new one after each that took it more than `limit`
    seconds, or at which it failed."""
    context, process = multiprocessing.get_context("spawn"), None
    for item in items:
        if process is None:
            connection, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs,))
            process.start()
            theirs.close()  # so that its end shows at ours
        connection.send((piece, (*args, *item)))
        try:
            found = (
                connection.recv()
                if connection.poll(limit)
                else ([f"not done after {limit:.0f} s"], None)
            )
        except EOFError:
            process.join()
            found = [f"its process ended with code {process.exitcode}"], None
        if found[1] is None or item is items[-1]:
            if found[1] is not None:
                connection.send(None)
                process.join(10)
            process.kill()
            process.join()  # then its memory is free
            process = None
        yield found


def table(
    limit: float, title: str, names: str, lines: Iterable[tuple], values: dict[tuple, Any]
) -> None:
    """A table of (first cells, piece, its arguments, items). Its values go to `values`, by first cells and item, at once."""

    def row(*cells: object) -> None:
        print(
            "| " + " | ".join(str(cell)[:200].replace("|", "/") for cell in cells) + " |",
            flush=True,
        )

    columns = names.split(", ")
    print(f"\n{title}\n")
    row(*columns)
    row(*["---"] * len(columns))
    for first, piece, args, items in lines:
        for item, (cells, value) in zip(items, ask(limit, piece, *args, items=items), strict=True):
            row(*first, *item, *cells, *[""] * (len(columns) - len(first) - len(item) - len(cells)))
            values[(*first, *item)] = value
