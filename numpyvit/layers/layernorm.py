"""Layer normalisation (Ba, Kiros and Hinton, 2016).

Each token is shifted and scaled so that its D features have mean 0 and standard deviation
1; then each feature gets a learned scale γ and shift β. Whatever the earlier layers do to
the size of the features, the next layer receives them at the same scale, and training
stays stable at high learning rates and in deep models.

>>> import numpy as np
>>> x = np.array([[1.0, 2.0, 3.0, 6.0]])  # mean 3, variance 3.5
>>> y, cache = layernorm_forward(x, np.ones(4), np.zeros(4), eps=0.0)
>>> y.round(3)
array([[-1.069, -0.535,  0.   ,  1.604]])
>>> dx, dgamma, dbeta = layernorm_backward(np.array([[1.0, 0.0, 0.0, 0.0]]), cache)
>>> dx.round(3)  # sums to 0 and is orthogonal to y, except for rounding
array([[ 0.248, -0.21 , -0.134,  0.095]])
"""

from ..backend.arrays import Array, get_xp
from ..backend.ops import col_sum, on_gpu, row_dot, row_mean
from ..errors import check_number, check_sizes
from ..params import Buffer, Param, ones, zeros

Cache = tuple[Array, Array, Array]


@on_gpu
def layernorm_forward(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Cache]:
    """x (..., D), gamma (D,), beta (D,)  ->  y (..., D), cache.

    x̂ = (x - mean) rstd,    rstd = 1 / √(var + eps),    y = γ x̂ + β

    rstd is the reciprocal of the standard deviation. The variance divides by D, not by
    D - 1. eps is a small positive number that keeps a constant token from dividing by 0.
    The sum of the squares of x - mean must not overflow, as it does in float32 if features
    differ by about 1e19 / √D or more: rstd would be 0, and y would be β.
    """
    D = x.shape[-1]
    xhat = x - row_mean(x)  # x - mean; times rstd, below, it is x̂
    var = row_dot(xhat, xhat) / D  # (..., 1)
    rstd = 1 / get_xp(x).sqrt(var + eps)  # (..., 1)
    xhat *= rstd
    y = xhat * gamma
    y += beta
    return y, (xhat, rstd, gamma)


@on_gpu
def layernorm_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dy (..., D)  ->  dx (..., D), dgamma (D,), dbeta (D,).

    y_nj = γ_j x̂_nj + β_j for each row n, so γ_j and β_j receive a term from every row,

        dγ_j = Σ_n dy_nj x̂_nj,    dβ_j = Σ_n dy_nj,    and x̂ receives g = γ dy.

    A change of x_i changes x̂_j = (x_j - mean) rstd in three ways: the derivative of each
    factor, and what the product rule multiplies it by,

        directly, if i = j:        ∂(x_j)/∂x_i = δ_ij                      times rstd
        through the mean:          ∂mean/∂x_i = 1/D                        times -rstd
        through rstd:              ∂var/∂x_i = 2 (x_i - mean) / D,  hence
                                   ∂rstd/∂x_i = -½ rstd³ ∂var/∂x_i
                                              = -rstd² x̂_i / D            times (x_j - mean)

    (∂var/∂x_i has no term from the mean, because Σ_j (x_j - mean) = 0.) With
    x̂_j / rstd for x_j - mean in the third contribution, their sum is

        ∂x̂_j/∂x_i = rstd (δ_ij - 1/D - x̂_i x̂_j / D),

    and summing g_j ∂x̂_j/∂x_i over j

        dx = rstd (g - mean(g) - x̂ mean(g x̂)).

    The gradient loses its components along (1, ..., 1) and along x̂ (along x̂ exactly only
    for eps = 0, and very nearly for the tiny eps in use): these are the two directions in
    which a change of x is undone by the normalisation.
    """
    xhat, rstd, gamma = cache
    D = dy.shape[-1]
    g = dy * gamma
    dx = xhat * (row_dot(g, xhat) / -D)  # -x̂ mean(g x̂)
    dx += g  # g - x̂ mean(g x̂)
    dx -= row_mean(g)  # g - mean(g) - x̂ mean(g x̂)
    dx *= rstd
    dgamma = col_sum(dy * xhat)
    dbeta = col_sum(dy)
    return dx, dgamma, dbeta


class LayerNorm:
    """Weights: gamma (D,), initially ones, and beta (D,), initially zeros."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        check_sizes(width=width)
        check_number("eps", eps, above=0)
        self.eps = eps
        self.gamma = Param((width,), ones)
        self.beta = Param((width,), zeros)

    def forward(self, params: Buffer, x: Array) -> tuple[Array, Cache]:
        """x (..., D)  ->  y (..., D), cache."""
        return layernorm_forward(x, params[self.gamma], params[self.beta], self.eps)

    def backward(self, dy: Array, cache: Cache, grads: Buffer) -> Array:
        """dy (..., D)  ->  dx (..., D); adds dgamma, dbeta into grads."""
        dx, dgamma, dbeta = layernorm_backward(dy, cache)
        grads[self.gamma] += dgamma
        grads[self.beta] += dbeta
        return dx
