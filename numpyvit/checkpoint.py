"""Files that are whole or not there: arrays and a JSON note in one .npz, without pickle, replaced in one move."""

import errno
import io
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
BROKEN = (ValueError, KeyError, TypeError, EOFError, SyntaxError, AttributeError, NotImplementedError, RuntimeError,
          OverflowError, zipfile.BadZipFile, zlib.error, struct.error)   # what zipfile and NumPy raise for damaged files


class DamagedError(UserError):
    """A file that is not what was written."""


def write_atomically(path: Path, write: Callable[[BinaryIO], Any], keep: Path | None = None) -> None:
    """Let `write` fill a temporary file beside `path`, bring it to the disk, then move it there.

    At every moment `path` is the old file or the new one, whole; with `keep`, where the old one goes first, there is a
    moment in which only `keep` is there. Raises UserError where the file cannot be written (a full disk, say); what was
    there is then untouched.
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
        full = error.errno in (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", None))
        raise UserError(f"{path} could not be written ({error.strerror or error}): what was there before is untouched; "
                        + ("make room and try again" if full else "choose a folder that can be written to")) from error


def save_npz(path: Path, kind: str, note: dict[str, Any], arrays: dict[str, Array], keep: Path | None = None) -> None:
    """Write arrays and note (anything JSON can hold) to `path`, atomically. The archive is made in memory: one that cannot
    be ended, on a full disk, would complain a second time."""
    text = json.dumps({"kind": kind, "arrays": list(arrays), **note}).encode()
    archive = io.BytesIO()
    np.savez(archive, note=np.frombuffer(text, np.uint8), **arrays)  # type: ignore[arg-type]
    write_atomically(path, lambda f: f.write(archive.getbuffer()), keep)


def load_npz(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """The note and arrays of save_npz. Raises UserError for a file that is missing, damaged, or of another kind."""
    if not path.is_file():
        raise UserError(f"{path} does not exist or is not a file: give the folder of a run, or a file that numpyvit saved")
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            arrays = {name.removesuffix(".npy"): read_array(archive.read(name)) for name in archive.namelist()}
        note = json.loads(arrays.pop("note").tobytes())
        found = note.pop("kind")
        if note.pop("arrays") != list(arrays):
            raise ValueError("an array is missing")
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):                      # seeking to where a damaged header points
            raise UserError(f"{path} could not be read ({error.strerror}): look at its permissions and its disk") from None
        raise DamagedError(f"{path} is damaged, or not a file that numpyvit saved") from None
    except BROKEN as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise DamagedError(f"{path} is damaged, or not a file that numpyvit saved ({reason})") from None
    if found != kind:
        raise UserError(f"{path} is a {found!r}, wanted a {kind!r}")
    return note, arrays


def read_array(data: bytes) -> Array:
    """An .npy file that is whole: archive.read has held it against its checksum. No pickle, and nothing after the array."""
    f = io.BytesIO(data)
    array = np.lib.format.read_array(f, allow_pickle=False)
    if f.read(1):
        raise ValueError("bytes are left over")
    return array


def save_checkpoint(folder: Path, note: dict[str, Any], arrays: dict[str, Array]) -> None:
    """Write folder/checkpoint.npz; the one before it stays as checkpoint.previous.npz."""
    save_npz(folder / CHECKPOINT, KIND, note, arrays, keep=folder / PREVIOUS)


def load_checkpoint(folder: Path, say: Callable[[str], None] = print) -> tuple[dict[str, Any], dict[str, Array]]:
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
