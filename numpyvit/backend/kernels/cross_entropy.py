"""Cross-entropy on a GPU: a warp for each row of logits."""

from typing import Any

from ..arrays import Array, contiguous, get_xp
from .launch import WARP_SUM, by_elements, by_rows

Cache = tuple[Array, Array, Array, int]

CODE = (
    WARP_SUM
    + """
// t: the targets; s: the smoothed targets; p: softmax of the logits; weight: the sum of a row of s
extern "C" __global__ void cross_entropy_forward(
        const T* x, const T* t, T smoothing, T* s, T* p, T* weight, T* loss, long long K,
        long long rows) {
    long long row = (long long)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    x += row * K, t += row * K, s += row * K, p += row * K;
    T top = x[0], sum = 0, total = 0, dot = 0;
    for (long long i = threadIdx.x % 32; i < K; i += 32)
        top = top > x[i] || top != top ? top : x[i];
    top = warp_max(top);
    for (long long i = threadIdx.x % 32; i < K; i += 32) {
        T e = exp(x[i] - top), smooth = t[i] * (1 - smoothing) + smoothing / K;
        p[i] = e, s[i] = smooth;
        sum += e, total += smooth;
        if (smooth != 0) dot += smooth * (x[i] - top);
    }
    sum = warp_sum(sum), total = warp_sum(total), dot = warp_sum(dot);
    for (long long i = threadIdx.x % 32; i < K; i += 32) p[i] /= sum;
    if (threadIdx.x % 32 == 0) weight[row] = total, loss[row] = log(sum) * total - dot;
}
extern "C" __global__ void cross_entropy_backward(
        const T* p, const T* t, const T* weight, T scale, T* dx, long long K, long long size) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) dx[i] = (p[i] * weight[i / K] - t[i]) * scale;
}
"""
)


def cross_entropy_forward(
    logits: Array, t: Array, *, smoothing: float = 0.0, count: int | None = None
) -> tuple[Any, Cache]:
    """logits (B, K), targets t (B, K)  ->  loss, cache."""
    xp = get_xp(logits)
    logits, t = contiguous(logits), contiguous(t)
    B, K = logits.shape
    smooth, p = xp.empty_like(logits), xp.empty_like(logits)
    weight, losses = xp.empty(B, logits.dtype), xp.empty(B, logits.dtype)
    arrays = (logits, t, float(smoothing), smooth, p, weight, losses)
    by_rows(CODE, "cross_entropy_forward", B, *arrays, K, dtype=logits.dtype)
    count = max(B, 1) if count is None else count
    return losses.sum() / count, (p, smooth, weight, count)


def cross_entropy_backward(dloss: Any, cache: Cache) -> Array:
    """dloss (a number)  ->  dlogits (B, K)."""
    p, t, weight, count = cache
    dx = get_xp(p).empty_like(p)
    arrays = (p, t, weight, 1.0 / count, dx)
    by_elements(CODE, "cross_entropy_backward", p.size, *arrays, p.shape[-1], dtype=p.dtype)
    return dx if isinstance(dloss, float) and dloss == 1 else dx * dloss
