"""The twins of layers/layernorm.py: a warp normalises a row."""

from ..backend import Array, get_xp
from .launch import THREADS, WARP_SUM, by_rows, launch, solid

Cache = tuple[Array, Array, Array]
CHUNK = 256          # rows whose products one block adds up for dgamma and dbeta

CODE = WARP_SUM + """
extern "C" __global__ void layernorm_forward(const T* x, const T* gamma, const T* beta, T eps, T* y, T* xhat, T* rstd,
                                             long long D, long long rows) {
    long long row = (long long)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;                                              // a whole warp
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

extern "C" __global__ void layernorm_backward(const T* dy, const T* xhat, const T* rstd, const T* gamma, T* dx,
                                              long long D, long long rows) {
    long long row = (long long)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    dy += row * D, xhat += row * D, dx += row * D;
    T g = 0, gx = 0;
    for (long long i = threadIdx.x % 32; i < D; i += 32) g += dy[i] * gamma[i], gx += dy[i] * gamma[i] * xhat[i];
    g = warp_sum(g) / D, gx = warp_sum(gx) / D;
    for (long long i = threadIdx.x % 32; i < D; i += 32) dx[i] = rstd[row] * (dy[i] * gamma[i] - g - xhat[i] * gx);
}

// A block takes 32 columns of `chunk` rows: 8 warps go down the rows, and then their sums are added.
extern "C" __global__ void layernorm_columns(const T* dy, const T* xhat, T* dgamma, T* dbeta, long long D, long long rows,
                                             long long chunk) {
    __shared__ T sums[2][8][32];
    long long groups = (D + 31) / 32, part = blockIdx.x / groups;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    long long column = 32 * (blockIdx.x % groups) + lane;
    long long end = (part + 1) * chunk < rows ? (part + 1) * chunk : rows;
    T a = 0, b = 0;
    if (column < D)
        for (long long r = part * chunk + warp; r < end; r += 8) {
            T d = dy[r * D + column];
            a += d * xhat[r * D + column], b += d;
        }
    sums[0][warp][lane] = a, sums[1][warp][lane] = b;
    __syncthreads();
    if (warp < 2 && column < D) {
        T sum = 0;
        for (int w = 0; w < 8; w++) sum += sums[warp][w][lane];
        (warp ? dbeta : dgamma)[part * D + column] = sum;
    }
}
"""


def layernorm_forward(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Cache]:
    """x (..., D), gamma (D,), beta (D,)  ->  y (..., D), cache."""
    xp, x, D = get_xp(x), solid(x), x.shape[-1]
    rows = x.size // D
    y, xhat, rstd = xp.empty_like(x), xp.empty_like(x), xp.empty(rows, x.dtype)
    by_rows(CODE, "layernorm_forward", rows, x, solid(gamma), solid(beta), float(eps), y, xhat, rstd, D, dtype=x.dtype)
    return y, (xhat, rstd, gamma)


def layernorm_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dy (..., D)  ->  dx (..., D), dgamma (D,), dbeta (D,)."""
    xhat, rstd, gamma = cache
    xp, dy, D = get_xp(dy), solid(dy), dy.shape[-1]
    rows = dy.size // D
    dx, parts = xp.empty_like(dy), -(-rows // CHUNK)
    by_rows(CODE, "layernorm_backward", rows, dy, xhat, rstd, solid(gamma), dx, D, dtype=dy.dtype)
    sums = xp.empty((2, parts, D), dy.dtype)
    launch(CODE, "layernorm_columns", -(-D // 32) * parts, THREADS, dy, xhat, *sums, D, rows, CHUNK, dtype=dy.dtype)
    dgamma, dbeta = sums.sum(1)
    return dx, dgamma, dbeta
