"""Archives of arrays (.npz files), written atomically and read without trust.

A file from elsewhere may be damaged or malicious. Nothing is unpickled here, and a size
that a header declares is compared with the bytes that are there before it is used.
"""

import errno
import io
import json
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..backend.arrays import Array
from ..errors import UserError
from .files import write_atomically

# The exceptions that zipfile, NumPy and json raise when they read damaged data.
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
)


class DamagedError(UserError):
    """The file does not contain the bytes that were written, or is of another format."""


def save_npz(
    path: Path, kind: str, note: dict[str, Any], arrays: dict[str, Array], keep: Path | None = None
) -> None:
    """Write `arrays` and `note` to `path`, atomically.

    kind: identifies the content, and load_npz checks it.
    note: anything that JSON can hold.
    keep: where the old file is moved (see write_atomically).

    Raises UserError if the file cannot be written.
    """
    text = json.dumps({"kind": kind, "arrays": list(arrays), **note}).encode()
    # The archive is made in memory. On a full disk, zipfile would fail a second time
    # when it closes an archive that it could not complete.
    archive = io.BytesIO()
    np.savez(archive, note=np.frombuffer(text, np.uint8), **arrays)  # type: ignore[arg-type]
    write_atomically(path, lambda f: f.write(archive.getbuffer()), keep)


def load_npz(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the note and the arrays that save_npz wrote.

    Raises UserError if the file is missing or of another kind, and DamagedError, which
    is a UserError, if it is damaged.
    """
    if not path.is_file():
        raise UserError(
            f"{path} does not exist or is not a file: give the folder of a run, "
            "or a file that numpyvit saved"
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


def read_arrays(path: Path) -> dict[str, Array]:
    """Return the arrays of an .npz file by name, after checking their checksums.

    Nothing is unpickled, and no array is allocated before the bytes that its header
    promises have been read. Raises DamagedError if the file is not such an archive or
    is damaged, and UserError if the system cannot read it.
    """
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            members = {info.filename.removesuffix(".npy"): info for info in infos}
            if len(members) < len(infos):
                raise ValueError("two arrays have the same name")
            return {name: read_array(read_member(archive, info)) for name, info in members.items()}
    except OSError as error:
        # A damaged header can make zipfile seek to an invalid position (EINVAL or
        # None).
        if error.errno not in (None, errno.EINVAL):
            raise UserError(
                f"{path} could not be read ({error.strerror}): check its permissions and the disk"
            ) from None
        raise DamagedError(f"{path} is damaged, or not an .npz file of arrays") from None
    except BROKEN as error:
        raise DamagedError(
            f"{path} is damaged, or not an .npz file of arrays ({reason(error)})"
        ) from None


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Return the bytes of one member, but never more than its entry declares.

    The limit protects against members that unpack to far more than they declare.
    zipfile raises BadZipFile if the checksum is wrong.
    """
    with archive.open(info) as f:
        return f.read(info.file_size)


def read_array(data: bytes) -> Array:
    """Return the array that the bytes of an .npy file hold.

    Raises ValueError if it holds Python objects, or more or fewer bytes than its header
    says.
    """
    f = io.BytesIO(data)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(f)
    shape, is_fortran, dtype = read_header[version](f)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, and unpickling can run code")
    start = f.tell()
    length = len(data) - start
    if math.prod(shape) * dtype.itemsize != length:
        raise ValueError(
            f"its header declares an array of shape {shape}, but {length:,} bytes of data are there"
        )
    return np.ndarray(shape, dtype, data, start, order="F" if is_fortran else "C").copy()


def reason(error: object) -> str:
    """Return the start of an exception's message, on one line, or its type."""
    return " ".join(str(error).split())[:120] or type(error).__name__
