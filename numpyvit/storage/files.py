"""Files that are never half written, and locks between processes."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

from ..errors import UserError


def write_atomically(
    path: Path, write: Callable[[BinaryIO], Any], keep: Path | None = None
) -> None:
    """Let `write` fill a temporary file, flush it to the disk, and move it to `path`.

    keep: where the old file is moved first, if there is one.

    At every moment `path` is either the complete old file or the complete new one. With
    `keep` there is a moment when only `keep` exists. Raises UserError if the file
    cannot be written, for example because the disk is full; the old file is then
    unchanged.
    """
    temporary = path.with_name(f".{path.name}.numpyvit.tmp")  # nobody else uses this name
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
        raise write_error(path, error, "the file that was there before is unchanged") from error


def move(source: Path, target: Path) -> None:
    """Move `source` to `target`, replacing it, and flush the folder to the disk.

    The content of `source` must have been flushed already.
    """
    os.replace(source, target)
    if os.name == "posix":  # Windows cannot open a folder
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        except OSError as error:  # some network file systems cannot flush a folder
            if error.errno != errno.EINVAL:
                raise
        finally:
            os.close(folder)


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
    Windows has no such locks, and there this does nothing. Raises UserError(message) if
    another process holds the lock.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    try:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UserError(message) from None
    try:
        yield
    finally:
        fcntl.flock(f, fcntl.LOCK_UN)
