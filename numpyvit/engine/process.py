"""What is set for a whole process while it trains: by `Workers`, for their threads, none of which changes a result; and
what Ctrl-C does."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from typing import Any

import numpy as np

SWITCH_INTERVAL = 0.0005  # seconds: threads that compute hand over the interpreter sooner

_settings, _users, _lock, _lone = ExitStack(), 0, threading.Lock(), threading.Lock()


@contextmanager
def process_settings() -> Iterator[None]:
    """One BLAS thread a worker, and memory that stays: measured to make a step 1.2 to 1.45 times faster.

    The first to enter sets, the last to leave undoes; but for the allocator's setting, whose old value glibc does not tell.
    """
    global _users
    with _lock:
        if not _users:
            keep_freed_memory()
            _settings.enter_context(blas().limit(limits=1, user_api="blas"))
            _settings.callback(sys.setswitchinterval, sys.getswitchinterval())
            sys.setswitchinterval(SWITCH_INTERVAL)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _settings.close()


@contextmanager
def blas_threads(n: int) -> Iterator[None]:
    """Inside, a product may use n threads: for a lone image, while no worker has one. One caller at a time."""
    with _lone, blas().limit(limits=n, user_api="blas"):
        yield


@lru_cache(maxsize=1)
def blas() -> Any:
    """threadpoolctl's handle on the BLAS libraries. Finding them takes milliseconds, setting their threads microseconds."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def settings() -> list[tuple[str, str]]:
    """What of it holds on this machine, as (what, how it is while Workers are at work), for `numpyvit info`."""
    with process_settings():
        libraries = [lib for lib in blas().info() if lib["user_api"] == "blas"]
        products = [
            f"{lib['internal_api']} {lib['version']}: {lib['num_threads']} thread{'s' * (lib['num_threads'] > 1)} "
            "for each worker"
            for lib in libraries
        ]
        allocator = (
            "keeps freed memory"
            if keep_freed_memory()
            else "as it is: only glibc's can be told to keep memory"
        )
        interval = f"{sys.getswitchinterval() * 1000:g} ms"
    bound = (
        "each bound to one"
        if hasattr(os, "sched_setaffinity")
        else "which the system does not let us bind to them"
    )
    return [
        ("workers", f"{len(cores())}, one for each core, {bound}"),
        (
            "BLAS",
            "; ".join(products)
            or "cannot be controlled: set its threads to 1 by its own environment variable",
        ),
        ("allocator", allocator),
        (
            "interpreter",
            f"Python {sys.version.split()[0]}, NumPy {np.__version__}; threads switch after {interval}",
        ),
    ]


def cores() -> list[int]:
    """The cores that this process may use."""
    return (
        sorted(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else list(range(os.cpu_count() or 1))
    )


def prepare_thread(left: Iterator[int], workers: int) -> None:
    """What a worker does first."""
    stay_on_a_core(left, workers)
    ask_for_huge_pages()


def stay_on_a_core(left: Iterator[int], workers: int) -> None:
    """Bind this thread to a core of its own, if there is one worker for each (and the system can, which is Linux).

    Threads that wake each other for the interpreter's lock are else put on one core again and again: a step of a 17-token
    model takes 1.1 times as long. With fewer workers than cores the system chooses, which knows what else runs.
    """
    if hasattr(os, "sched_setaffinity") and workers == len(cores()):
        with suppress(OSError):  # a container may forbid it
            os.sched_setaffinity(0, {next(left)})


def ask_for_huge_pages() -> None:
    """Let what this thread allocates lie in huge pages, for fewer misses in address translation: a step takes 0.96 to 0.99
    of the time. NumPy asks Linux for them for an array of 4 MB or more; and glibc keeps the memory of these arrays, which
    nobody touched, and cuts it up later (see keep_freed_memory). Elsewhere this does nothing.
    """
    with suppress(MemoryError):  # where address space is limited: do without
        _ = [np.empty(30 << 20, np.uint8) for _ in range(8)]


def keep_freed_memory() -> bool:
    """Ask glibc to keep freed memory, rather than return it each step and fault it in anew. False: not glibc, or refused.

    The last one is for threads: each has heaps of 64 MB, and glibc gives an empty one back to the system unless that would
    leave less than M_TOP_PAD to spare.
    """
    M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library (macOS, musl), or Windows
        return False
    kept = mallopt(M_TRIM_THRESHOLD, 1 << 30) and mallopt(M_TOP_PAD, 1 << 26)
    return bool(
        kept and (mallopt(M_MMAP_THRESHOLD, 1 << 30) or mallopt(M_MMAP_THRESHOLD, 1 << 25))
    )  # older: 32 MB at most


@contextmanager
def ctrl_c() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second one interrupts as ever."""
    event = threading.Event()
    if (
        threading.current_thread() is not threading.main_thread()
    ):  # only the main thread may handle signals
        yield event
        return

    def handler(*_: object) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    old = signal.signal(signal.SIGINT, handler)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, old)
