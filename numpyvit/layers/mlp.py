"""The MLP of a block: each token by itself, D -> F -> D with a GELU between."""

from ..backend.arrays import Array
from ..params import Buffer
from .gelu import GELU
from .linear import Linear


class MLP:
    """y = gelu(x w1 + b1) w2 + b2. Weights: fc1 (D, F), fc2 (F, D)."""

    def __init__(self, width: int, hidden: int, gelu: str = "tanh") -> None:
        self.fc1 = Linear(width, hidden)
        self.gelu = GELU(gelu)
        self.fc2 = Linear(hidden, width)

    def forward(self, params: Buffer, x: Array) -> tuple[Array, tuple]:
        """x (..., D)  ->  y (..., D), cache."""
        x, c1 = self.fc1.forward(params, x)  # (..., F)
        x, c2 = self.gelu.forward(params, x)
        y, c3 = self.fc2.forward(params, x)  # (..., D)
        return y, (c1, c2, c3)

    def backward(self, dy: Array, cache: tuple, grads: Buffer) -> Array:
        """dy (..., D)  ->  dx (..., D); adds the gradients of both layers into grads. Forward, read upwards."""
        c1, c2, c3 = cache
        dx = self.fc2.backward(dy, c3, grads)
        dx = self.gelu.backward(dx, c2, grads)
        return self.fc1.backward(dx, c1, grads)
