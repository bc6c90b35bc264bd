"""Tables in Markdown whose rows are computed in separate processes, one at a time.

A row that fails, crashes or takes too long says so in its cells. It costs no other row, because
the rows after it get a new process.
"""

import multiprocessing
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from numpyvit import UserError

# The cells of a row, and a value that other parts of the program need; None if the row failed.
Found = tuple[list[str], Any]
MOST_CHARACTERS = 200  # in a cell


def serve(connection: Connection) -> None:
    """Run in a separate process: answer orders (function, arguments) until None arrives."""
    sys.stdout = sys.stderr  # stdout is for the tables
    while (order := connection.recv()) is not None:
        function, args = order
        try:
            found = function(*args)
        except Exception as error:
            found = [reason(error)], None
        connection.send(found)


def reason(error: Exception) -> str:
    """Return an error as one line; if it is not a UserError, print its traceback."""
    text = str(error).strip().split("\n")[0]
    if isinstance(error, UserError):
        return text
    traceback.print_exc()
    return f"{type(error).__name__}: {text}"


def start_process() -> tuple[BaseProcess, Connection]:
    """Return a new process that runs serve, and the connection to it."""
    context = multiprocessing.get_context("spawn")
    connection, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,))
    process.start()
    theirs.close()  # only the process holds it now, so the end of the process shows here
    return process, connection


def ask(
    limit: float, function: Callable[..., Found], *args: Any, items: list[tuple]
) -> Iterator[Found]:
    """Yield function(*args, *item) for each item, computed in one process.

    After an item that failed, or took more than `limit` seconds, a new process takes over.
    """
    process = None
    for item in items:
        if process is None:
            process, connection = start_process()
        connection.send((function, (*args, *item)))
        try:
            if connection.poll(limit):
                found = connection.recv()
            else:
                found = [f"not done after {limit:.0f} s"], None
        except EOFError:
            process.join()
            found = [f"its process ended with code {process.exitcode}"], None
        failed = found[1] is None
        if failed or item is items[-1]:
            if not failed:
                connection.send(None)
                process.join(10)
            process.kill()
            process.join()  # only then is its memory free
            process = None
        yield found


def print_row(cells: Iterable[object]) -> None:
    """Print a row of a Markdown table."""
    texts = (str(cell)[:MOST_CHARACTERS].replace("|", "/") for cell in cells)
    print("| " + " | ".join(texts) + " |", flush=True)


def table(
    limit: float, title: str, names: str, groups: Iterable[tuple], values: dict[tuple, Any]
) -> None:
    """Print a table, row by row as they are computed, and store their values in `values`.

    names: the names of the columns, separated by ", ". groups: (first cells, function,
    arguments, items). The function is called with the arguments and an item for each row, whose
    cells are the first cells, the item and the cells that the function returns. The key of its
    value is (*first cells, *item). `limit` is the most seconds that a row may take.
    """
    columns = names.split(", ")
    print(f"\n{title}\n")
    print_row(columns)
    print_row(["---"] * len(columns))
    for first, function, args, items in groups:
        results = ask(limit, function, *args, items=items)
        for item, (found, value) in zip(items, results, strict=True):
            cells = [*first, *item, *found]
            missing = len(columns) - len(cells)
            print_row(cells + [""] * missing)
            values[(*first, *item)] = value
