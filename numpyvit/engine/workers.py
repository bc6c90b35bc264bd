"""Micro-batches over worker threads. With machine.py, which prepares them, the only file that knows about threads.

A batch is cut into micro-batches; each is run through the same weights, by one thread, with a gradient buffer and one
BLAS thread of its own; the gradients are added up in a fixed binary tree over the micro-batches' index. How the batch is
cut depends on the model and the batch only, so the result has the same bits with 1, 2 or 8 workers.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from typing import Any, TypeVar

import numpy as np

from ..backend.arrays import Array, get_xp, on_host
from ..backend.device import to_host
from ..data import Dataset, normalise
from ..errors import UserError
from ..losses import cross_entropy
from ..params import DROPOUT, Buffer
from ..vit import ViT
from .process import blas_threads, cores, prepare_thread, process_settings

T = TypeVar("T")

TOKENS = 1600  # at most, in a micro-batch; see micro_batch_size
AT_ONCE = 2**16  # tokens that a GPU evaluates at a time
LONE = 8192  # activations (images * N * D) from which several BLAS threads make a lone micro-batch faster


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

    def __init__(
        self,
        model: ViT,
        loss: Callable[..., tuple[Any, Array]] = cross_entropy,
        seed: int = 0,
        workers: int | None = None,
        micro_batch: int | None = None,
    ) -> None:
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
        self._pool = self._stack.enter_context(
            ThreadPoolExecutor(
                self.workers, "numpyvit", prepare_thread, (iter(cores()), self.workers)
            )
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        self._pool = None

    def each(self, run: Callable[[Any], object], items: Sequence[Any]) -> None:
        """run(item) for each of them, over the threads. Raises UserError outside of `with`, and what a call raised."""
        if self._pool is None:
            raise UserError(
                "these Workers are not at work: use them inside `with Workers(model) as workers:`"
            )
        if len(items) == 1:
            run(items[0])  # in this thread: no other need wake up for it
        else:
            list(self._pool.map(run, items))

    def loss_and_grad(
        self, params: Buffer, images: Array, labels: Array, step: int = 0, all_patches: bool = False
    ) -> tuple[Any, Buffer]:
        """The mean loss over the batch and its gradients: images (B, H, W, C), normalised, labels (B,) or (B, K).

        step: seeds dropout, together with the seed and the micro-batch's index. all_patches: no patch dropout. On a GPU,
        where all of them are to be, the batch is one micro-batch, and the loss an array of no dimension, as yet unread.
        """
        if not on_host(params.flat):
            return self.piece(
                params,
                images,
                labels,
                self.draws(step, 0),
                len(images),
                params.zeros_like(),
                all_patches,
            )
        B, labels = len(images), np.asarray(labels)
        if len(labels) != B:
            raise UserError(f"{B} images came with {len(labels)} labels")
        size = self.micro_batch or micro_batch_size(self.model.config.tokens, B)
        pieces = max(1, -(-B // size))
        tree = Tree(pieces)

        def run(i: int) -> None:
            part = slice(i * size, (i + 1) * size)
            with np.errstate(
                over="ignore", invalid="ignore"
            ):  # the trainer looks at the loss and the norm
                loss, grads = self.piece(
                    params,
                    images[part],
                    labels[part],
                    self.draws(step, i),
                    B,
                    tree.buffer(params),
                    all_patches,
                )
                tree.add(i, float(loss), grads)

        self.each(run, range(pieces))
        return tree.root

    def draws(self, step: int, i: int) -> np.random.Generator:
        """What micro-batch i of a step draws dropout's masks from."""
        return np.random.default_rng((self.seed, DROPOUT, step, i))

    def piece(
        self,
        params: Buffer,
        images: Array,
        labels: Array,
        rng: Any,
        count: int,
        grads: Buffer,
        all_patches: bool = False,
        dloss: Any = None,
    ) -> tuple[Any, Buffer]:
        """A micro-batch of a batch of `count` images: its share in their mean loss, and grads, with its gradients added.
        dloss: what the gradients are to be multiplied by."""
        logits, cache = self.model.forward(params, images, rng, all_patches=all_patches)
        loss, dlogits = self.loss(logits, labels, count=max(count, 1))
        self.model.backward(dlogits if dloss is None else dlogits * dloss, cache, grads)
        return loss, grads

    def predict(self, params: Buffer, data: Dataset | Array) -> Array:
        """Logits (n, K) on the host, for a Dataset (which is normalised on the way) or normalised images (n, H, W, C)."""
        images = data.images if isinstance(data, Dataset) else data
        xp, n, classes = get_xp(params.flat), len(images), self.model.config.classes
        size = self.micro_batch or micro_batch_size(self.model.config.tokens, n)
        if xp is not np:
            size = max(1, AT_ONCE // self.model.config.tokens)
        logits = np.empty((n, classes), params.flat.dtype)

        def run(start: int) -> None:
            part = xp.asarray(images[start : start + size])
            if isinstance(data, Dataset):
                part = normalise(part, data.mean, data.std, params.flat.dtype)
            with np.errstate(over="ignore", invalid="ignore"):
                logits[start : start + size] = to_host(
                    self.model.forward(params, part, need_cache=False)[0]
                )

        if xp is not np:
            for start in range(0, n, size):
                run(start)
            return logits
        c = self.model.config
        with (
            blas_threads(self.workers)
            if n <= size and n * c.tokens * c.width > LONE
            else nullcontext()
        ):
            self.each(run, range(0, n, size))
        return logits


def ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items, each made by another thread while the one before it is in use. With two cores and two workers, batches
    that take some work to augment cost 0.98 of the time; with a core to spare, nothing at all."""
    end, source = object(), iter(items)
    with ThreadPoolExecutor(1) as pool:
        coming: Future[Any] = pool.submit(next, source, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, source, end)
            yield item


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
            if i ^ 1 < width:  # else: an odd one out goes up alone
                with self.lock:
                    other = self.waiting.pop((level, i ^ 1), None)
                    if other is None:
                        self.waiting[level, i] = loss, grads
                        return
                loss += other[0]  # a + b = b + a, to the bit
                grads.flat += other[1].flat
                with self.lock:
                    self.free.append(other[1])
            level, i, width = level + 1, i // 2, (width + 1) // 2
        self.root = loss, grads
