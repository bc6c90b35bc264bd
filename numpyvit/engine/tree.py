"""Sum the gradients of micro-batches in an order that no thread can change."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, wait
from typing import Any

from ..params import Buffer


class SumTree:
    """Adds losses and gradients in pairs: ((0 + 1) + (2 + 3)) + ...

    Floating-point addition is not associative, so the order of the additions decides
    the last bits of the sum. Here it follows from the leaves' indices alone, whichever
    thread finishes first. A pair is added as soon as both of its sides are there, so
    that few gradient buffers exist at a time. After the last call of `add`, `root` is
    (loss, gradients).
    """

    def __init__(self, leaves: int) -> None:
        self.leaves = leaves
        self.waiting: dict[tuple[int, int], tuple[float, Buffer]] = {}
        self.free: list[Buffer] = []
        self.lock = threading.Lock()

    def buffer(self, params: Buffer) -> Buffer:
        """Return a gradient buffer of zeros, a new one or one that is free again."""
        with self.lock:
            grads = self.free.pop() if self.free else None
        if grads is None:
            return params.zeros_like()
        grads.flat.fill(0)
        return grads

    def add(self, i: int, loss: float, grads: Buffer) -> None:
        """Add leaf i, and complete every sum that was waiting for it."""
        level = 0
        width = self.leaves
        while width > 1:
            if i ^ 1 < width:  # without a sibling, the last node of a level moves up unchanged
                with self.lock:
                    sibling = self.waiting.pop((level, i ^ 1), None)
                    if sibling is None:
                        self.waiting[level, i] = loss, grads
                        return
                other_loss, other_grads = sibling
                loss += other_loss  # a + b and b + a have the same bits
                grads.flat += other_grads.flat
                with self.lock:
                    self.free.append(other_grads)
            level += 1
            i //= 2
            width = (width + 1) // 2
        self.root = loss, grads


def run_all(pool: Executor, run: Callable[[Any], object], items: Sequence[Any]) -> None:
    """Call run(item) for each item in the threads of a pool, and wait for all of them.

    No call is running any more when an exception, of a call or by Ctrl-C, is raised here;
    the calls that have not begun by then are left out.
    """
    futures = [pool.submit(run, item) for item in items]
    try:
        for future in futures:
            future.result()
    finally:
        for future in futures:
            future.cancel()
        wait(futures)
