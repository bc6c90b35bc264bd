"""The checkpoint of a run, of which two generations are kept."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..backend.arrays import Array
from ..errors import UserError, is_real_number, say
from ..storage.archives import DamagedError, load_npz, save_npz
from .metrics import are_rows

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
    folder: Path, say: Callable[[str], None] = say
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
            return load_one(newest)
        problem = f"{newest} is missing"
    except DamagedError as error:
        problem = str(error)
    advice = "restore one of its checkpoints from a copy, or train again in another folder"
    if not previous.exists():
        raise DamagedError(f"{problem}, and there is no {PREVIOUS}: {advice}")
    try:
        loaded = load_one(previous)
    except DamagedError as error:
        raise DamagedError(f"{problem}; {error}: {advice}") from None
    if newest.exists():
        os.replace(newest, folder / DAMAGED)
    say(f"{problem}; continuing from {PREVIOUS}")
    return loaded


def load_one(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return a checkpoint's note and arrays. Raises DamagedError for impossible values."""
    note, arrays = load_npz(path, KIND)
    missing = REQUIRED.keys() - note.keys()
    if missing:
        raise DamagedError(f"{path} is damaged: it has no {min(missing)}")
    for name, is_possible in (REQUIRED | OPTIONAL).items():
        if name in note and not is_possible(note[name]):
            raise DamagedError(f"{path} is damaged: its {name} is {str(note[name])[:40]!r}")
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise DamagedError(f"{path} is damaged: {name} holds what is not a finite number")
    return note, arrays


def is_count(x: object) -> bool:
    """Return whether x is an integer, 0 or above."""
    return isinstance(x, int) and is_real_number(x) and x >= 0


def is_pair_or_none(x: Any) -> bool:
    """Return whether x is None or a list of two real numbers."""
    return x is None or (isinstance(x, list) and len(x) == 2 and all(map(is_real_number, x)))


# What the entries of a note may be. Older versions did not write the optional ones.
REQUIRED: dict[str, Callable[[Any], bool]] = {
    "config": lambda x: isinstance(x, dict),
    "step": is_count,
    "loss_sum": is_real_number,
    "train_seconds": is_real_number,
    "seconds": is_real_number,
    "best": is_pair_or_none,
}
OPTIONAL: dict[str, Callable[[Any], bool]] = {
    "epochs_without_improvement": is_count,
    "stale": is_count,  # the name of epochs_without_improvement up to version 0.2
    "metrics": lambda x: isinstance(x, str),
    "rows": are_rows,
    "classes": lambda x: isinstance(x, list) and all(isinstance(name, str) for name in x),
    "loss_scale": is_pair_or_none,
}


def check_size(folder: Path, weights: int) -> None:
    """Raise UserError if the checkpoints are too small for this many weights of 4 bytes.

    It is called before the weights that config.json describes are allocated.
    """
    sizes = [
        path.stat().st_size for path in (folder / CHECKPOINT, folder / PREVIOUS) if path.exists()
    ]
    if sizes and max(sizes) < 4 * weights:
        raise UserError(
            f"the checkpoint in {folder} does not belong to its config.json, which describes a "
            f"model of {weights:,} weights: restore the one that was there"
        )
