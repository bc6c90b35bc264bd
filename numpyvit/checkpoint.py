"""Files that are whole or not there: arrays and a JSON note in one .npz, without pickle, replaced in one move."""

import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .backend import Array
from .errors import UserError

CHECKPOINT, PREVIOUS = "checkpoint.npz", "checkpoint.previous.npz"
KIND = "numpyvit checkpoint 1"
BROKEN = (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error, struct.error, MemoryError,
          NotImplementedError, RuntimeError, AttributeError, OSError)     # what zipfile and NumPy raise for damaged files


def write_atomically(path: Path, write: Callable[[BinaryIO], Any], keep: Path | None = None) -> None:
    """Let `write` fill a temporary file beside `path`, bring it to the disk, then move it there.

    At every moment `path` is the old file or the new one, whole. keep: where the old one goes. Raises UserError where
    the file cannot be written (a full disk, say); what was there is then untouched.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        try:
            with open(temporary, "wb") as f:
                write(f)
                f.flush()
                os.fsync(f.fileno())
            if keep and path.exists():
                os.replace(path, keep)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(f"{path} could not be written ({error.strerror or error}): what was there before is untouched; "
                        "make room, then go on with --resume") from error


def save_npz(path: Path, kind: str, note: dict[str, Any], arrays: dict[str, Array], keep: Path | None = None) -> None:
    """Write arrays and note (anything JSON can hold) to `path`, atomically."""
    text = json.dumps({"kind": kind, **note}).encode()
    write_atomically(path, lambda f: np.savez(f, note=np.frombuffer(text, np.uint8), **arrays), keep)   # type: ignore


def load_npz(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """The note and arrays of save_npz. Raises UserError for a file that is missing, damaged, or of another kind."""
    if not path.is_file():
        raise UserError(f"{path} does not exist or is not a file: give the folder of a run, or a file that numpyvit saved")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as f:
            arrays = {name: f[name] for name in f.files}
        note = json.loads(arrays.pop("note").tobytes())
        found = note.pop("kind")
    except BROKEN as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(f"{path} is damaged, or not a file that numpyvit saved ({reason})") from None
    if found != kind:
        raise UserError(f"{path} is a {found!r}, wanted a {kind!r}")
    return note, arrays


def save_checkpoint(folder: Path, note: dict[str, Any], arrays: dict[str, Array]) -> None:
    """Write folder/checkpoint.npz; the one before it stays as checkpoint.previous.npz."""
    save_npz(folder / CHECKPOINT, KIND, note, arrays, keep=folder / PREVIOUS)


def load_checkpoint(folder: Path, say: Callable[[str], None] = print) -> tuple[dict[str, Any], dict[str, Array]]:
    """The newest whole checkpoint of the run; says so where it had to take the one before."""
    try:
        return load_npz(folder / CHECKPOINT, KIND)
    except UserError as error:
        if not (folder / PREVIOUS).exists():
            raise
        found = load_npz(folder / PREVIOUS, KIND)
        say(f"{error}; going on from {PREVIOUS}")
        return found
