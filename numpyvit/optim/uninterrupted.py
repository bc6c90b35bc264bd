"""Delay Ctrl-C until the weights and all moments have been updated."""

import inspect
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# The functions of C: the wrappers in Python, which make enums of handlers, take 30 µs.
set_handler = inspect.unwrap(signal.signal)
get_handler = inspect.unwrap(signal.getsignal)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C take effect at the end of the `with` block, and not within it.

    It does nothing in threads other than the main thread, which Ctrl-C does not interrupt,
    and where Ctrl-C is ignored or ends the process at once.
    """
    handler: Any = None
    if threading.current_thread() is threading.main_thread():
        handler = get_handler(signal.SIGINT)
    if not callable(handler):
        yield
        return
    came: list[tuple[Any, ...]] = []
    set_handler(signal.SIGINT, lambda *signal_and_frame: came.append(signal_and_frame))
    try:
        yield
    finally:
        set_handler(signal.SIGINT, handler)
    if came:
        handler(*came[0])
