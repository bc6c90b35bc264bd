"""Softmax on a GPU: a warp for each row."""

from ..arrays import Array, contiguous, get_xp
from .launch import WARP_SUM, by_rows

CODE = (
    WARP_SUM
    + """
// y = softmax(scale * x); y may be x itself
extern "C" __global__ void softmax_forward(const T* x, T* y, T scale, long long N, long long rows) {
    long long row = (long long)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    x += row * N, y += row * N;
    T top = x[0], sum = 0;
    for (long long i = threadIdx.x % 32; i < N; i += 32)
        top = top > x[i] || top != top ? top : x[i];
    top = warp_max(top);
    for (long long i = threadIdx.x % 32; i < N; i += 32) {
        T e = exp(scale * (x[i] - top));
        y[i] = e, sum += e;
    }
    T part = 1 / warp_sum(sum);
    for (long long i = threadIdx.x % 32; i < N; i += 32) y[i] *= part;
}
// and its backward; dx may be dy itself
extern "C" __global__ void softmax_backward(
        const T* dy, const T* y, T* dx, T scale, long long N, long long rows) {
    long long row = (long long)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    dy += row * N, y += row * N, dx += row * N;
    T dot = 0;
    for (long long i = threadIdx.x % 32; i < N; i += 32) dot += dy[i] * y[i];
    dot = warp_sum(dot);
    for (long long i = threadIdx.x % 32; i < N; i += 32) dx[i] = scale * y[i] * (dy[i] - dot);
}
"""
)


def softmax_forward(x: Array) -> tuple[Array, Array]:
    """x (..., N)  ->  y (..., N), cache (y itself)."""
    x = contiguous(x)
    N = x.shape[-1]
    y = get_xp(x).empty_like(x)
    by_rows(CODE, "softmax_forward", x.size // N, x, y, 1.0, N, dtype=x.dtype)
    return y, y


def softmax_backward(dy: Array, y: Array) -> Array:
    """dy (..., N), y (..., N) from forward  ->  dx (..., N)."""
    dy = contiguous(dy)
    N = dy.shape[-1]
    dx = get_xp(dy).empty_like(dy)
    by_rows(CODE, "softmax_backward", dy.size // N, dy, contiguous(y), dx, 1.0, N, dtype=dy.dtype)
    return dx
