"""A thread pool that computes losses, gradients and predictions in micro-batches.

A batch is cut into micro-batches. Each is run through the same weights by one thread,
with its own gradient buffer and one BLAS thread, and the gradients are added in a fixed
binary tree over the micro-batches' index (tree.py). How the batch is cut depends on the
model and the batch alone, so the result has the same bits with 1, 2 or 8 workers.
"""

import inspect
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np

from ..backend.arrays import Array, get_xp, on_host
from ..backend.device import to_host
from ..config import ViTConfig
from ..data import Dataset, normalise
from ..errors import UserError, check_int
from ..layers.patch_dropout import sample_patches
from ..losses import cross_entropy
from ..params import Buffer
from ..seeds import DROPOUT
from ..vit import ViT
from .process import cores, prepare_thread, process_settings
from .tree import SumTree, run_all

TOKENS = 1600  # the most tokens in a micro-batch; see micro_batch_size
GPU_TOKENS = 2**16  # the most tokens that a GPU evaluates at a time
# A few images are classified in parts of at least this many activations (images * N * D);
# with fewer, starting a thread takes longer than it saves.
PART = 16384
MOST_PARTS = 8  # for a few images: more cores than this are not used


def micro_batch_size(tokens: int, batch: int) -> int:
    """Return the number of images in a micro-batch.

    tokens is the number of tokens per image, batch the number of images in a batch.

    A micro-batch has about 800 to 1600 tokens. That is enough rows for matrix products
    to run at full speed, for the interpreter's overhead not to matter, and for adding a
    gradient buffer to be cheap in comparison (both grow with the weights, so this holds
    for a model of any size). It is few enough for the activations to stay near the
    caches. The batch is halved until its parts are that small, so that they divide
    evenly among the usual numbers of workers.
    """
    parts = 1
    while parts * TOKENS < batch * tokens:
        parts *= 2
    return max(1, -(-batch // parts))


def prediction_size(config: ViTConfig, n: int) -> int:
    """Return the number of images that are classified at a time.

    It is that of micro_batch_size, but where that makes a single part of all n images,
    they are cut into several, so that several threads take part. Like micro_batch_size
    it depends on the model and n only, and so do the last bits of a prediction.
    """
    size = micro_batch_size(config.tokens, n)
    if n > size:
        return size
    parts = min(n, MOST_PARTS, n * config.tokens * config.width // PART)
    return max(1, -(-n // max(1, parts)))


def check_loss(loss: Any) -> None:
    """Raise UserError unless `loss` can be called as loss(logits, labels, count=n)."""
    problem = None if callable(loss) else f"it is a {type(loss).__name__}"
    with suppress(ValueError):  # a function of C code may not tell its signature
        try:
            if callable(loss):
                inspect.signature(loss).bind("logits", "labels", count=1)
        except TypeError as error:
            problem = str(error)
    if problem:
        raise UserError(
            f"the loss cannot be called as loss(logits, labels, count=n) ({problem}): it must be "
            "a function that divides the sum over its images by count, the number of images in "
            "the batch, and returns the loss and dlogits, its gradient"
        )


class Workers:
    """Threads that compute losses, gradients and predictions of `model`.

    Use it as a context manager, because it changes process-wide settings (see
    process.py):

        with Workers(model) as workers:
            loss, grads = workers.loss_and_grad(params, images, labels)

    loss: a function (logits, labels, count=) -> loss, dlogits, such as
    losses.cross_entropy. It gets one micro-batch at a time and divides its sum by
    `count`, the number of images in the whole batch.
    seed: the seed of dropout.
    workers: the number of threads, by default one for each core of this process.
    micro_batch: the number of images in a micro-batch, by default that of
    micro_batch_size.
    """

    def __init__(
        self,
        model: ViT,
        loss: Callable[..., tuple[Any, Array]] = cross_entropy,
        seed: int = 0,
        workers: int | None = None,
        micro_batch: int | None = None,
    ) -> None:
        if not all(hasattr(model, name) for name in ("config", "forward", "backward")):
            raise UserError(f"model is of type {type(model).__name__}: it must be a ViT")
        check_loss(loss)
        check_int("seed", seed)
        if workers is not None:
            check_int("workers", workers, least=1)
        if micro_batch is not None:
            check_int("micro_batch", micro_batch, least=1)
        self.model = model
        self.loss = loss
        self.seed = seed
        self.micro_batch = micro_batch
        self.workers = workers or len(cores())
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0  # the one that has the threads
        self._threads: set[int] = set()

    def __enter__(self) -> "Workers":
        if self._pool is not None:
            raise UserError(
                "these Workers are already in use in another `with` block: make others with "
                "Workers(model)"
            )
        self._stack = ExitStack()
        self._stack.enter_context(process_settings())
        self._process = os.getpid()
        self._threads.clear()
        pool = ThreadPoolExecutor(self.workers, "numpyvit", self.begin_thread, (iter(cores()),))
        self._pool = self._stack.enter_context(pool)
        return self

    def begin_thread(self, free_cores: Iterator[int]) -> None:
        """Set up the current thread as one of the workers."""
        self._threads.add(threading.get_ident())
        prepare_thread(free_cores, self.workers)

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        self._pool = None

    def map(self, run: Callable[[Any], object], items: Sequence[Any]) -> None:
        """Call run(item) for each item, spread over the threads.

        A call that uses the same Workers computes its part in its own thread, because
        it would wait for ever for a thread that is free. Raises UserError outside a
        `with` block and in a forked process, and whatever a call raises.
        """
        if self._pool is None:
            raise UserError(
                "these Workers have no threads: use them inside `with Workers(model) as workers:`"
            )
        if self._process != os.getpid():
            raise UserError(
                "these Workers have their threads in another process: make others in this one "
                "with Workers(model)"
            )
        # One item is computed in this thread: waking another one would only take time.
        if len(items) == 1 or threading.get_ident() in self._threads:
            for item in items:
                run(item)
        else:
            run_all(self._pool, run, items)

    def loss_and_grad(
        self,
        params: Buffer,
        images: Array,
        labels: Array,
        step: int = 0,
        patches: int | None = None,
    ) -> tuple[Any, Buffer]:
        """Return the mean loss over a batch and its gradients.

        images: (B, H, W, C), normalised; labels: (B,) integers or (B, K) probabilities.
        step: seeds dropout, together with the seed and the micro-batch's index.
        patches: the number of randomly chosen patches of each image that take part, or
        None for all of them (patch dropout, see layers/patch_dropout.py).

        On a GPU, where all arrays must then be, the batch is one micro-batch, and the
        loss is an array without dimensions, for which nothing has waited yet.
        Raises UserError if the numbers of images and labels differ.
        """
        if not on_host(params.flat):
            rng = self.dropout_rng(step, 0)
            grads = params.zeros_like()
            return self.micro_step(params, images, labels, rng, len(images), grads, patches)
        B = len(images)
        labels = np.asarray(labels)
        if len(labels) != B:
            raise UserError(f"there are {B} images and {len(labels)} labels: wanted one for each")
        size = self.micro_batch or micro_batch_size(self.model.config.tokens, B)
        parts = max(1, -(-B // size))
        tree = SumTree(parts)

        def run(i: int) -> None:
            part = slice(i * size, (i + 1) * size)
            rng = self.dropout_rng(step, i)
            grads = tree.buffer(params)
            with np.errstate(over="ignore", invalid="ignore"):  # the caller checks the loss
                loss, grads = self.micro_step(
                    params, images[part], labels[part], rng, B, grads, patches
                )
                tree.add(i, float(loss), grads)

        self.map(run, range(parts))
        return tree.root

    def dropout_rng(self, step: int, i: int) -> np.random.Generator:
        """Return the generator for the dropout of micro-batch i of a step."""
        return np.random.default_rng((self.seed, DROPOUT, step, i))

    def micro_step(
        self,
        params: Buffer,
        images: Array,
        labels: Array,
        rng: Any,
        count: int,
        grads: Buffer,
        patches: int | None = None,
        dloss: Any = None,
    ) -> tuple[Any, Buffer]:
        """Run one micro-batch of a batch of `count` images forward and backward.

        Adds its gradients to `grads`, multiplied by dloss if that is given. Returns its
        part of the batch's mean loss, and `grads`. rng draws the patches that take part
        and dropout's masks; None means no dropout.
        """
        keep = None
        if patches is not None:
            keep = sample_patches(rng, len(images), self.model.config.patches, patches, images)
        logits, cache = self.model.forward(params, images, rng, keep)
        loss, dlogits = self.loss(logits, labels, count=max(count, 1))
        self.model.backward(dlogits if dloss is None else dlogits * dloss, cache, grads)
        return loss, grads

    def predict(self, params: Buffer, data: Dataset | Array) -> Array:
        """Return logits (n, K) in host memory, without dropout.

        data: a Dataset, whose images are normalised here, or normalised images (n, H,
        W, C).
        """
        images = data.images if isinstance(data, Dataset) else data
        config = self.model.config
        xp = get_xp(params.flat)
        n = len(images)
        on_gpu = xp is not np
        if on_gpu:
            size = max(1, GPU_TOKENS // config.tokens)
        else:
            size = self.micro_batch or prediction_size(config, n)
        logits = np.empty((n, config.classes), params.flat.dtype)

        def run(start: int) -> None:
            part = xp.asarray(images[start : start + size])
            if isinstance(data, Dataset):
                part = normalise(part, data.mean, data.std, params.flat.dtype)
            with np.errstate(over="ignore", invalid="ignore"):
                found, _ = self.model.forward(params, part, need_cache=False)
                logits[start : start + size] = to_host(found)

        starts = range(0, n, size)
        if on_gpu:
            for start in starts:
                run(start)
            return logits
        self.map(run, starts)
        return logits
