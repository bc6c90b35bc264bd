"""numpyvit compare: runs side by side, or, if they are many, one below the other."""

import argparse
import os
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError, printable, say, say_lines
from .options import add_command, path

WIDTH = 30  # the most characters in a cell, if the cells can be told apart by so many
MOST_COLUMNS = 4  # runs side by side

Settings = dict[str, Any]
Figures = dict[str, str]


def add_parser(commands: Any) -> None:
    """Add the parser of `numpyvit compare`."""
    p = add_command(
        commands,
        "compare",
        "print runs side by side",
        "runs/*",
    )
    p.add_argument("runs", nargs="+", type=path, metavar="RUN", help="the folders of the runs")


def run(args: argparse.Namespace) -> None:
    """Print the table, without the runs that have no results, which are named on stderr.

    Raises UserError if none is left.
    """
    runs: list[tuple[Path, Settings, Figures]] = []
    problems: list[str] = []
    for folder in args.runs:
        try:
            runs.append((folder, *results(folder)))
        except UserError as error:
            problems.append(str(error))
    if not runs:
        raise UserError("; ".join(problems))
    for problem in problems:
        say(f"left out: {problem}", sys.stderr)
    say_lines(compare(runs))


def compare(runs: list[tuple[Path, Settings, Figures]]) -> str:
    """Return a table of the settings in which the runs differ, and of their results.

    Up to MOST_COLUMNS runs have a column each, more have a row each. The best epoch is that
    by validation; for a run without validation it is that by the test set, and the table
    says so.
    """
    settings = list(dict.fromkeys(key for _, config, _ in runs for key in config))
    table = [["", *shortened([str(folder) for folder, _, _ in runs])]]
    for key in settings:
        values = [str(config.get(key, "-")) for _, config, _ in runs]
        if len(set(values)) > 1:
            table.append([printable(key), *shortened(values)])
    for key in runs[0][2]:
        table.append([key, *(figures[key] for _, _, figures in runs)])
    if len(runs) <= MOST_COLUMNS:
        return aligned(table)
    heads, *rows = zip(*table, strict=True)
    return aligned([*wrapped(heads, rows), *rows])


def wrapped(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return the heads of the columns in lines, so that they are no wider than they have to be."""
    columns = []
    for head, *cells in zip(heads, *rows, strict=True):
        width = max(map(len, [*head.split(), *cells]))
        columns.append(textwrap.wrap(head, width))
    height = max(map(len, columns))
    padded = [[""] * (height - len(lines)) + lines for lines in columns]
    return [list(line) for line in zip(*padded, strict=True)]


def aligned(table: Sequence[Sequence[str]]) -> str:
    """Return the rows as lines: the first cells begin, and the others end, below each other."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for name, *cells in table:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]).rstrip())
    return "\n".join(lines)


def shortened(cells: list[str]) -> list[str]:
    """Return the cells in at most WIDTH characters, if what they have in common suffices.

    First the folder in which all of them lie is left out, or else, for "...", what all begin
    with, and then the same at the end. If they are still too long, they are cut in the middle.
    Cells that differ still do.
    """
    cells = without_common_start([printable(cell) for cell in cells])
    backwards = without_common_start([cell[::-1] for cell in cells])
    cells = [cell[::-1] for cell in backwards]
    cut = [c if len(c) <= 2 * WIDTH else f"{c[:WIDTH]}...{c[3 - WIDTH :]}" for c in cells]
    return cut if len(set(cut)) == len(set(cells)) else cells


def without_common_start(cells: list[str]) -> list[str]:
    """Return the cells without as much of their common start as makes them fit WIDTH."""
    characters = os.path.commonprefix(cells)  # noqa: RUF071  # characters are meant
    start = re.sub(r"[^\W_]*$", "", characters)  # to the last whole word
    excess = max(map(len, cells)) - WIDTH
    if excess <= 0 or start in cells:
        return cells
    folder = start.rfind("/") + 1
    if folder >= excess:
        return [cell[folder:] for cell in cells]
    cut = min(len(start), excess + 3)
    return ["..." + cell[cut:] for cell in cells] if cut > 3 else cells


def results(folder: Path) -> tuple[Settings, Figures]:
    """Return one run's settings, in a flat dict, and its results.

    Raises UserError if no epoch is finished.
    """
    from statistics import median

    from ..train.folder import read_config
    from ..train.metrics import best_row, read_metrics

    config, _, versions = read_config(folder)
    rows = read_metrics(folder)
    if not rows:
        raise UserError(f"{folder} has no finished epoch yet")
    settings = config.flat() | {f"version of {name}": version for name, version in versions.items()}
    last = rows[-1]
    best = best_row(rows)
    by = "validation" if config.val else "test set"
    peak = best if config.val else max(rows, key=lambda row: row["test_accuracy"])
    return settings, {
        "epochs done": f"{last['epoch']} of {config.recipe.epochs}",
        "last train loss": f"{last['train_loss']:.4f}",
        "last test loss": f"{last['test_loss']:.4f}",
        "last test accuracy": f"{last['test_accuracy']:.2%}",
        "best validation accuracy": f"{best['val_accuracy']:.2%}" if config.val else "-",
        "best epoch": f"{peak['epoch']} by {by}",
        "its test accuracy": f"{peak['test_accuracy']:.2%}",
        "images/s, median": f"{median(row['images_per_second'] for row in rows):,.0f}",
        "seconds": f"{last['seconds']:,.1f}",
    }
