"""numpyvit compare: runs side by side."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from .options import path

WIDTH = 30  # the most characters in a cell


def add_parser(commands: Any) -> None:
    """Add the parser of `numpyvit compare`."""
    p = commands.add_parser("compare", allow_abbrev=False, help="print runs side by side")
    p.add_argument("runs", nargs="+", type=path, metavar="RUN", help="the folders of the runs")


def run(args: argparse.Namespace) -> None:
    """Print the table."""
    print(compare(args.runs))


def compare(folders: Sequence[Path]) -> str:
    """Return a table of the settings in which the runs differ, and of their results.

    The best epoch is that by validation; for a run without validation it is that by the
    test set, and the table says so.
    """
    columns = [column(folder) for folder in folders]
    settings = list(dict.fromkeys(key for config, _ in columns for key in config))
    differing = [
        key for key in settings if len({str(config.get(key)) for config, _ in columns}) > 1
    ]
    table = [["", *(str(folder) for folder in folders)]]
    table += [[key, *(str(config.get(key, "-")) for config, _ in columns)] for key in differing]
    table += [[key, *(figures[key] for _, figures in columns)] for key in columns[0][1]]
    table = [[row[0], *(shortened(cell) for cell in row[1:])] for row in table]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = []
    for name, *cells in table:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]).rstrip())
    return "\n".join(lines)


def shortened(cell: str) -> str:
    """Return a cell with at most WIDTH characters, of which the last are kept."""
    return cell if len(cell) <= WIDTH else "..." + cell[3 - WIDTH :]


def column(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return one run's settings, in a flat dict, and its results.

    Raises UserError if no epoch is finished.
    """
    from statistics import median

    from ..train.folder import read_config
    from ..train.metrics import best_row, read_metrics

    config, _, versions = read_config(folder)
    rows = read_metrics(folder)
    if not rows:
        raise UserError(f"{folder} has no finished epoch yet: there is nothing to compare")
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
