"""Files that are whole or not there, folders that one process holds at a time, and reading arrays without trust."""

import errno
import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from ..backend.arrays import Array
from ..errors import UserError

BROKEN = (
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    SyntaxError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)  # what zipfile and NumPy raise for damaged files


class DamagedError(UserError):
    """A file that is not what was written."""


def write_atomically(
    path: Path, write: Callable[[BinaryIO], Any], keep: Path | None = None
) -> None:
    """Let `write` fill a temporary file beside `path`, bring it to the disk, then move it there.

    At every moment `path` is the old file or the new one, whole; with `keep`, where the old one goes first, there is a
    moment in which only `keep` is there. Raises UserError where the file cannot be written (a full disk, say); what was
    there is then untouched.
    """
    temporary = path.with_name(f".{path.name}.numpyvit.tmp")  # a name that nobody else's file has
    try:
        try:
            with open(temporary, "wb") as f:
                write(f)
                f.flush()
                os.fsync(f.fileno())
            if keep and path.exists():
                os.replace(path, keep)
            move(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise not_written(path, error, "what was there before is untouched") from error


def move(source: Path, target: Path) -> None:
    """Put `source`, which is on the disk already, in the place of `target`, and bring the folder's new entry to the disk."""
    os.replace(source, target)
    if os.name == "posix":  # Windows opens no folders
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        except OSError as error:  # some network file systems cannot
            if error.errno != errno.EINVAL:
                raise
        finally:
            os.close(folder)


def not_written(path: Path, error: OSError, comfort: str) -> UserError:
    """The line for a file that could not be written, to be raised."""
    full = error.errno in (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", None))
    return UserError(
        f"{path} could not be written ({error.strerror or error}): {comfort}; "
        + ("make room and try again" if full else "choose a folder that can be written to")
    )


@contextmanager
def held(f: IO[Any], complaint: str) -> Iterator[None]:
    """Keep other processes out as long as the file is open here, where the system has such locks; raise
    UserError(complaint) where another one was first. Dying gives it back."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    try:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UserError(complaint) from None
    try:
        yield
    finally:
        fcntl.flock(f, fcntl.LOCK_UN)


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an .npz, held against their checksums. Nothing is unpickled, and no header is believed before the bytes
    that it speaks of are there. Raises DamagedError for what is no such file, UserError for what cannot be read."""
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if len(members) < len(archive.infolist()):
                raise ValueError("two arrays have one name")
            return {name: read_array(read_member(archive, info)) for name, info in members.items()}
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # seeking to where a damaged header points
            raise UserError(
                f"{path} could not be read ({error.strerror}): look at its permissions and its disk"
            ) from None
        raise DamagedError(f"{path} is damaged, or not an .npz of arrays") from None
    except BROKEN as error:
        raise DamagedError(
            f"{path} is damaged, or not an .npz of arrays ({reason(error)})"
        ) from None


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """All of it, and no more than it is said to hold, whatever it would unpack to. zipfile raises BadZipFile where that is
    not what its checksum wants."""
    with archive.open(info) as f:
        return f.read(info.file_size)


def reason(error: object) -> str:
    """The first words of an exception, as a part of a line."""
    return " ".join(str(error).split())[:120] or type(error).__name__


def read_array(data: bytes) -> Array:
    """The array of a whole .npy file."""
    f = io.BytesIO(data)
    version = np.lib.format.read_magic(f)
    header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, fortran, dtype = header(f)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, and unpickling can run code")
    if math.prod(shape) * dtype.itemsize != len(data) - f.tell():
        raise ValueError(
            f"an array of shape {shape} is promised, and {len(data) - f.tell():,} bytes are there"
        )
    return np.ndarray(shape, dtype, data, f.tell(), order="F" if fortran else "C").copy()
