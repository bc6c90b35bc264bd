"""metrics.jsonl: one row of figures for each finished epoch."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import UserError, is_real_number
from ..storage.files import read_file, write_atomically
from ..storage.json_text import parse_json

METRICS = "metrics.jsonl"
DAMAGED = "metrics.damaged.jsonl"
MOST_BYTES = 100_000_000  # of the file: a row has about 200
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
        with open(folder / METRICS, "ab") as f:
            f.write(rows_text([row]))
            f.flush()
            os.fsync(f.fileno())
    except OSError as error:
        raise UserError(
            f"{folder / METRICS} could not be written ({error.strerror}): free some space and "
            "resume the run"
        ) from error


def rows_text(rows: list[dict[str, Any]]) -> bytes:
    """Return the content of a metrics.jsonl with these rows."""
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the rows, without a last one that was only partly written before a kill.

    Raises UserError for any other damage.
    """
    lines = metrics_lines(folder)
    rows: list[dict[str, Any]] = []
    for i, line in enumerate(lines):
        row = read_row(line)
        if may_follow(row, rows):
            rows.append(row)
        elif i + 1 < len(lines) or row is not None:
            raise UserError(
                f"{folder / METRICS} is damaged: its line {i + 1} is not the row of an epoch; "
                "resume the run, which writes the file again from its checkpoint"
            )
    return rows


def read_row(line: bytes) -> Any:
    """Return the JSON value of a line, or None if it is not JSON."""
    try:
        return parse_json(line)
    except ValueError:
        return None


def may_follow(row: Any, rows: list[dict[str, Any]]) -> bool:
    """Return whether `row` is a row that can come after `rows`.

    Epochs may be missing between them, but each row is of a later epoch than the last.
    """
    if not is_row(row):
        return False
    return not rows or (row["epoch"] > rows[-1]["epoch"] and row.keys() == rows[0].keys())


def are_rows(rows: Any) -> bool:
    """Return whether `rows` is a list of rows that can follow each other."""
    return isinstance(rows, list) and all(
        may_follow(row, rows[max(0, i - 1) : i]) for i, row in enumerate(rows)
    )


def is_row(row: Any) -> bool:
    """Return whether `row` can be the row of an epoch."""
    return (
        isinstance(row, dict)
        and set(row) in (COLUMNS, COLUMNS | VAL_COLUMNS)
        and all(is_real_number(value) for value in row.values())
        and isinstance(row["epoch"], int)
        and isinstance(row["step"], int)
        and row["epoch"] > 0
    )


def best_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the row of model.npz's epoch: the best by validation, or the last.

    Of equally good epochs it is the first.
    """
    if "val_accuracy" not in rows[-1]:
        return rows[-1]
    return max(rows, key=lambda row: (row["val_accuracy"], -row["val_loss"]))


def restore_metrics(
    folder: Path,
    epochs: int,
    rows: list[dict[str, Any]] | None,
    sha256: str | None,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Make metrics.jsonl hold the rows of the first `epochs` epochs, and return them.

    rows: the rows in the checkpoint. Checkpoints of older versions have none (None);
    the rows are then read from the file, as far as possible, and sha256, unless it is
    None too, is the checksum that they had.

    Rows that were written after the checkpoint are dropped. If the file is damaged,
    `say` is told so, and the file is kept under another name.
    """
    path = folder / METRICS
    is_there = os.path.lexists(path)
    is_readable = not is_there or path.is_file()
    lines = []
    try:
        lines = metrics_lines(folder)
    except (OSError, UserError):  # a log that cannot be read must not stop the training
        is_readable = False
    if rows is not None:
        begin = b"".join(lines[: len(rows)])
        intact = begin == rows_text(rows)
        consequence = "it is written again from the checkpoint"
    else:
        rows = []
        begin = b"".join(lines[:epochs])
        for line in lines:
            row = read_row(line)
            if may_follow(row, rows) and row["epoch"] <= epochs:
                rows.append(row)
        same_bytes = sha256 in (None, hashlib.sha256(begin).hexdigest())
        intact = same_bytes and [row["epoch"] for row in rows] == [*range(1, epochs + 1)]
        consequence = f"{len(rows)} of the rows of {epochs} epochs can be read, and are kept"
    intact = intact and is_readable
    if not intact and is_there:
        kept = free_name(folder / DAMAGED)
        os.replace(path, kept)
        say(f"{path} is damaged: {consequence}; the damaged file is now {kept.name}")
    elif not intact:
        say(f"{path} is missing: {consequence}")
    text = rows_text(rows)
    if not (intact and is_there and b"".join(lines) == text):
        write_atomically(path, lambda f: f.write(text))
    return rows


def free_name(path: Path) -> Path:
    """Return the path, or else the first of NAME-2, NAME-3 ... that does not exist."""
    number = 1
    found = path
    while os.path.lexists(found):
        number += 1
        found = path.with_stem(f"{path.stem}-{number}")
    return found


def metrics_lines(folder: Path) -> list[bytes]:
    """Return the lines of metrics.jsonl with their ends; none if it is not a file."""
    path = folder / METRICS
    return read_file(path, MOST_BYTES).splitlines(keepends=True) if path.is_file() else []
