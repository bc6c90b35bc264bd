"""Stochastic gradient descent with momentum."""

from typing import Any

from ..errors import check_number
from ..params import Buffer
from .base import Map, Optimizer, blocks


class SGD(Optimizer):
    """Momentum with decoupled weight decay:

        v = momentum * v + g,    p = p - lr * (v + weight_decay * p)

    The learning rate scales the step and not what v accumulates, so a schedule acts at
    once. average: as for Optimizer.
    """

    def __init__(
        self,
        params: Buffer,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        average: float = 0.0,
    ) -> None:
        super().__init__(params, weight_decay, average)
        check_number("momentum", momentum, least=0, below=1)
        self.momentum = momentum
        self.v = params.zeros_like()

    def update(self, params: Buffer, grads: Buffer, numbers: Any, scale: Any, map: Map) -> None:
        """Update the weights and v in place; the gradients count `scale` times."""
        lr, average_factor = numbers
        for at, decay in blocks(params):
            p, g, v = params.flat[at], grads.flat[at], self.v.flat[at]
            v *= self.momentum
            v += scale * g
            if decay and self.weight_decay:
                p *= 1 - lr * self.weight_decay
            p -= lr * v
            self.follow(at, params, average_factor)

    def buffers(self) -> dict[str, Buffer]:
        """Return the Buffers that a checkpoint keeps, by name."""
        return {"v": self.v} | super().buffers()
