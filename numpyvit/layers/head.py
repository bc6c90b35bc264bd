"""The classification head: the features of an image become class scores (logits).

Usually it is one linear layer. A hidden layer with a tanh can come before it, as the ViT
paper's code has it in pre-training.
"""

from ..backend.arrays import Array, get_xp
from ..errors import check_int, check_sizes
from ..params import Buffer, zeros
from .linear import Linear


def tanh_forward(x: Array) -> tuple[Array, Array]:
    """x (...)  ->  y (...), cache (y itself)."""
    y = get_xp(x).tanh(x)
    return y, y


def tanh_backward(dy: Array, y: Array) -> Array:
    """dy (...), y (...) from forward  ->  dx (...).    tanh' = 1 - tanh²."""
    return dy * (1 - y * y)


class Head:
    """D -> K, or D -> hidden -> K.

    The last layer starts at zero, so at first the model gives every class the probability
    1/K, and the loss is ln K. In
    the first step only this layer gets a gradient, because dx = dy wᵀ = 0; from the second
    step on, all layers do.
    """

    def __init__(self, width: int, classes: int, hidden: int = 0) -> None:
        check_sizes(width=width, classes=classes)
        check_int("hidden", hidden)
        self.hidden = Linear(width, hidden) if hidden else None
        self.out = Linear(hidden or width, classes, init=zeros)

    def forward(self, params: Buffer, x: Array) -> tuple[Array, tuple]:
        """x (B, D)  ->  logits (B, K), cache."""
        c_hidden = c_tanh = None
        if self.hidden:
            x, c_hidden = self.hidden.forward(params, x)  # (B, hidden)
            x, c_tanh = tanh_forward(x)
        logits, c_out = self.out.forward(params, x)  # (B, K)
        return logits, (c_hidden, c_tanh, c_out)

    def backward(self, dlogits: Array, cache: tuple, grads: Buffer) -> Array:
        """dlogits (B, K)  ->  dx (B, D); adds the weights' gradients into grads."""
        c_hidden, c_tanh, c_out = cache
        dx = self.out.backward(dlogits, c_out, grads)
        if self.hidden:
            dx = tanh_backward(dx, c_tanh)
            dx = self.hidden.backward(dx, c_hidden, grads)
        return dx
