"""The state of the stand-in: the work that a capture records, and the number of reads."""

from collections.abc import Callable

import numpy as np

reads = 0  # the number of times that something was copied to the host
tape: list[Callable[[], object]] | None = None  # the work recorded so far, during a capture


class Refused(TypeError):
    """The stand-in does not allow this."""


def flush(a: np.ndarray) -> np.ndarray:
    """Set numbers too small for a normal float to zero, in place, and return the array."""
    if a.dtype.kind == "f" and a.flags.writeable:
        tiny = np.abs(a) < np.finfo(a.dtype).tiny
        if tiny.any():
            np.copyto(a, 0, where=tiny)
    return a


def now_or_later(work: Callable[[], object]) -> None:
    """Do the work, or during a capture record it, to be done at each launch of the graph."""
    if tape is None:
        work()
    else:
        tape.append(work)


def not_while_capturing(what: str, why: str) -> None:
    """Raise Refused during a capture."""
    if tape is not None:
        raise Refused(f"{what} while a stream is being captured: {why}")
