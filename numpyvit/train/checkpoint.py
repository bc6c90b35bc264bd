"""The checkpoint of a run, of which two generations are kept."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..backend.arrays import Array
from ..storage.archives import DamagedError, load_npz, save_npz

CHECKPOINT = "checkpoint.npz"
PREVIOUS = "checkpoint.previous.npz"
DAMAGED = "checkpoint.damaged.npz"
KIND = "numpyvit checkpoint 1"


def save_checkpoint(folder: Path, note: dict[str, Any], arrays: dict[str, Array]) -> None:
    """Write folder/checkpoint.npz; the one before it becomes checkpoint.previous.npz.

    Raises UserError if it cannot be written.
    """
    save_npz(folder / CHECKPOINT, KIND, note, arrays, keep=folder / PREVIOUS)


def load_checkpoint(
    folder: Path, say: Callable[[str], None] = print
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the note and arrays of the newest checkpoint that is not damaged.

    If that is the previous one, `say` is told so, and the damaged one is renamed to
    checkpoint.damaged.npz; otherwise the next save would keep it in place of the good
    one. Raises UserError if there is no usable checkpoint.
    """
    newest = folder / CHECKPOINT
    previous = folder / PREVIOUS
    try:
        if newest.exists() or not previous.exists():
            return load_npz(newest, KIND)
        problem = f"{newest} is missing"
    except DamagedError as error:
        if not previous.exists():
            raise
        problem = str(error)
    loaded = load_npz(previous, KIND)
    if newest.exists():
        os.replace(newest, folder / DAMAGED)
    say(f"{problem}; continuing from {PREVIOUS}")
    return loaded
