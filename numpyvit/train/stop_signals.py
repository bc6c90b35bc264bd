"""Ctrl-C and SIGTERM during training: finish the step first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Yield a list to which every SIGINT (Ctrl-C) and SIGTERM within the block is added.

    The first one only does that. The second one raises exception_for(signal), and the
    ones after it do nothing, so that they cannot disturb the cleaning up.

    A signal that is ignored stays ignored (nohup, a background job of a script), and so
    does a SIGTERM that the program handles itself. Python lets only the main thread
    handle signals; in any other thread the list stays empty.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handler(number: int, frame: object) -> None:
        received.append(number)
        if len(received) == 2:
            raise exception_for(number)

    previous: dict[int, Any] = {}
    try:
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            previous[signal.SIGTERM] = signal.signal(signal.SIGTERM, handler)
        # None: a handler that was not set by Python, and cannot be set again
        if signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None):
            previous[signal.SIGINT] = signal.signal(signal.SIGINT, handler)
        yield received
    finally:
        received += [0, 0]  # from here on the handler raises nothing
        for number, old in previous.items():
            signal.signal(number, old)


def exception_for(number: int) -> BaseException:
    """Return the exception of a signal: KeyboardInterrupt, or SystemExit(143) of SIGTERM."""
    if number == signal.SIGINT:
        return KeyboardInterrupt()
    return SystemExit(128 + number)
