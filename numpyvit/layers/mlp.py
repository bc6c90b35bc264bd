"""The MLP of a block: it processes each token by itself, D -> F -> D.

Attention moves information between tokens; the MLP then works on what each token has
gathered. Its hidden width F is larger than D (2 to 4 times), so the nonlinearity acts on
more features than a token has; fc2 then combines them into D features again.
"""

from ..backend.arrays import Array
from ..errors import check_sizes
from ..params import Buffer
from .gelu import GELU
from .linear import Linear


class MLP:
    """y = fc2(gelu(fc1(x))). Weights: fc1.w (D, F), fc1.b (F,), fc2.w (F, D), fc2.b (D,)."""

    def __init__(self, width: int, hidden: int, gelu: str = "tanh") -> None:
        check_sizes(width=width, hidden=hidden)
        self.fc1 = Linear(width, hidden)
        self.gelu = GELU(gelu)
        self.fc2 = Linear(hidden, width)

    def forward(self, params: Buffer, x: Array) -> tuple[Array, tuple]:
        """x (..., D)  ->  y (..., D), cache."""
        x, c_fc1 = self.fc1.forward(params, x)  # (..., F)
        x, c_gelu = self.gelu.forward(params, x)
        y, c_fc2 = self.fc2.forward(params, x)  # (..., D)
        return y, (c_fc1, c_gelu, c_fc2)

    def backward(self, dy: Array, cache: tuple, grads: Buffer) -> Array:
        """dy (..., D)  ->  dx (..., D); adds the weights' gradients into grads.

        A composite layer's backward is its forward read from bottom to top: each part
        turns the gradient of its output into the gradient of its input, which is the
        gradient of the output of the part before it.
        """
        c_fc1, c_gelu, c_fc2 = cache
        dx = self.fc2.backward(dy, c_fc2, grads)  # (..., F)
        dx = self.gelu.backward(dx, c_gelu, grads)
        return self.fc1.backward(dx, c_fc1, grads)  # (..., D)
