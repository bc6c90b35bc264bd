"""Process-wide settings that make training faster and change no result.

`Workers` make these settings when they are entered, and undo them when they are left.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from typing import Any

import numpy as np

# Seconds: with a shorter interval, threads hand over the interpreter sooner.
SWITCH_INTERVAL = 0.0005

_settings = ExitStack()
_users = 0
_lock = threading.Lock()


@contextmanager
def process_settings() -> Iterator[None]:
    """Give each worker one BLAS thread, and keep freed memory in the process.

    Measured to make a step 1.2 to 1.45 times faster. The first to enter makes the
    settings and the last to leave undoes them, except for the allocator's, whose old
    value glibc does not tell.
    """
    global _users
    with _lock:
        if not _users:
            keep_freed_memory()
            take_control_of_blas()
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
                take_control_of_blas()
                _settings.close()


@lru_cache(maxsize=1)
def blas() -> Any:
    """Return threadpoolctl's handle on the BLAS libraries.

    Finding the libraries takes milliseconds, setting the number of their threads
    microseconds.
    """
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@lru_cache(maxsize=1)
def blas_owner() -> Any:
    """Return threadpoolctl's record of who may set the number of OpenBLAS's threads."""
    import threadpoolctl

    return threadpoolctl.OpenBLASController


def take_control_of_blas() -> None:
    """Let this thread set the number of BLAS threads.

    From version 3.8 on, threadpoolctl lets only the first thread that sets the number
    change it, and ignores all others. Here the last user of the settings undoes them,
    in whichever thread that is.
    """
    clear = getattr(blas_owner(), "clear_controlling_thread", None)
    if clear:
        clear(force=True)


def settings() -> list[tuple[str, str]]:
    """Return (name, description) of the settings of Workers, for `numpyvit info`."""
    with process_settings():
        libraries = [lib for lib in blas().info() if lib["user_api"] == "blas"]
        kept = keep_freed_memory()
        interval = f"{sys.getswitchinterval() * 1000:g} ms"
    if hasattr(os, "sched_setaffinity"):
        binding = "each bound to its core"
    else:
        binding = "not bound to them: this system does not offer it"
    threads = []
    for lib in libraries:
        n = lib["num_threads"]
        name = f"{lib['internal_api']} {lib['version']}"
        threads.append(f"{name}: {n} thread{'s' if n > 1 else ''} for each worker")
    no_blas = "cannot be controlled: set its number of threads to 1 with its environment variable"
    allocator = "keeps freed memory" if kept else "unchanged: only glibc's can keep freed memory"
    python = sys.version.split()[0]
    return [
        ("workers", f"{len(cores())}, one for each core, {binding}"),
        ("BLAS", "; ".join(threads) or no_blas),
        ("allocator", allocator),
        (
            "interpreter",
            f"Python {python}, NumPy {np.__version__}; threads switch after {interval}",
        ),
    ]


def cores() -> list[int]:
    """Return the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def prepare_thread(free_cores: Iterator[int], workers: int) -> None:
    """Set up the current thread as one of `workers` workers."""
    bind_to_core(free_cores, workers)
    request_huge_pages()


def bind_to_core(free_cores: Iterator[int], workers: int) -> None:
    """Bind this thread to the next free core, if there is one worker for each core.

    Otherwise threads that wake each other for the interpreter's lock are put on one
    core again and again, and a step of a 17-token model takes 1.1 times as long. With
    fewer workers than cores the choice is left to the system, which knows what else
    runs. Only Linux offers this.
    """
    if hasattr(os, "sched_setaffinity") and workers == len(cores()):
        with suppress(OSError):  # a container may forbid it
            os.sched_setaffinity(0, {next(free_cores)})


def request_huge_pages() -> None:
    """Put the memory that this thread allocates into huge pages.

    There are then fewer misses in address translation, and a step takes 0.96 to 0.99 of
    the time. NumPy asks Linux for huge pages for any array of 4 MB or more, and glibc
    keeps the memory of such arrays after they are freed and cuts it up later (see
    keep_freed_memory). The arrays made here are never touched. Elsewhere this does
    nothing.
    """
    with suppress(MemoryError):  # where address space is limited
        _ = [np.empty(30 << 20, np.uint8) for _ in range(8)]


def keep_freed_memory() -> bool:
    """Ask glibc to keep freed memory instead of returning it to the system.

    Returns False if the C library is not glibc, or refuses. Threads have heaps of 64 MB
    each, and glibc returns an empty heap to the system unless that leaves less than
    M_TOP_PAD free, so M_TOP_PAD is set as well.
    """
    M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library (macOS, musl), or Windows
        return False
    kept = mallopt(M_TRIM_THRESHOLD, 1 << 30) and mallopt(M_TOP_PAD, 1 << 26)
    if not kept:
        return False
    # older versions of glibc take 32 MB at most
    return bool(mallopt(M_MMAP_THRESHOLD, 1 << 30) or mallopt(M_MMAP_THRESHOLD, 1 << 25))
