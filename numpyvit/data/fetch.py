"""One file from the web: from the first host that has it, going on where a connection was cut, and only if it is the
right one."""

import errno
import hashlib
import http.client
import os
import queue
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import UserError
from ..storage.files import held, move, not_written, reason

TIMEOUT = 20.0  # seconds after which a host that sends nothing, or next to nothing, is left
LEAST = 1000.0  # bytes a second; less is next to nothing
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before trying all hosts again
LONGEST = 60.0  # seconds that a host may ask us to wait


class RefusedError(Exception):
    """This host does not have the file."""


class PassingError(Exception):
    """This may go better later. `wait`: what the host asked for, in seconds."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


def fetch(urls: Sequence[str], path: Path, size: int, sha256: str, bar: bool = True) -> None:
    """Bring the file of `size` bytes and this SHA-256 to `path`; the first of the urls is the canonical one.

    What has come so far lies in path.part, so that the next try, or the next call, goes on from there; only the whole and
    right file is moved to `path`. Raises UserError, one line, where no host has it, or where it cannot be written.
    """
    from tqdm import tqdm

    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            open(part, "ab+") as f,
            held(f, f"{path} is being fetched by another process: wait for it"),
        ):
            if path.is_file():  # that other one has just been ready
                part.unlink(missing_ok=True)
                return
            try:
                with tqdm(
                    total=size,
                    unit="B",
                    unit_scale=True,
                    desc=path.name,
                    disable=None if bar else True,
                ) as shown:
                    fetch_into(f, urls, size, sha256, shown)
                f.flush()
                os.fsync(f.fileno())
                if os.name == "posix":
                    move(part, path)
            finally:
                if os.name == "posix" and f.seek(0, os.SEEK_END) == 0:
                    part.unlink()
        if os.name != "posix":  # Windows moves no open file
            move(part, path)
    except OSError as error:
        raise not_written(path, error, "what has come is kept") from None


def fetch_into(f: Any, urls: Sequence[str], size: int, sha256: str, shown: Any) -> None:
    """Try the hosts in turn, and again, with patience, as long as one of them gets on."""
    hosts, waits, problems = list(urls), list(WAITS), {}
    while True:
        asked, before = 0.0, f.seek(0, os.SEEK_END)
        for url in list(hosts):
            host = urlsplit(url).netloc
            try:
                while True:
                    begun = receive(url, f, size, shown)
                    if digest(f) == sha256:
                        return
                    f.truncate(0)
                    if not begun:  # else the beginning may be to blame: once more
                        raise RefusedError(
                            f"it sends another file than that of SHA-256 {sha256[:12]}..."
                        )
            except RefusedError as error:
                hosts.remove(url)
                problems[host] = str(error)
            except PassingError as error:
                problems[host], asked = str(error), max(asked, error.wait)
        if f.seek(0, os.SEEK_END) > before + size // 100:
            waits = list(WAITS)
        if not hosts or not waits:
            why = "; ".join(f"{host}: {problem}" for host, problem in problems.items())
            raise UserError(f"{Path(f.name).stem} could not be fetched ({why})")
        time.sleep(max(waits.pop(0), min(asked, LONGEST)))


def receive(url: str, f: Any, size: int, shown: Any) -> int:
    """Append to f what it lacks. Returns with how many bytes it began."""
    at = f.seek(0, os.SEEK_END)
    if at > size:
        at = f.truncate(0)
    shown.n = at
    if at == size:
        return at
    headers = {"User-Agent": "numpyvit", "Accept-Encoding": "identity"} | (
        {"Range": f"bytes={at}-"} if at else {}
    )
    try:
        request = urllib.request.Request(url, headers=headers)
        with within(
            3 * TIMEOUT, lambda: urllib.request.urlopen(request, timeout=TIMEOUT)
        ) as response:
            start = at if response.status == 206 else 0
            if start and not response.headers.get("Content-Range", "").startswith(
                f"bytes {start}-"
            ):
                raise RefusedError("it sends another part than it was asked for")
            length = response.headers.get("Content-Length", "")
            if length.isdecimal() and start + int(length) != size:
                raise RefusedError(f"it offers {start + int(length):,} bytes, not {size:,}")
            copy(response, f, size, shown, at - start)  # some hosts always begin at the beginning
    except urllib.error.HTTPError as error:
        message = f"it answers {error.code} {reason(error.reason)}"
        error.close()
        if error.code == 416:  # no such part: begin again
            f.truncate(0)
        if error.code < 500 and error.code not in (408, 416, 425, 429):
            raise RefusedError(message) from None
        wait = error.headers.get("Retry-After", "")
        raise PassingError(message, float(wait) if wait.isdecimal() else 0.0) from None
    except UserError:
        raise
    except (
        OSError,
        http.client.HTTPException,
        ValueError,
    ) as error:  # ValueError: headers of other kinds of nonsense
        why = getattr(error, "reason", error)
        absent = isinstance(why, socket.gaierror) or getattr(why, "errno", None) in (
            errno.ENETUNREACH,
            errno.EHOSTUNREACH,
        )
        message = reason(getattr(why, "strerror", None) or why)
        raise RefusedError(message) if absent and not at else PassingError(message) from None
    return at


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """What call() gives, from a thread that is left behind where it takes longer: looking up a name knows no timeout, and a
    host may send its headers and the lengths of its chunks letter by letter."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(call())
        except Exception as error:  # to be raised where it can be seen
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        found = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError("timed out") from None
    if isinstance(found, Exception):
        raise found
    return found


def copy(response: Any, f: Any, size: int, shown: Any, drop: int) -> None:
    """From the response to the end of f, but for the first `drop` bytes, which are there."""
    mark, seen, at = time.monotonic(), 0, f.seek(0, os.SEEK_END)
    while block := within(3 * TIMEOUT, lambda: response.read1(1 << 17)):
        seen += len(block)
        block, drop = block[drop:], max(drop - len(block), 0)
        try:
            f.write(block)
        except OSError as error:
            raise not_written(Path(f.name), error, "what has come is kept") from None
        at += len(block)
        shown.update(len(block))
        if at > size:
            raise RefusedError(f"it sends more than {size:,} bytes")
        now = time.monotonic()
        if now - mark > TIMEOUT:
            if seen < LEAST * TIMEOUT:
                raise PassingError(f"it sent {seen:,} bytes in {now - mark:.0f} seconds")
            mark, seen = now, 0
    f.flush()
    if at < size:
        raise PassingError(f"the connection was cut after {at:,} of {size:,} bytes")


def digest(f: Any) -> str:
    """The SHA-256 of all of f."""
    f.seek(0)
    return hashlib.file_digest(f, "sha256").hexdigest()
