"""The GPU's engine: a whole training step as one CUDA graph.

A step of a tiny model is some hundreds of kernels of a few microseconds each, and
Python takes longer to launch them than the GPU takes to run them. So the first steps
are recorded as a CUDA graph, and later steps replay it with one launch. A graph reads
and writes fixed addresses, so the inputs of a step are first copied to where the graph
expects them.
"""

import warnings
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..backend.arrays import Array, get_xp
from ..backend.device import stream
from ..backend.kernels.gemm import precision as matmul_precision
from ..data import Dataset
from ..optim.base import Optimizer, clip_factor, grad_norm, serial_map
from ..params import Buffer
from .loss_scale import LossScale
from .workers import Workers


class Tape:
    """Stands in for a random generator whose numbers lie at fixed addresses on the GPU.

    At first it passes on the generator's numbers and remembers where they lie. After
    `rewind` it hands out the same arrays again, in the same order; `fill` overwrites
    all of them with the numbers of another generator.
    """

    def __init__(self, rng: np.random.Generator, xp: Any) -> None:
        self.rng = rng
        self.xp = xp
        self.at = -1  # the number of arrays handed out since `rewind`; -1 before it
        self.places: list[Any] = []

    def integers(
        self, low: int, high: int, size: int | tuple[int, ...], dtype: Any, endpoint: bool = False
    ) -> Array:
        """Return the generator's integers, or after `rewind` a remembered array."""
        if self.at < 0:
            numbers = self.rng.integers(low, high, size, dtype, endpoint=endpoint)
            self.places.append(self.xp.asarray(numbers))
            return self.places[-1]
        self.at += 1
        return self.places[self.at - 1]

    def rewind(self) -> "Tape":
        """Start handing out the remembered arrays, and return the tape itself."""
        self.at = 0
        return self

    def fill(self, rng: np.random.Generator) -> None:
        """Overwrite all remembered arrays, in order, with this generator's numbers."""
        for place in self.places:
            place[...] = self.xp.asarray(rng.integers(0, 2**64, place.shape, place.dtype))


class Graph(NamedTuple):
    """A recorded step, the arrays that it reads and the arrays that it returns."""

    graph: Any
    inputs: Sequence[Array]
    outputs: tuple[Array, Array]


class GraphEngine:
    """An Engine (see base.py) for a GPU that holds `params` and the optimizer's state.

    From the moment the engine is made until it is closed, the calling thread's work on
    the GPU goes to a stream of the engine, and float32 products have the given
    precision. loss_scale is wanted for float16. With capture=False each step runs
    kernel by kernel.

    Steps that differ in shape or in `patches` have a graph each. The first step of a
    kind runs kernel by kernel, after the memory of the graphs has been released, so
    that it has room; the second is recorded.
    """

    def __init__(
        self,
        workers: Workers,
        params: Buffer,
        optimizer: Optimizer,
        clip: float | None = None,
        *,
        device: str = "cuda",
        precision: str = "float32",
        loss_scale: LossScale | None = None,
        capture: bool = True,
    ) -> None:
        self.workers = workers
        self.params = params
        self.optimizer = optimizer
        self.clip = clip
        self.loss_scale = loss_scale
        self.capture = capture
        self.xp: Any = get_xp(params.flat)
        self.tapes: dict[Any, Tape] = {}
        self.graphs: dict[Any, Graph] = {}
        self.pool = self.xp.cuda.MemoryPool(self.allocate)  # only graphs use this memory
        self._stack = ExitStack()
        self._stack.enter_context(matmul_precision(precision))
        self._stack.enter_context(stream(device))

    def step(
        self, images: Array, labels: Array, index: int, lr: float, patches: int | None = None
    ) -> tuple[Array, Array]:
        """Train the weights on one batch; see Engine.step."""
        inputs = images, labels, self.optimizer.begin_step(lr, self.params.flat)
        new_rng = partial(self.workers.dropout_rng, index, 0)
        kind = images.shape, labels.shape, labels.dtype.char, patches
        if not self.capture:
            return self.compute(inputs, new_rng(), patches)
        if kind not in self.tapes:
            self.release_graphs()
            self.tapes[kind] = Tape(new_rng(), self.xp)
            return self.compute(inputs, self.tapes[kind], patches)
        tape = self.tapes[kind]
        if kind not in self.graphs and not self.record(kind, inputs, tape, patches):
            return self.compute(inputs, new_rng(), patches)
        recorded = self.graphs[kind]
        for place, value in zip(recorded.inputs, inputs, strict=True):
            place[...] = value
        if tape.places:
            tape.fill(new_rng())
        recorded.graph.launch()
        loss, norm = recorded.outputs
        return loss.copy(), norm.copy()

    def predict(self, data: Dataset | Array) -> Array:
        """Return logits (n, K) of the averaged weights; see Engine.predict."""
        return self.workers.predict(self.optimizer.average, data)

    def close(self) -> None:
        """Release the graphs' memory, wait for the GPU, and leave its stream."""
        self.release_graphs()
        self._stack.close()

    def compute(self, inputs: Sequence[Any], rng: Any, patches: int | None) -> tuple[Array, Array]:
        """Compute one step: forward, backward, clipping and update."""
        images, labels, numbers = inputs
        loss, grads = self.workers.micro_step(
            self.params,
            images,
            labels,
            rng,
            len(images),
            self.params.zeros_like(),
            patches,
            self.loss_scale and self.loss_scale.value,
        )
        if self.loss_scale:
            self.loss_scale.unscale(grads)
        norm = grad_norm(grads)
        self.optimizer.update(self.params, grads, numbers, clip_factor(norm, self.clip), serial_map)
        return loss, norm

    def record(self, kind: Any, inputs: Sequence[Any], tape: Tape, patches: int | None) -> bool:
        """Record a step without computing it; if that fails, warn and return False."""
        cuda = self.xp.cuda
        places = [self.xp.empty_like(a) for a in inputs]
        current = cuda.get_current_stream()
        self.xp.get_default_memory_pool().free_all_blocks()  # left over from the step before
        try:
            current.begin_capture()
            with cuda.using_allocator(self.pool.malloc):
                outputs = self.compute(places, tape.rewind(), patches)
            self.graphs[kind] = Graph(current.end_capture(), places, outputs)
        except BaseException as error:
            with suppress(Exception):  # the warning below reports the first error
                current.end_capture()
            if not isinstance(error, Exception):
                raise
            why = str(error)
        else:
            return True
        self.release_graphs()  # here, where no traceback keeps the step's arrays alive
        self.capture = False
        warnings.warn(
            "the training step cannot be captured as a CUDA graph and runs kernel by kernel: "
            f"{why}",
            RuntimeWarning,
            stacklevel=3,
        )
        return False

    def allocate(self, size: int) -> Any:
        """Return GPU memory for the graphs' pool; raise MemoryError if there is none.

        At an error of CUDA's own the pool would release memory, which graphs write to,
        and try again.
        """
        cuda = self.xp.cuda
        try:
            return cuda.MemoryPointer(cuda.Memory(size), 0)
        except cuda.runtime.CUDARuntimeError as error:
            raise MemoryError(str(error)) from None

    def release_graphs(self) -> None:
        """Drop the graphs and release their memory; later steps record new ones."""
        if self.graphs:
            self.xp.cuda.get_current_stream().synchronize()  # the last launch may still run
        self.graphs.clear()
        self.pool.free_all_blocks()
