"""Linear: y = x w + b. Learn its backward well; patch embedding, attention and MLP are made of it."""

from typing import Any

from ..backend.arrays import Array, as_rows, col_sum, matmul
from ..params import Buffer, Initialiser, Param, xavier, zeros

Cache = tuple[Array, Array, bool]


def linear_forward(x: Array, w: Array, b: Array | None) -> tuple[Array, Cache]:
    """x (..., I), w (I, O), b (O,) or None  ->  y (..., O), cache."""
    y = matmul(as_rows(x), w)
    if b is not None:
        y += b
    return y.reshape(*x.shape[:-1], w.shape[1]), (x, w, b is not None)


def linear_backward(
    dy: Array, cache: Cache, need_dx: bool = True
) -> tuple[Array | Any, Array, Array | Any]:
    """dy (..., O)  ->  dx (..., I) or None, dw (I, O), db (O,) or None.

    With n for a row (all the leading axes at once), y_no = sum_i x_ni w_io + b_o. The loss feels x_ni through every
    y_no, o = 1..O, each with weight w_io; it feels w_io through every row n, and b_o likewise:

        dx_ni = sum_o dy_no w_io     dw_io = sum_n x_ni dy_no     db_o = sum_n dy_no
        dx    = dy w'                dw    = x' dy                db   = column sums of dy
    """
    x, w, has_bias = cache
    dy_rows = as_rows(dy)
    dx = matmul(dy_rows, w.T).reshape(x.shape) if need_dx else None
    dw = matmul(as_rows(x).T, dy_rows)
    db = col_sum(dy) if has_bias else None
    return dx, dw, db


class Linear:
    """I features in, O features out. Weights: w (I, O), and b (O,) unless bias=False."""

    def __init__(
        self, d_in: int, d_out: int, bias: bool = True, init: Initialiser = xavier
    ) -> None:
        self.w = Param((d_in, d_out), init, decay=True)
        self.b = Param((d_out,), zeros) if bias else None

    def forward(self, params: Buffer, x: Array) -> tuple[Array, Cache]:
        """x (..., I)  ->  y (..., O), cache."""
        return linear_forward(x, params[self.w], params[self.b] if self.b else None)

    def backward(self, dy: Array, cache: Cache, grads: Buffer, need_dx: bool = True) -> Array | Any:
        """dy (..., O)  ->  dx (..., I), None unless need_dx; adds dw, db into grads."""
        dx, dw, db = linear_backward(dy, cache, need_dx)
        grads[self.w] += dw
        if self.b:
            grads[self.b] += db
        return dx
