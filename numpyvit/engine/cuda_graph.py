"""A training step on a GPU, whole: forward, backward, clipping and update, as one CUDA graph.

A step of a tiny model is some hundreds of kernels of a few microseconds each, and Python takes longer to ask for them than
the GPU to run them. So they are asked for once, while the GPU takes down what it is asked; after that a step is one launch.
What the kernels read and write then lies where it lay: what is new in a step is copied to its place before.
"""

import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from ..backend.arrays import Array, get_xp
from ..optim.adamw import AdamW, clip_factor, grad_norm, one_by_one
from ..params import Buffer
from .loss_scale import LossScale
from .workers import Workers


class Tape:
    """Stands in for a random generator: its numbers lie on the GPU, in places that stay."""

    def __init__(self, rng: np.random.Generator, xp: Any) -> None:
        self.rng, self.xp, self.at = rng, xp, -1
        self.places: list[Any] = []

    def integers(
        self, low: int, high: int, size: int | tuple[int, ...], dtype: Any, endpoint: bool = False
    ) -> Array:
        """As the generator's; or, after rewind, the next place."""
        if self.at < 0:
            self.places.append(
                self.xp.asarray(self.rng.integers(low, high, size, dtype, endpoint=endpoint))
            )
            return self.places[-1]
        self.at += 1
        return self.places[self.at - 1]

    def rewind(self) -> "Tape":
        self.at = 0
        return self

    def fill(self, rng: np.random.Generator) -> None:
        """All places anew, by another generator, in the same order."""
        for place in self.places:
            place[...] = self.xp.asarray(rng.integers(0, 2**64, place.shape, place.dtype))


class GraphStep:
    """step(images, labels, index, lr) trains `params` on a batch, on the GPU where they are, on the current stream.

    clip: the gradients' largest norm. capture: as a graph; else kernel by kernel. scale: of the loss, for float16. The first
    step of a kind (shape of the batch, with all patches or not) runs kernel by kernel, in the room that the graphs had; the
    second one is taken down.
    """

    def __init__(
        self,
        workers: Workers,
        params: Buffer,
        optimizer: AdamW,
        clip: float | None = None,
        capture: bool = True,
        scale: LossScale | None = None,
    ) -> None:
        self.workers, self.params, self.optimizer, self.clip, self.scale = (
            workers,
            params,
            optimizer,
            clip,
            scale,
        )
        self.capture = capture
        self.xp: Any = get_xp(params.flat)
        self.tapes: dict[Any, Tape] = {}
        self.graphs: dict[Any, tuple[Any, Sequence[Array], Sequence[Array]]] = {}
        self.pool = self.xp.cuda.MemoryPool(self.more)  # the graphs' memory is nobody else's

    def __call__(
        self, images: Array, labels: Array, index: int, lr: float, all_patches: bool = False
    ) -> tuple[Array, Array]:
        """images (B, H, W, C), labels (B,) or (B, K), the number of the step, its rate  ->  loss, the gradients' norm before
        clipping: arrays of no dimension, for which nothing has waited."""
        inputs = images, labels, self.optimizer.begin_step(lr, self.params.flat)
        draws = partial(self.workers.draws, index, 0)
        kind = images.shape, labels.shape, labels.dtype.char, all_patches
        if self.capture and kind not in self.tapes:
            self.close()
            self.tapes[kind] = Tape(draws(), self.xp)
            return self.work(inputs, self.tapes[kind], all_patches)
        if not self.capture or not (
            kind in self.graphs or self.record(kind, inputs, self.tapes[kind], all_patches)
        ):
            return self.work(inputs, draws(), all_patches)
        graph, places, (loss, norm) = self.graphs[kind]
        for place, new in zip(places, inputs, strict=True):
            place[...] = new
        if self.tapes[kind].places:
            self.tapes[kind].fill(draws())
        graph.launch()
        return loss.copy(), norm.copy()

    def work(self, inputs: Sequence[Any], rng: Any, all_patches: bool) -> tuple[Array, Array]:
        """The step itself."""
        images, labels, numbers = inputs
        loss, grads = self.workers.piece(
            self.params,
            images,
            labels,
            rng,
            len(images),
            self.params.zeros_like(),
            all_patches,
            self.scale and self.scale.value,
        )
        if self.scale:
            self.scale.unscale(grads)
        norm = grad_norm(grads)
        self.optimizer.update(self.params, grads, numbers, clip_factor(norm, self.clip), one_by_one)
        return loss, norm

    def record(self, kind: Any, inputs: Sequence[Any], tape: Tape, all_patches: bool) -> bool:
        """Take the step down, without doing it. Where that fails, warn, and go on without."""
        cuda = self.xp.cuda
        places, stream = [self.xp.empty_like(a) for a in inputs], cuda.get_current_stream()
        self.xp.get_default_memory_pool().free_all_blocks()  # what the step before kept for a next one like it
        try:
            stream.begin_capture()
            with cuda.using_allocator(self.pool.malloc):
                outputs = self.work(places, tape.rewind(), all_patches)
            self.graphs[kind] = stream.end_capture(), places, outputs
        except BaseException as error:
            with suppress(Exception):  # what broke it is said below
                stream.end_capture()
            if not isinstance(error, Exception):
                raise
            why = str(error)
        else:
            return True
        self.close()  # here, where no traceback keeps the step's arrays
        self.capture = False
        warnings.warn(
            f"the training step cannot be captured as a CUDA graph, and goes on kernel by kernel: {why}",
            RuntimeWarning,
            stacklevel=3,
        )
        return False

    def more(self, size: int) -> Any:
        """Memory for the pool. Raises MemoryError where there is none: of an error of CUDA's the pool would free, to try
        again, what graphs write to."""
        cuda = self.xp.cuda
        try:
            return cuda.MemoryPointer(cuda.Memory(size), 0)
        except cuda.runtime.CUDARuntimeError as error:
            raise MemoryError(str(error)) from None

    def close(self) -> None:
        """Give the graphs' memory back. (A step after that captures anew.)"""
        if self.graphs:
            self.xp.cuda.get_current_stream().synchronize()  # the last one may still run
        self.graphs.clear()
        self.pool.free_all_blocks()
