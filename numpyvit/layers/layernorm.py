"""Layer normalisation (Ba, Kiros and Hinton, 2016): each token, over its D features, to mean 0 and deviation 1."""

from ..backend.arrays import Array, col_sum, fused, get_xp, row_dot, row_mean
from ..params import Buffer, Param, ones, zeros

Cache = tuple[Array, Array, Array]


def layernorm_forward(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Cache]:
    """x (..., D), gamma (D,), beta (D,)  ->  y (..., D), cache.

    xhat = (x - mean) / sqrt(var + eps),   y = gamma * xhat + beta.   var divides by D, not by D - 1.
    """
    D = x.shape[-1]
    xhat = x - row_mean(x)
    rstd = 1 / get_xp(x).sqrt(row_dot(xhat, xhat) / D + eps)  # (..., 1)
    xhat *= rstd
    y = xhat * gamma
    y += beta
    return y, (xhat, rstd, gamma)


def layernorm_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dy (..., D)  ->  dx (..., D), dgamma (D,), dbeta (D,).

    With g = dy * gamma for the gradient of xhat = (x - mean) * rstd. A step of x_i moves xhat_j in three ways: directly,
    where i = j; through the mean, which moves by 1 / D; and through rstd = (var + eps)^-1/2, which moves by
    -rstd^3 (x_i - mean) / D = -rstd^2 xhat_i / D. Together, with [i = j] for 1 where that holds and else 0,

        dxhat_j / dx_i = rstd * ([i = j] - 1/D - xhat_i xhat_j / D)

    Summing g_j over j gives   dx = rstd * (g - mean(g) - xhat * mean(g * xhat)):
    the gradient loses its part along (1, ..., 1) and along xhat, the two directions that normalising erases.
    """
    xhat, rstd, gamma = cache
    D = dy.shape[-1]
    g = dy * gamma
    dx = xhat * (row_dot(g, xhat) / -D)
    dx += g
    dx -= row_mean(g)
    dx *= rstd
    return dx, col_sum(dy * xhat), col_sum(dy)


class LayerNorm:
    """Weights: gamma (D,) from ones, beta (D,) from zeros."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        self.eps = eps
        self.gamma = Param((width,), ones)
        self.beta = Param((width,), zeros)

    def forward(self, params: Buffer, x: Array) -> tuple[Array, Cache]:
        """x (..., D)  ->  y (..., D), cache."""
        return fused(layernorm_forward, x)(x, params[self.gamma], params[self.beta], self.eps)

    def backward(self, dy: Array, cache: Cache, grads: Buffer) -> Array:
        """dy (..., D)  ->  dx (..., D); adds dgamma, dbeta into grads."""
        dx, dgamma, dbeta = fused(layernorm_backward, dy)(dy, cache)
        grads[self.gamma] += dgamma
        grads[self.beta] += dbeta
        return dx
