"""Archives of arrays (.npz files), written atomically and read without trust.

A file from elsewhere may be damaged or malicious. Nothing is unpickled here, and a size
that a header declares is compared with the bytes that are there before it is used.
"""

import errno
import io
import json
import math
import os
import re
import zipfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..backend.arrays import Array
from ..backend.device import machine_memory
from ..errors import UserError
from .files import open_file, write_atomically
from .json_text import parse_json

Members = dict[str, zipfile.ZipInfo]  # the arrays of an archive, by name

# The header of an array as NumPy and other libraries write it. It is a Python literal,
# but is not given to Python's parser, which fails in many ways on a text made for that.
HEADER = re.compile(
    r"\s*\{\s*'descr'\s*:\s*'([^']{1,40})'\s*,"
    r"\s*'fortran_order'\s*:\s*(True|False)\s*,"
    r"\s*'shape'\s*:\s*\(([0-9, ]{0,400})\)\s*(?:,\s*)?\}\s*"
)
DTYPE = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f[248]|U[1-9][0-9]{0,5})")
MOST_HEADER = 10_000  # bytes of a header, as in NumPy
MOST_NOTE = 4_000_000  # bytes of a note
MOST_DIRECTORY = 1_000_000  # bytes of an archive's directory: about 15,000 arrays
BLOCK = 1 << 20  # bytes to unpack at once
LARGEST_CHARACTER = 0x10FFFF  # of Unicode


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

    The memory that this needs is about the size of the file. Raises UserError if the
    file is missing or of another kind, and DamagedError, which is a UserError, if it is
    damaged.
    """
    if not path.is_file():
        kind_of_error = DamagedError if path.exists() else UserError
        raise kind_of_error(
            f"{path} does not exist or is not a file: give the folder of a run, "
            "or a file that numpyvit saved"
        )
    with open_archive(path, "a file that numpyvit saved") as (archive, members):
        check_that_nothing_is_packed(path, members.values())
        if "note" not in members or members["note"].file_size > MOST_NOTE:
            raise ValueError("it has no note, or a note that is too long")
        note = parse_json(read_array(archive, members["note"]).tobytes())
        found = note.pop("kind")
        names = note.pop("arrays")
        if ["note", *names] != list(members):
            raise ValueError("an array is missing, or there is one too many")
        if found != kind:
            raise UserError(f"{path} is a {found!r}, wanted a {kind!r}")
        return note, {name: read_array(archive, members[name]) for name in names}


def read_arrays(path: Path, wanted: Collection[str]) -> dict[str, Array]:
    """Return those of the wanted arrays that an .npz file has, by name.

    The others are not unpacked. Raises DamagedError if the file is not such an archive
    or is damaged, and UserError if the system cannot read it, or if the arrays do not
    fit into this machine's memory.
    """
    with open_archive(path, "an .npz file of arrays") as (archive, members):
        found = {name: info for name, info in members.items() if name in wanted}
        check_memory(path, found.values())
        return {name: read_array(archive, info) for name, info in found.items()}


def array_names(path: Path) -> list[str]:
    """Return the names of the arrays in an .npz file. Raises as read_arrays does."""
    with open_archive(path, "an .npz file of arrays") as (_, members):
        return list(members)


@contextmanager
def open_archive(path: Path, wanted: str) -> Iterator[tuple[zipfile.ZipFile, Members]]:
    """Open an .npz file, and turn all that is raised within the context into one line.

    wanted: what the file should have been, for the message.

    Raises DamagedError if the file is damaged, and UserError if the system cannot read
    it or has too little memory.
    """
    damaged = f"{path} is damaged, or not {wanted}"
    try:
        with open_file(path) as file:
            check_directory(file)
            archive = zipfile.ZipFile(file)
            infos = archive.infolist()
            members = {info.filename.removesuffix(".npy"): info for info in infos}
            if len(members) < len(infos):
                raise ValueError("two arrays have the same name")
            yield archive, members
    except UserError:
        raise
    except MemoryError:
        raise UserError(f"{path} does not fit into the memory that is free") from None
    except OSError as error:
        # A damaged header can make zipfile seek to an invalid position (EINVAL or
        # None).
        if error.errno not in (None, errno.EINVAL):
            raise UserError(
                f"{path} could not be read ({error.strerror}): check its permissions and the disk"
            ) from None
        raise DamagedError(damaged) from None
    except Exception as error:  # zipfile and zlib raise many kinds for a damaged file
        raise DamagedError(f"{damaged} ({reason(error)})") from None


def check_directory(file: IO[bytes]) -> None:
    """Raise ValueError if an archive's directory is longer than that of any .npz file.

    zipfile would read the whole directory, and takes seconds for 100,000 entries. Its
    length is at the end of the file: in the last record, or, in files of more than 2 GB,
    in one that is 98 bytes from the end. A comment could stand after these records;
    NumPy writes none.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 98))
    tail = file.read(98)
    if tail[-22:-18] != b"PK\5\6" or tail[-2:] != b"\0\0":
        raise ValueError("its end is not that of an .npz file")
    length = tail[-10:-6]
    if tail[-42:-38] == b"PK\6\7":
        length = tail[40:48]
    if int.from_bytes(length, "little") > MOST_DIRECTORY:
        raise ValueError("it has too many members")


def check_that_nothing_is_packed(path: Path, infos: Iterable[zipfile.ZipInfo]) -> None:
    """Raise ValueError unless the members are stored as they are, one after the other.

    Then none of them can unpack to more than the bytes of the file.
    """
    infos = list(infos)
    if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
        raise ValueError("it is compressed, which files of numpyvit are not")
    if sum(info.file_size for info in infos) > path.stat().st_size:
        raise ValueError("its arrays are larger than the file")
    check_memory(path, infos)


def check_memory(path: Path, infos: Iterable[zipfile.ZipInfo]) -> None:
    """Raise UserError if the members unpack to more than half of the machine's memory."""
    size = sum(info.file_size for info in infos)
    memory = machine_memory()
    if size > memory / 2:
        raise UserError(
            f"{path} unpacks to {size:,} bytes, and this machine has {memory:,} bytes of memory: "
            "give a file with less in it"
        )


def read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    """Return the array of one member, in the machine's byte order.

    The header is read first, and the array only if it has the length that the archive
    declares for it. zipfile raises BadZipFile if the checksum is wrong, and never
    unpacks more than was declared. Raises ValueError for an array of anything but
    numbers, booleans and text.
    """
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("it is compressed in another way than NumPy does")
    with archive.open(info) as f:
        dtype, is_fortran, shape = read_header(f)
        declared = info.file_size - f.tell()
        if math.prod(shape) * dtype.itemsize != declared:
            raise ValueError(
                f"its header declares an array of shape {shape}, but {declared:,} bytes of data "
                "are there"
            )
        data = bytearray()
        while block := f.read(BLOCK):
            data += block
    if len(data) != declared:
        raise ValueError("its data end too early")
    array: Array = np.ndarray(shape, dtype, data, order="F" if is_fortran else "C")
    if dtype.kind == "U" and array.size:
        codes = np.frombuffer(data, np.dtype("u4").newbyteorder(dtype.byteorder))
        if codes.max() > LARGEST_CHARACTER:
            raise ValueError("it holds characters that do not exist")
    return array.astype(dtype.newbyteorder("="), copy=False)


def read_header(f: IO[bytes]) -> tuple[np.dtype, bool, tuple[int, ...]]:
    """Read the header of an .npy file  ->  dtype, whether Fortran-ordered, shape.

    numpy.lib.format documents it. Raises ValueError if it is not one that we can use.
    """
    start = f.read(8)
    length_bytes = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4}.get(start)
    if length_bytes is None:
        raise ValueError("it is not an array in NumPy's format")
    length = int.from_bytes(f.read(length_bytes), "little")
    if length > MOST_HEADER:
        raise ValueError(f"its header has {length:,} bytes")
    header = HEADER.fullmatch(f.read(length).decode("latin1"))
    if header is None:
        raise ValueError("its header is not that of a plain array")
    name, order, numbers = header.groups()
    if name.endswith("O"):
        raise ValueError("it holds Python objects, and unpickling can run code")
    if not DTYPE.fullmatch(name):
        raise ValueError(f"its dtype is {name!r}, wanted numbers, booleans or text")
    shape = tuple(int(number) for number in numbers.split(",") if number.strip())
    return np.dtype(name), order == "True", shape


def reason(error: object) -> str:
    """Return the start of an exception's message, on one line, or its type."""
    return " ".join(str(error).split())[:120] or type(error).__name__
