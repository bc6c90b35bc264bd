"""GELU by tanh on a GPU: one thread for each element; backward computes tanh again."""

from ..arrays import Array, contiguous, get_xp
from .launch import by_elements

CODE = """
__device__ __forceinline__ T half_tanh(T x) {  // (1 + tanh u) / 2
    return (T)0.5 + (T)0.5 * tanh((T)0.7978845608028654 * x * (1 + (T)0.044715 * x * x));
}
extern "C" __global__ void gelu_tanh_forward(const T* x, T* y, long long size) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) y[i] = x[i] * half_tanh(x[i]);
}
extern "C" __global__ void gelu_tanh_backward(const T* dy, const T* x, T* dx, long long size) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    T v = x[i], p = half_tanh(v), du = (T)0.7978845608028654 * (1 + 3 * (T)0.044715 * v * v);
    dx[i] = dy[i] * (p + 2 * v * p * (1 - p) * du);
}
"""


def gelu_tanh_forward(x: Array) -> tuple[Array, tuple[Array, ...]]:
    """x (...)  ->  y (...), cache."""
    x = contiguous(x)
    y = get_xp(x).empty_like(x)
    by_elements(CODE, "gelu_tanh_forward", x.size, x, y, dtype=x.dtype)
    return y, (x,)


def gelu_tanh_backward(dy: Array, cache: tuple[Array, ...]) -> Array:
    """dy (...)  ->  dx (...)."""
    dy = contiguous(dy)
    dx = get_xp(dy).empty_like(dy)
    by_elements(CODE, "gelu_tanh_backward", dy.size, dy, cache[0], dx, dtype=dy.dtype)
    return dx
