"""The linear layer, y = x w + b.

Every output feature is a weighted sum of the input features plus a constant. Patch
embedding, attention, the MLP and the head are all built from this layer, so its backward
is the one to learn well.

With one row and two features in and out:

>>> import numpy as np
>>> x, w, b = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [5.0, 6.0]]), np.array([0.5, 0.0])
>>> y, cache = linear_forward(x, w, b)
>>> y  # 1*3 + 2*5 + 0.5,  1*4 + 2*6
array([[13.5, 16. ]])
>>> dx, dw, db = linear_backward(np.array([[1.0, 0.0]]), cache)  # if only y[0, 0] matters
>>> dx  # the weights by which x was multiplied in y[0, 0]
array([[3., 5.]])
>>> dw  # the features that w[:, 0] was multiplied by
array([[1., 0.],
       [2., 0.]])
"""

from typing import Any

from ..backend.arrays import Array, as_rows
from ..backend.ops import col_sum, matmul
from ..errors import check_bool, check_sizes
from ..params import Buffer, Initialiser, Param, xavier, zeros

Cache = tuple[Array, Array, bool]


def linear_forward(x: Array, w: Array, b: Array | None) -> tuple[Array, Cache]:
    """x (..., I), w (I, O), b (O,) or None  ->  y (..., O), cache.

    y = x w + b. The leading axes are flattened into n rows: (B, N, I) becomes (B * N, I).
    """
    y = matmul(as_rows(x), w)  # (n, O)
    if b is not None:
        y += b
    return y.reshape(*x.shape[:-1], w.shape[1]), (x, w, b is not None)


def linear_backward(
    dy: Array, cache: Cache, need_dx: bool = True
) -> tuple[Array | Any, Array, Array | Any]:
    """dy (..., O)  ->  dx (..., I) or None, dw (I, O), db (O,) or None.

    Written with indices, where x_ni is feature i of row n, y_no = Σ_i x_ni w_io + b_o. The
    loss L depends on x_ni through every output y_no of the same row, and ∂y_no/∂x_ni = w_io,
    so by the chain rule

        ∂L/∂x_ni = Σ_o ∂L/∂y_no ∂y_no/∂x_ni = Σ_o dy_no w_io        dx = dy wᵀ

    In the same way L depends on w_io and b_o through every row n:

        ∂L/∂w_io = Σ_n dy_no x_ni                                   dw = xᵀ dy
        ∂L/∂b_o  = Σ_n dy_no                                        db = column sums of dy

    need_dx=False skips dx: nobody needs the gradient of the images that enter the model.
    """
    x, w, has_bias = cache
    dy_rows = as_rows(dy)  # (n, O)
    dx = matmul(dy_rows, w.T).reshape(x.shape) if need_dx else None
    dw = matmul(as_rows(x).T, dy_rows)
    db = col_sum(dy) if has_bias else None
    return dx, dw, db


class Linear:
    """I features in, O features out. Weights: w (I, O), and b (O,) unless bias=False."""

    def __init__(
        self, d_in: int, d_out: int, bias: bool = True, init: Initialiser = xavier
    ) -> None:
        check_sizes(d_in=d_in, d_out=d_out)
        check_bool("bias", bias)
        self.w = Param((d_in, d_out), init, decay=True)
        self.b = Param((d_out,), zeros) if bias else None

    def forward(self, params: Buffer, x: Array) -> tuple[Array, Cache]:
        """x (..., I)  ->  y (..., O), cache."""
        return linear_forward(x, params[self.w], params[self.b] if self.b else None)

    def backward(self, dy: Array, cache: Cache, grads: Buffer, need_dx: bool = True) -> Array | Any:
        """dy (..., O)  ->  dx (..., I), or None unless need_dx; adds dw, db into grads."""
        dx, dw, db = linear_backward(dy, cache, need_dx)
        grads[self.w] += dw
        if self.b:
            grads[self.b] += db
        return dx
