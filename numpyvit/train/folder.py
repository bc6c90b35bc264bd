"""The folder of a run: what is written there, and reading it back when it may have been damaged."""

import hashlib
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Dataset
from ..errors import UserError
from ..storage.archives import CHECKPOINT, PREVIOUS
from ..storage.files import held, write_atomically
from ..vit import is_real
from .recipes import TrainConfig

CONFIG, METRICS, MODEL = "config.json", "metrics.jsonl", "model.npz"
BUSY = "{} is being trained by another process: wait for it, or stop it"
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


def versions() -> dict[str, str]:
    """Of what computes the result."""
    from ..version import __version__

    return {"numpyvit": __version__, "numpy": np.__version__, "python": platform.python_version()}


def make_folder(folder: Path, config: TrainConfig, data_md5: str) -> None:
    """Write config.json and an empty metrics.jsonl. Raises UserError where the folder holds a run, or is none."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: --out wants a folder")

    def refuse_a_run(*names: str) -> None:
        for name in names:
            if (folder / name).exists() and (name != CONFIG or (folder / name).stat().st_size):
                raise UserError(
                    f"{folder} holds a run already ({name}): go on with it by --resume, or choose another --out"
                )

    text = (
        json.dumps({**config.to_dict(), "data_md5": data_md5, "versions": versions()}, indent=1)
        + "\n"
    )
    refuse_a_run(CONFIG, METRICS, CHECKPOINT, PREVIOUS, MODEL)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        open(folder / CONFIG, "a") as f,
        held(f, BUSY.format(folder)),
    ):  # of two at the same time, one gets the folder
        refuse_a_run(CONFIG, METRICS, CHECKPOINT, PREVIOUS, MODEL)
        f.write(text)  # in place: an empty one is no run yet
        f.flush()
        os.fsync(f.fileno())
        write_atomically(folder / METRICS, lambda f: f.write(b""))


def read_config(folder: Path) -> tuple[TrainConfig, str, dict[str, str]]:
    """(config, checksum of the data, versions) of config.json. Raises UserError where the folder holds no run."""
    path = folder / CONFIG
    if not path.exists() or not path.stat().st_size:
        raise UserError(
            f"{folder} holds no run: there is no {CONFIG} in it; give the folder that `train` printed"
        )
    try:
        fields = json.loads(path.read_bytes())
        md5, found = fields.pop("data_md5"), fields.pop("versions")
        if not isinstance(md5, str) or not isinstance(found, dict):
            raise UserError("data_md5 or versions is not what it was")
        return TrainConfig.from_dict(fields), md5, found
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        lacks = "it lacks " if isinstance(error, KeyError) else ""
        raise UserError(f"{path} is damaged: {lacks}{error}") from None


def add_row(folder: Path, row: dict[str, Any]) -> None:
    """Append a row to metrics.jsonl, and bring it to the disk."""
    try:
        with open(folder / METRICS, "a") as f:
            f.write(json.dumps(row, allow_nan=False) + "\n")
            f.flush()
            os.fsync(f.fileno())
    except OSError as error:
        raise UserError(
            f"{folder / METRICS} could not be written ({error.strerror}): make room, then go on with "
            f"--resume {folder}"
        ) from None


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, but for a last one that a kill left unfinished. Raises UserError for other damage."""
    path, lines, rows = folder / METRICS, metrics_lines(folder), list[dict[str, Any]]()
    for i, line in enumerate(lines):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if is_row(row, i + 1) and (not rows or row.keys() == rows[0].keys()):
            rows.append(row)
        elif i + 1 < len(lines) or row is not None:
            raise UserError(
                f"{path} is damaged: its line {i + 1} is not the row of epoch {i + 1}; mend or restore it"
            )
    return rows


def is_row(row: Any, epoch: int) -> bool:
    """Whether it is one that was written after this epoch."""
    return (
        isinstance(row, dict)
        and set(row) in (COLUMNS, COLUMNS | VAL_COLUMNS)
        and row["epoch"] == epoch
        and all(is_real(value) for value in row.values())
        and isinstance(row["step"], int)
    )


def best_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The row of the epoch that model.npz is of: the best by validation, or the last."""
    if "val_accuracy" not in rows[-1]:
        return rows[-1]
    return max(rows, key=lambda row: (row["val_accuracy"], -row["val_loss"]))  # the first of equals


def take_back_rows(folder: Path, epochs: int, sha256: str | None) -> None:
    """Keep the first rows of metrics.jsonl, and drop what came after the checkpoint. Raises UserError where some are
    missing, or are not those of this checksum."""
    rows = read_metrics(folder)
    if len(rows) < epochs:
        raise UserError(
            f"{folder / METRICS} has {len(rows)} rows, wanted {epochs}: rows are missing; restore the file"
        )
    text = b"".join(metrics_lines(folder)[:epochs])
    if sha256 not in (None, hashlib.sha256(text).hexdigest()):
        raise UserError(
            f"{folder / METRICS} is damaged: its rows are not those that were written; restore the file"
        )
    write_atomically(folder / METRICS, lambda f: f.write(text))


def metrics_sha256(folder: Path) -> str:
    """Of the rows so far."""
    return hashlib.sha256(b"".join(metrics_lines(folder))).hexdigest()


def metrics_lines(folder: Path) -> list[bytes]:
    """None where the file is not there yet."""
    path = folder / METRICS
    return path.read_bytes().splitlines(keepends=True) if path.exists() else []


def data_md5(*parts: Dataset) -> str:
    """Tells one version of a data set from another."""
    digest = hashlib.md5(usedforsecurity=False)
    for part in parts:
        digest.update(part.images.tobytes())
        digest.update(part.labels.tobytes())
    return digest.hexdigest()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second process from training the same run."""
    with open(folder / CONFIG) as f, held(f, BUSY.format(folder)):
        yield
