"""The CPU's engine: the micro-batches of a step are shared out among threads."""

import math
from contextlib import ExitStack

from ..backend.arrays import Array
from ..data import Dataset
from ..optim.base import Optimizer
from ..params import Buffer
from .workers import Workers


class ThreadEngine:
    """An Engine (see base.py) that trains `params` with `workers`.

    The threads run from the moment the engine is made until it is closed. clip is the
    largest norm of the gradients, or None.
    """

    def __init__(
        self, workers: Workers, params: Buffer, optimizer: Optimizer, clip: float | None = None
    ) -> None:
        self.workers = workers
        self.params = params
        self.optimizer = optimizer
        self.clip = clip
        self._stack = ExitStack()
        self._stack.enter_context(workers)

    def step(
        self, images: Array, labels: Array, index: int, lr: float, patches: int | None = None
    ) -> tuple[float, float]:
        """Train the weights on one batch; see Engine.step."""
        loss, grads = self.workers.loss_and_grad(self.params, images, labels, index, patches)
        if not math.isfinite(loss):
            return loss, math.nan
        return loss, self.optimizer.step(self.params, grads, lr, self.clip, self.workers.map)

    def predict(self, data: Dataset | Array) -> Array:
        """Return logits (n, K) of the averaged weights; see Engine.predict."""
        return self.workers.predict(self.optimizer.average, data)

    def close(self) -> None:
        """Stop the threads and undo the process-wide settings."""
        self._stack.close()
