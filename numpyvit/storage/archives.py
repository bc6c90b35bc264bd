"""Arrays and a JSON note in one .npz, and the two generations of a run's checkpoint."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..backend.arrays import Array
from ..errors import UserError
from .files import BROKEN, DamagedError, read_arrays, reason, write_atomically

CHECKPOINT, PREVIOUS = "checkpoint.npz", "checkpoint.previous.npz"
KIND = "numpyvit checkpoint 1"


def save_npz(
    path: Path, kind: str, note: dict[str, Any], arrays: dict[str, Array], keep: Path | None = None
) -> None:
    """Write arrays and note (anything JSON can hold) to `path`, atomically. The archive is made in memory: one that cannot
    be ended, on a full disk, would complain a second time."""
    text = json.dumps({"kind": kind, "arrays": list(arrays), **note}).encode()
    archive = io.BytesIO()
    np.savez(archive, note=np.frombuffer(text, np.uint8), **arrays)  # type: ignore[arg-type]
    write_atomically(path, lambda f: f.write(archive.getbuffer()), keep)


def load_npz(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """The note and arrays of save_npz. Raises UserError for a file that is missing, damaged, or of another kind."""
    if not path.is_file():
        raise UserError(
            f"{path} does not exist or is not a file: give the folder of a run, or a file that numpyvit saved"
        )
    arrays = read_arrays(path)
    try:
        note = json.loads(arrays.pop("note").tobytes())
        found = note.pop("kind")
        if note.pop("arrays") != list(arrays):
            raise ValueError("an array is missing")
    except BROKEN as error:
        raise DamagedError(
            f"{path} is damaged, or not a file that numpyvit saved ({reason(error)})"
        ) from None
    if found != kind:
        raise UserError(f"{path} is a {found!r}, wanted a {kind!r}")
    return note, arrays


def save_checkpoint(folder: Path, note: dict[str, Any], arrays: dict[str, Array]) -> None:
    """Write folder/checkpoint.npz; the one before it stays as checkpoint.previous.npz."""
    save_npz(folder / CHECKPOINT, KIND, note, arrays, keep=folder / PREVIOUS)


def load_checkpoint(
    folder: Path, say: Callable[[str], None] = print
) -> tuple[dict[str, Any], dict[str, Array]]:
    """The newest whole checkpoint of the run. Where that is the one before the last, it says so, and puts the damaged one
    aside, so that the next save does not keep that in place of a good one."""
    newest, previous = folder / CHECKPOINT, folder / PREVIOUS
    try:
        if newest.exists() or not previous.exists():
            return load_npz(newest, KIND)
        error = f"{newest} is missing"
    except DamagedError as damage:
        if not previous.exists():
            raise
        error = str(damage)
    found = load_npz(previous, KIND)
    if newest.exists():
        os.replace(newest, folder / "checkpoint.damaged.npz")
    say(f"{error}; going on from {PREVIOUS}")
    return found
