"""Runs side by side."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from ..errors import UserError
from ..train.folder import best_row, read_config, read_metrics

WIDTH = 30  # of a column, at most


def compare(folders: Sequence[Path]) -> str:
    """A table: what the runs' configs differ in, how far they came, the last and the best figures, and the speed. The best
    epoch is that by validation, or, for a run without, by the test set, and then said to be so."""
    columns = [column(folder) for folder in folders]
    settings = list(dict.fromkeys(key for config, _ in columns for key in config))
    differ = [key for key in settings if len({str(config.get(key)) for config, _ in columns}) > 1]
    table = [["", *(str(folder) for folder in folders)]]
    table += [[key, *(str(config.get(key, "-")) for config, _ in columns)] for key in differ]
    table += [[key, *(figures[key] for _, figures in columns)] for key in columns[0][1]]
    table = [
        [row[0], *(cell if len(cell) <= WIDTH else "..." + cell[3 - WIDTH :] for cell in row[1:])]
        for row in table
    ]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = (
        [f"{cell:{'<' if i == 0 else '>'}{widths[i]}}" for i, cell in enumerate(row)]
        for row in table
    )
    return "\n".join("  ".join(line).rstrip() for line in lines)


def column(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """One run's settings, flat, and its figures."""
    config, _, versions = read_config(folder)
    rows = read_metrics(folder)
    if not rows:
        raise UserError(f"{folder} has finished no epoch yet: there is nothing to compare")
    settings = config.flat() | {f"version of {name}": version for name, version in versions.items()}
    last, best = rows[-1], best_row(rows)
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
