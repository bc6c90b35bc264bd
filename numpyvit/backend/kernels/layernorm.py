"""Layer normalisation on a GPU: a warp normalises a row."""

from ..arrays import Array, contiguous, get_xp
from .columns import column_sums
from .launch import WARP_SUM, by_rows

Cache = tuple[Array, Array, Array]

CODE = (
    WARP_SUM
    + """
extern "C" __global__ void layernorm_forward(
        const T* x, const T* gamma, const T* beta, T eps, T* y, T* xhat, T* rstd, long long D,
        long long rows) {
    long long row = (long long)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;  // a whole warp
    x += row * D, y += row * D, xhat += row * D;
    T sum = 0, squares = 0;
    for (long long i = threadIdx.x % 32; i < D; i += 32) sum += x[i];
    T mean = warp_sum(sum) / D;
    for (long long i = threadIdx.x % 32; i < D; i += 32) squares += (x[i] - mean) * (x[i] - mean);
    T r = 1 / sqrt(warp_sum(squares) / D + eps);
    for (long long i = threadIdx.x % 32; i < D; i += 32) {
        T h = (x[i] - mean) * r;
        xhat[i] = h;
        y[i] = h * gamma[i] + beta[i];
    }
    if (threadIdx.x % 32 == 0) rstd[row] = r;
}

extern "C" __global__ void layernorm_backward(
        const T* dy, const T* xhat, const T* rstd, const T* gamma, T* dx, long long D,
        long long rows) {
    long long row = (long long)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    dy += row * D, xhat += row * D, dx += row * D;
    T g = 0, gx = 0;
    for (long long i = threadIdx.x % 32; i < D; i += 32)
        g += dy[i] * gamma[i], gx += dy[i] * gamma[i] * xhat[i];
    g = warp_sum(g) / D, gx = warp_sum(gx) / D;
    for (long long i = threadIdx.x % 32; i < D; i += 32)
        dx[i] = rstd[row] * (dy[i] * gamma[i] - g - xhat[i] * gx);
}
"""
)


def layernorm_forward(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Cache]:
    """x (..., D), gamma (D,), beta (D,)  ->  y (..., D), cache."""
    xp = get_xp(x)
    x = contiguous(x)
    D = x.shape[-1]
    rows = x.size // D
    y, xhat, rstd = xp.empty_like(x), xp.empty_like(x), xp.empty(rows, x.dtype)
    arrays = (x, contiguous(gamma), contiguous(beta), float(eps), y, xhat, rstd)
    by_rows(CODE, "layernorm_forward", rows, *arrays, D, dtype=x.dtype)
    return y, (xhat, rstd, gamma)


def layernorm_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dy (..., D)  ->  dx (..., D), dgamma (D,), dbeta (D,)."""
    xhat, rstd, gamma = cache
    dy = contiguous(dy)
    D = dy.shape[-1]
    rows = dy.size // D
    dx = get_xp(dy).empty_like(dy)
    arrays = (dy, xhat, rstd, contiguous(gamma), dx)
    by_rows(CODE, "layernorm_backward", rows, *arrays, D, dtype=dy.dtype)
    dbeta, dgamma = column_sums(dy, xhat)
    return dx, dgamma, dbeta
