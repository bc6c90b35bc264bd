"""metrics.jsonl: one row of figures for each finished epoch."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from ..errors import UserError, is_real_number
from ..storage.files import write_atomically

METRICS = "metrics.jsonl"
COLUMNS = {
    "epoch",
    "step",
    "train_loss",
    "test_loss",
    "test_accuracy",
    "lr",
    "images_per_second",
    "seconds",
}
VAL_COLUMNS = {"val_loss", "val_accuracy"}  # in every row, or in none


def add_row(folder: Path, row: dict[str, Any]) -> None:
    """Append a row and flush it to the disk. Raises UserError if that fails."""
    try:
        with open(folder / METRICS, "a") as f:
            f.write(json.dumps(row, allow_nan=False) + "\n")
            f.flush()
            os.fsync(f.fileno())
    except OSError as error:
        raise UserError(
            f"{folder / METRICS} could not be written ({error.strerror}): free some disk space, "
            f"then resume the run in {folder}"
        ) from None


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the rows, without a last one that was only partly written before a kill.

    Raises UserError for any other damage.
    """
    lines = metrics_lines(folder)
    rows: list[dict[str, Any]] = []
    for i, line in enumerate(lines):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if is_row(row, i + 1) and (not rows or row.keys() == rows[0].keys()):
            rows.append(row)
        elif i + 1 < len(lines) or row is not None:
            raise UserError(
                f"{folder / METRICS} is damaged: its line {i + 1} is not the row of epoch {i + 1}; "
                "restore the file"
            )
    return rows


def is_row(row: Any, epoch: int) -> bool:
    """Return whether `row` can be the row of this epoch."""
    return (
        isinstance(row, dict)
        and set(row) in (COLUMNS, COLUMNS | VAL_COLUMNS)
        and row["epoch"] == epoch
        and all(is_real_number(value) for value in row.values())
        and isinstance(row["step"], int)
    )


def best_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the row of model.npz's epoch: the best by validation, or the last.

    Of equally good epochs it is the first.
    """
    if "val_accuracy" not in rows[-1]:
        return rows[-1]
    return max(rows, key=lambda row: (row["val_accuracy"], -row["val_loss"]))


def drop_rows_after(folder: Path, epochs: int, sha256: str | None) -> None:
    """Keep the first `epochs` rows, and drop those written after the checkpoint.

    sha256 is the checksum that metrics_sha256 returned when the checkpoint was saved;
    None is not compared. Raises UserError if rows are missing or differ from it.
    """
    path = folder / METRICS
    rows = read_metrics(folder)
    if len(rows) < epochs:
        raise UserError(
            f"{path} has {len(rows)} rows, wanted {epochs}: rows are missing; restore the file"
        )
    text = b"".join(metrics_lines(folder)[:epochs])
    if sha256 not in (None, hashlib.sha256(text).hexdigest()):
        raise UserError(
            f"{path} is damaged: its rows are not those that were written; restore the file"
        )
    write_atomically(path, lambda f: f.write(text))


def metrics_sha256(folder: Path) -> str:
    """Return the checksum of all rows so far."""
    return hashlib.sha256(b"".join(metrics_lines(folder))).hexdigest()


def metrics_lines(folder: Path) -> list[bytes]:
    """Return the lines of metrics.jsonl with their ends; none if it does not exist."""
    path = folder / METRICS
    return path.read_bytes().splitlines(keepends=True) if path.exists() else []
