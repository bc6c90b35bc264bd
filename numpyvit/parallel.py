"""Micro-batches over worker threads. The only file that knows about threads.

A batch is cut into micro-batches; each is run through the same weights, by one thread, with a gradient buffer and one
BLAS thread of its own; the gradients are added up in a fixed binary tree over the micro-batches' index. How the batch is
cut depends on the model and the batch only, so the result has the same bits with 1, 2 or 8 workers.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from .backend import Array
from .data import Dataset, normalise
from .errors import UserError
from .losses import cross_entropy
from .params import DROPOUT, Buffer
from .vit import ViT

TOKENS = 1600        # at most, in a micro-batch; see micro_batch_size


def micro_batch_size(tokens: int, batch: int) -> int:
    """Images in a micro-batch, for a model of `tokens` tokens and batches of `batch` images.

    Some 800 to 1600 tokens: enough rows for the products to run at full speed, for the interpreter not to show, and to
    make adding a gradient buffer cheap (both grow with the weights, so this holds for a model of any size), and few
    enough that activations stay near the caches. The batch is halved until its pieces are that small, so that they come out
    even for the usual numbers of workers.
    """
    pieces = 1
    while pieces * TOKENS < batch * tokens:
        pieces *= 2
    return max(1, -(-batch // pieces))


class Workers:
    """Threads that train and evaluate `model`; use it as a context manager, since it sets things process-wide.

    loss: (logits, labels, count=) -> loss, dlogits, as losses.cross_entropy. seed: of dropout. workers: threads, by
    default as many as there are cores for this process. micro_batch: images in one piece, by default micro_batch_size's.
    """

    def __init__(self, model: ViT, loss: Callable[..., tuple[Any, Array]] = cross_entropy, seed: int = 0,
                 workers: int | None = None, micro_batch: int | None = None) -> None:
        for name, value in (("workers", workers), ("micro_batch", micro_batch)):
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}: it must be 1 or more")
        if seed < 0:
            raise UserError(f"seed is {seed}: it must be 0 or above")
        self.model, self.loss, self.seed, self.micro_batch = model, loss, seed, micro_batch
        self.workers = workers or len(cores())
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        if self._pool is not None:
            raise UserError("these Workers are at work already: make others with Workers(model)")
        self._stack = ExitStack()
        self._stack.enter_context(process_settings())
        self._pool = self._stack.enter_context(ThreadPoolExecutor(
            self.workers, "numpyvit", stay_on_a_core, (iter(cores()), self.workers)))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        self._pool = None

    def _map(self, run: Callable[[int], None], items: range) -> None:
        if self._pool is None:
            raise UserError("these Workers are not at work: use them inside `with Workers(model) as workers:`")
        list(self._pool.map(run, items))

    def loss_and_grad(self, params: Buffer, images: Array, labels: Array, step: int = 0) -> tuple[float, Buffer]:
        """The mean loss over the batch and its gradients: images (B, H, W, C), normalised, labels (B,) or (B, K).

        step: seeds dropout, together with the seed and the micro-batch's index.
        """
        B, labels = len(images), np.asarray(labels)
        if len(labels) != B:
            raise UserError(f"{B} images came with {len(labels)} labels")
        size = self.micro_batch or micro_batch_size(self.model.config.tokens, B)
        pieces = max(1, -(-B // size))
        tree = Tree(pieces)

        def run(i: int) -> None:
            part = slice(i * size, (i + 1) * size)
            grads = tree.buffer(params)
            rng = np.random.default_rng((self.seed, DROPOUT, step, i))
            with np.errstate(over="ignore", invalid="ignore"):           # the trainer looks at the loss and the norm
                logits, cache = self.model.forward(params, images[part], rng)
                loss, dlogits = self.loss(logits, labels[part], count=max(B, 1))
                self.model.backward(dlogits, cache, grads)
                tree.add(i, float(loss), grads)

        self._map(run, range(pieces))
        return tree.root

    def predict(self, params: Buffer, data: Dataset | Array) -> Array:
        """Logits (n, K) for a Dataset (which is normalised on the way) or for normalised images (n, H, W, C)."""
        images = data.images if isinstance(data, Dataset) else data
        n, classes = len(images), self.model.config.classes
        size = self.micro_batch or micro_batch_size(self.model.config.tokens, n)
        logits = np.empty((n, classes), params.flat.dtype)

        def run(start: int) -> None:
            part = images[start:start + size]
            if isinstance(data, Dataset):
                part = normalise(part, data.mean, data.std, params.flat.dtype)
            with np.errstate(over="ignore", invalid="ignore"):
                logits[start:start + size] = self.model.forward(params, part, need_cache=False)[0]

        self._map(run, range(0, n, size))
        return logits


class Tree:
    """Adds losses and gradients pairwise, ((0 + 1) + (2 + 3)) + ..., whoever is ready first: a fixed order, whatever the
    threads do. Holds few buffers at a time: a sum is made as soon as both of its sides are there."""

    def __init__(self, leaves: int) -> None:
        self.leaves = leaves
        self.waiting: dict[tuple[int, int], tuple[float, Buffer]] = {}
        self.free: list[Buffer] = []
        self.lock = threading.Lock()

    def buffer(self, params: Buffer) -> Buffer:
        """A gradient buffer of zeros: one whose sum is done, or a new one."""
        with self.lock:
            grads = self.free.pop() if self.free else None
        if grads is None:
            return params.zeros_like()
        grads.flat.fill(0)
        return grads

    def add(self, i: int, loss: float, grads: Buffer) -> None:
        """Bring in leaf i, and every sum that it completes."""
        level, width = 0, self.leaves
        while width > 1:
            if i ^ 1 < width:                                            # else: an odd one out goes up alone
                with self.lock:
                    other = self.waiting.pop((level, i ^ 1), None)
                    if other is None:
                        self.waiting[level, i] = loss, grads
                        return
                loss += other[0]                                         # a + b = b + a, to the bit
                grads.flat += other[1].flat
                with self.lock:
                    self.free.append(other[1])
            level, i, width = level + 1, i // 2, (width + 1) // 2
        self.root = loss, grads


def cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def stay_on_a_core(left: Iterator[int], workers: int) -> None:
    """Bind this thread to a core of its own, if there is one worker for each (and the system can, which is Linux).

    Threads that wake each other for the interpreter's lock are else put on one core again and again: a step of a 17-token
    model takes 1.1 times as long. With fewer workers than cores the choice is left to the system, which knows what else runs.
    """
    if hasattr(os, "sched_setaffinity") and workers == len(cores()):
        os.sched_setaffinity(0, {next(left)})
    n = int(os.environ.get("HEAPS", 4))
    if n: x = [np.empty(60 << 20, np.uint8) for _ in range(n)]


_settings, _users, _settings_lock = ExitStack(), 0, threading.Lock()


@contextmanager
def process_settings() -> Iterator[None]:
    """One BLAS thread a worker, and memory that stays: measured to make a step 1.2 to 1.45 times faster.

    The first to enter sets, the last to leave undoes; but for the allocator's setting, whose old value glibc does not tell.
    """
    global _users
    with _settings_lock:
        if not _users:
            from threadpoolctl import threadpool_limits

            keep_freed_memory()
            _settings.enter_context(threadpool_limits(1, user_api="blas"))
            _settings.callback(sys.setswitchinterval, sys.getswitchinterval())
            sys.setswitchinterval(0.0005)                                # threads hand over the interpreter sooner
        _users += 1
    try:
        yield
    finally:
        with _settings_lock:
            _users -= 1
            if not _users:
                _settings.close()


def keep_freed_memory() -> bool:
    """Ask glibc to keep freed memory, rather than return it each step and fault it in anew. False: not glibc, or refused.

    The last one is for threads: each has heaps of 64 MB, and glibc gives an empty one back to the system unless that would
    leave less than M_TOP_PAD to spare.
    """
    M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):                         # another C library (macOS, musl), or Windows
        return False
    kept = mallopt(M_TRIM_THRESHOLD, 1 << 30) and mallopt(M_TOP_PAD, 1 << 26)
    return bool(kept and (mallopt(M_MMAP_THRESHOLD, 1 << 30) or mallopt(M_MMAP_THRESHOLD, 1 << 25)))   # older: 32 MB at most
