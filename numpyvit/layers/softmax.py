"""Softmax over the last axis: scores to probabilities, y_i = exp(x_i) / sum_j exp(x_j)."""

from ..backend.arrays import Array, get_xp, row_dot, row_sum


def softmax_forward(x: Array) -> tuple[Array, Array]:
    """x (..., N)  ->  y (..., N) with rows that sum to 1, cache (y itself).

    Taking the row's maximum off first changes nothing (it cancels in the quotient) and keeps exp from overflowing.
    """
    e = get_xp(x).exp(x - x.max(-1, keepdims=True))
    y = e / row_sum(e)
    return y, y


def softmax_backward(dy: Array, y: Array) -> Array:
    """dy (..., N), y (..., N) from forward  ->  dx (..., N).

    Every x_i is in every y_j, through the sum: dy_j / dx_i = y_j ([i = j] - y_i), where [i = j] is 1 if so and else 0.
    The whole matrix counts, not its diagonal alone.
    Summed against the incoming gradient:   dx_i = y_i (dy_i - sum_j dy_j y_j).
    """
    return y * (dy - row_dot(dy, y))
