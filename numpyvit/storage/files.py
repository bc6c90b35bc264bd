"""Files that are never half written, files read without trust, and locks."""

import contextlib
import errno
import glob
import io
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from ..errors import UserError

LEFT_OVER = 600.0  # seconds without a change after which a temporary file belongs to nobody


def open_file(path: Path) -> io.BufferedReader:
    """Open a regular file for reading.

    Raises UserError if it cannot be opened, and for anything else that can have a name
    in a folder. Opening or reading a named pipe, for example, could take forever.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise read_error(path, error) from None
    # The open file is examined, since another could take the place of one examined before.
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(
            f"{path} is not a regular file, but for example a folder or a named pipe: "
            "remove it, or give another path"
        )
    return open(descriptor, "rb")


def read_file(path: Path, most: int) -> bytes:
    """Return the content of a regular file of at most this many bytes.

    Raises UserError if it cannot be read, or is longer.
    """
    with open_file(path) as f:
        size = os.fstat(f.fileno()).st_size
        if size > most:
            raise UserError(f"{path} is damaged: it has {size:,} bytes, wanted {most:,} at most")
        try:
            return f.read(size)
        except OSError as error:
            raise read_error(path, error) from None


def read_error(path: Path, error: OSError) -> UserError:
    """Return the UserError to raise if `error` prevented reading `path`."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path} does not exist: check the path")
    reason = error.strerror or error
    return UserError(f"{path} could not be read ({reason}): check its permissions and the disk")


def write_atomically(
    path: Path, write: Callable[[BinaryIO], Any], keep: Path | None = None
) -> None:
    """Let `write` fill a temporary file, flush it to the disk, and move it to `path`.

    keep: where the old file is moved first, if there is one.

    At every moment `path` is either the complete old file or the complete new one. With
    `keep` there is a moment when only `keep` exists. Raises UserError if the file
    cannot be written, for example because the disk is full; the old file is then
    unchanged, or the message says what has become of it.
    """
    consequence = "the file that was there before is unchanged"
    try:
        remove_left_over(path)
        # A file that exists already is never opened: it could be a link, made by whoever
        # made the folder, to a file of the user. "x" refuses links, too.
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.numpyvit.tmp")
        f = open(temporary, "xb")  # noqa: SIM115    it is closed before it is moved or removed
        try:
            with f:
                write(f)
                f.flush()
                os.fsync(f.fileno())
            if keep and path.exists():
                os.replace(path, keep)
                consequence = f"the file that was there before is now {keep}"
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        consequence = "the new file is complete, but may be lost if the power fails now"
        flush_folder(path.parent)
    except OSError as error:
        raise write_error(path, error, consequence) from error


def remove_left_over(path: Path, seconds: float = LEFT_OVER) -> None:
    """Remove temporary files of `path` that a killed process left behind.

    One that has been changed in the last `seconds` is kept, as another process may be
    writing it; a caller that holds a lock against others can give 0.
    """
    for name in glob.glob(f".{glob.escape(path.name)}.*numpyvit.tmp", root_dir=path.parent):
        temporary = path.with_name(name)
        with contextlib.suppress(OSError):  # another process was quicker, or it is a folder
            if seconds == 0 or time.time() - temporary.lstat().st_mtime > seconds:
                temporary.unlink()


def move(source: Path, target: Path) -> None:
    """Move `source` to `target`, replacing it, and flush the folder to the disk.

    The content of `source` must have been flushed already.
    """
    os.replace(source, target)
    flush_folder(target.parent)


def flush_folder(folder: Path) -> None:
    """Flush a folder to the disk, so that the names of its files survive a power cut."""
    if os.name != "posix":  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network file systems cannot flush a folder
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def write_error(path: Path, error: OSError, consequence: str) -> UserError:
    """Return the UserError to raise if `error` prevented writing `path`."""
    disk_is_full = error.errno in (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", None))
    advice = "free some space and try again" if disk_is_full else "choose a writable folder"
    return UserError(
        f"{path} could not be written ({error.strerror or error}): {consequence}; {advice}"
    )


@contextmanager
def exclusive_lock(f: IO[Any], message: str) -> Iterator[None]:
    """Lock the open file against other processes that call this, within the context.

    The operating system releases the lock when the process ends, however it ends.
    Windows and some network file systems have no such locks, and there this does
    nothing. Raises UserError(message) if another process holds the lock.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    try:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise UserError(message) from None
        # otherwise the file system has no locks
    try:
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(f, fcntl.LOCK_UN)
