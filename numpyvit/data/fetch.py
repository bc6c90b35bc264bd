"""Downloading one file: with mirrors, resumption, and a check of its SHA-256."""

import errno
import hashlib
import http.client
import os
import queue
import socket
import stat
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import UserError
from ..storage.archives import reason
from ..storage.files import exclusive_lock, move, write_error

TIMEOUT = 20.0  # seconds to wait for a host that sends nothing, or too little
MIN_RATE = 1000.0  # bytes per second; a host that sends less is given up
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds to wait before trying all hosts again
MAX_WAIT = 60.0  # seconds to wait at most if a host asks for it
BLOCK = 1 << 17  # bytes to read at once
KEPT = "the part that was downloaded is kept"


class RefusedError(Exception):
    """This host does not have the file: do not ask it again."""


class NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Follows redirects as usual, but never from https to http, which anybody can read."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        """Return the request to make next. Raises RefusedError instead of leaving https."""
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise RefusedError("it redirects from https to an address without encryption")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class TemporaryError(Exception):
    """A later attempt may succeed. `wait`: the seconds that the host asked to wait."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


def fetch(urls: Sequence[str], path: Path, size: int, sha256: str, bar: bool = True) -> None:
    """Download the file of `size` bytes and this SHA-256 to `path`.

    urls: the same file on several hosts, tried in this order.
    bar: whether to show progress.

    An incomplete download is kept as path.part, and the next attempt or call resumes
    it. Only the complete file with the right checksum is moved to `path`. Raises
    UserError if no host has the file, if another process is downloading it, or if it
    cannot be written.
    """
    from tqdm import tqdm

    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        busy = f"{path} is being downloaded by another process: wait for it"
        with open(part, "ab+", opener=open_part) as f, exclusive_lock(f, busy):
            if path.is_file():  # another process has just completed it
                part.unlink(missing_ok=True)
                return
            try:
                with tqdm(
                    total=size,
                    unit="B",
                    unit_scale=True,
                    desc=path.name,
                    disable=None if bar else True,
                ) as progress:
                    fetch_into(f, urls, size, sha256, progress)
                f.flush()
                os.fsync(f.fileno())
                if os.name == "posix":
                    move(part, path)
            finally:
                if os.name == "posix" and f.seek(0, os.SEEK_END) == 0:
                    part.unlink()
        if os.name != "posix":  # Windows cannot move an open file
            move(part, path)
    except OSError as error:
        raise write_error(path, error, KEPT) from None


def open_part(path: str, flags: int) -> int:
    """Open an incomplete download, or begin one: the `opener` of `open`.

    Raises UserError if something else has its name. If others can write to the folder,
    it could be a link to a file of the user.
    """
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    is_link = os.path.islink(path)
    descriptor = -1 if is_link else os.open(path, flags, 0o666)
    found = os.lstat(path) if is_link else os.fstat(descriptor)
    if is_link or not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        if descriptor >= 0:
            os.close(descriptor)
        raise UserError(
            f"{path} is not a download that was begun, but a link, or not a regular file: remove it"
        )
    return descriptor


def fetch_into(f: Any, urls: Sequence[str], size: int, sha256: str, progress: Any) -> None:
    """Download into the open file f.

    The hosts are tried in turn, and again after a wait, as long as they make progress.
    """
    urls = list(urls)
    waits = list(WAITS)
    problems: dict[str, str] = {}  # the last one of each host
    while True:
        requested_wait = 0.0
        before = f.seek(0, os.SEEK_END)
        for url in list(urls):
            host = urlsplit(url).netloc
            try:
                fetch_from(url, f, size, sha256, progress)
                return
            except RefusedError as error:
                urls.remove(url)
                problems[host] = str(error)
            except TemporaryError as error:
                problems[host] = str(error)
                requested_wait = max(requested_wait, error.wait)
        if f.seek(0, os.SEEK_END) > before + size // 100:
            waits = list(WAITS)
        if not urls or not waits:
            why = "; ".join(f"{host}: {problem}" for host, problem in problems.items())
            raise UserError(f"{Path(f.name).stem} could not be downloaded ({why})")
        time.sleep(max(waits.pop(0), min(requested_wait, MAX_WAIT)))


def fetch_from(url: str, f: Any, size: int, sha256: str, progress: Any) -> None:
    """Complete f from one host, and check it.

    If the checksum is wrong, the part that was there before may be the cause: f is
    emptied and downloaded once more. Raises RefusedError if the host sent the whole of
    a wrong file, and what `receive` raises.
    """
    while True:
        start = receive(url, f, size, progress)
        if digest(f) == sha256:
            return
        f.truncate(0)
        if start == 0:
            raise RefusedError(f"it sends a file whose SHA-256 is not {sha256[:12]}...")


def receive(url: str, f: Any, size: int, progress: Any) -> int:
    """Append the missing bytes to f, and return how many bytes were there before.

    Raises RefusedError or TemporaryError if the host does not send all of them.
    """
    start = f.seek(0, os.SEEK_END)
    if start > size:
        start = f.truncate(0)
    progress.n = start
    if start == size:
        return start
    headers = {"User-Agent": "numpyvit", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        request = urllib.request.Request(url, headers=headers)
        opener = urllib.request.build_opener(NoDowngrade)
        with call_within(3 * TIMEOUT, lambda: opener.open(request, timeout=TIMEOUT)) as response:
            offset = first_byte(response, start, size)
            copy(response, f, size, progress, skip=start - offset)
    except urllib.error.HTTPError as error:
        message = f"it answers {error.code} {reason(error.reason)}"
        error.close()
        if error.code == 416:  # range not satisfiable: start again
            f.truncate(0)
        if error.code < 500 and error.code not in (408, 416, 425, 429):
            raise RefusedError(message) from None
        wait = error.headers.get("Retry-After", "")
        raise TemporaryError(message, float(wait) if wait.isdecimal() else 0.0) from None
    except UserError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: bad headers
        cause = getattr(error, "reason", error)
        message = reason(getattr(cause, "strerror", None) or cause)
        is_unreachable = isinstance(cause, socket.gaierror) or getattr(cause, "errno", None) in (
            errno.ENETUNREACH,
            errno.EHOSTUNREACH,
        )
        if is_unreachable and not start:
            raise RefusedError(message) from None
        raise TemporaryError(message) from None
    return start


def first_byte(response: Any, start: int, size: int) -> int:
    """Return the position of the response's first byte in the file: `start`, or 0.

    Some hosts ignore the requested range and send the whole file. Raises RefusedError
    if the headers announce another range or another length.
    """
    offset = start if response.status == 206 else 0
    content_range = response.headers.get("Content-Range", "")
    if offset and not content_range.startswith(f"bytes {offset}-"):
        raise RefusedError("it sends a different range than requested")
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and offset + int(length) != size:
        raise RefusedError(f"it offers {offset + int(length):,} bytes, not {size:,}")
    return offset


def call_within(seconds: float, call: Callable[[], Any]) -> Any:
    """Return call(), or raise TimeoutError if it takes longer.

    The call runs in a thread, which is abandoned after a timeout. This is needed
    because looking up a host name has no timeout, and a host can send its headers and
    chunk lengths one byte at a time.
    """
    results: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run() -> None:
        try:
            results.put(call())
        except Exception as error:  # raised again below, in the caller's thread
            results.put(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        result = results.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError("timed out") from None
    if isinstance(result, Exception):
        raise result
    return result


def copy(response: Any, f: Any, size: int, progress: Any, skip: int) -> None:
    """Append the response to f, without its first `skip` bytes.

    Raises RefusedError if it is longer than expected, TemporaryError if it ends too
    early or comes too slowly, and UserError if f cannot be written.
    """
    mark = time.monotonic()  # the rate is measured from here
    since_mark = 0  # bytes
    length = f.seek(0, os.SEEK_END)
    while block := call_within(3 * TIMEOUT, lambda: response.read1(BLOCK)):
        since_mark += len(block)
        skipped = min(skip, len(block))
        block = block[skipped:]
        skip -= skipped
        try:
            f.write(block)
        except OSError as error:
            raise write_error(Path(f.name), error, KEPT) from None
        length += len(block)
        progress.update(len(block))
        if length > size:
            raise RefusedError(f"it sends more than {size:,} bytes")
        now = time.monotonic()
        if now - mark > TIMEOUT:
            if since_mark < MIN_RATE * TIMEOUT:
                raise TemporaryError(f"it sent {since_mark:,} bytes in {now - mark:.0f} seconds")
            mark = now
            since_mark = 0
    f.flush()
    if length < size:
        raise TemporaryError(f"the connection was closed after {length:,} of {size:,} bytes")


def digest(f: Any) -> str:
    """Return the SHA-256 of the whole content of f."""
    f.seek(0)
    return hashlib.file_digest(f, "sha256").hexdigest()
