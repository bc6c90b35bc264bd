"""The classification head: features of an image to class scores (logits).

Either one linear layer, or, as in the ViT paper's pre-training, a hidden layer with its nonlinearity (tanh, as in the
paper's code) before it. Without the nonlinearity two linear layers would be one.
"""

from ..backend.arrays import Array, get_xp
from ..params import Buffer, zeros
from .linear import Linear


def tanh_forward(x: Array) -> tuple[Array, Array]:
    """x (...)  ->  y (...), cache (y itself)."""
    y = get_xp(x).tanh(x)
    return y, y


def tanh_backward(dy: Array, y: Array) -> Array:
    """dy (...), y (...) from forward  ->  dx (...): tanh' = 1 - tanh^2."""
    return dy * (1 - y * y)


class Head:
    """D -> K, or D -> hidden -> K. The last layer starts at zero: every class is equally likely, the loss is ln K."""

    def __init__(self, width: int, classes: int, hidden: int = 0) -> None:
        self.hidden = Linear(width, hidden) if hidden else None
        self.out = Linear(hidden or width, classes, init=zeros)

    def forward(self, params: Buffer, x: Array) -> tuple[Array, tuple]:
        """x (B, D)  ->  logits (B, K), cache."""
        c1 = c2 = None
        if self.hidden:
            x, c1 = self.hidden.forward(params, x)  # (B, hidden)
            x, c2 = tanh_forward(x)
        logits, c3 = self.out.forward(params, x)  # (B, K)
        return logits, (c1, c2, c3)

    def backward(self, dlogits: Array, cache: tuple, grads: Buffer) -> Array:
        """dlogits (B, K)  ->  dx (B, D); adds the weights' gradients into grads."""
        c1, c2, c3 = cache
        dx = self.out.backward(dlogits, c3, grads)
        if self.hidden:
            dx = tanh_backward(dx, c2)
            dx = self.hidden.backward(dx, c1, grads)
        return dx
