"""Softmax turns a row of scores into probabilities.

    y_i = exp(x_i) / Σ_j exp(x_j)

Attention needs weights for an average over tokens, and the loss needs probabilities for
the classes: numbers that are positive, sum to 1, and favour the largest score. For three
scores, with their matrix of derivatives (backward gives the product with this matrix
without building it):

>>> import numpy as np
>>> y, _ = softmax_forward(np.array([1.0, 2.0, 3.0]))
>>> y.round(3)
array([0.09 , 0.245, 0.665])
>>> jacobian = np.diag(y) - np.outer(y, y)  # ∂y_j/∂x_i, see softmax_backward
>>> jacobian.round(3)
array([[ 0.082, -0.022, -0.06 ],
       [-0.022,  0.185, -0.163],
       [-0.06 , -0.163,  0.223]])
>>> dy = np.array([1.0, 0.0, 0.0])
>>> np.allclose(softmax_backward(dy, y), jacobian @ dy)
True
"""

from ..backend.arrays import Array, get_xp
from ..backend.ops import on_gpu, row_dot, row_sum


@on_gpu
def softmax_forward(x: Array) -> tuple[Array, Array]:
    """x (..., N)  ->  y (..., N) with rows that sum to 1, cache (y itself).

    The maximum c of the row is subtracted first, which keeps exp from overflowing. It changes
    nothing, because exp(x_i - c) = exp(x_i) exp(-c), and the factor exp(-c) cancels.
    """
    e = get_xp(x).exp(x - x.max(-1, keepdims=True))
    y = e / row_sum(e)
    return y, y


@on_gpu
def softmax_backward(dy: Array, y: Array) -> Array:
    """dy (..., N), y (..., N) from forward  ->  dx (..., N).

    With s = Σ_k exp(x_k), y_j = exp(x_j) / s. By the quotient rule

        ∂y_j/∂x_i = (s ∂exp(x_j)/∂x_i - exp(x_j) ∂s/∂x_i) / s²
                  = (δ_ij s exp(x_j) - exp(x_j) exp(x_i)) / s² = y_j (δ_ij - y_i)

    where δ_ij is 1 if i = j and 0 otherwise: ∂exp(x_j)/∂x_i = δ_ij exp(x_j), and
    ∂s/∂x_i = exp(x_i). Every x_i changes every y_j, through the sum, so all of this matrix
    counts and not only its diagonal. The chain rule sums over j:

        dx_i = Σ_j dy_j y_j (δ_ij - y_i) = y_i (dy_i - Σ_j dy_j y_j)
    """
    return y * (dy - row_dot(dy, y))
