"""The twins of cross-entropy in losses.py: a warp for each row of logits."""

from typing import Any

from ...losses import as_probabilities
from ..arrays import Array, get_xp
from .launch import WARP_SUM, by_elements, by_rows, solid

Cache = tuple[Array, Array, Array, int]

CODE = (
    WARP_SUM
    + """
// t: the targets as they came, smoothed here; p: softmax of the logits; weight: the sum of a row's targets
extern "C" __global__ void cross_entropy_forward(const T* x, T* t, T smoothing, T* p, T* weight, T* loss, long long K,
                                                 long long rows) {
    long long row = (long long)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    x += row * K, t += row * K, p += row * K;
    T top = x[0], sum = 0, total = 0, dot = 0;
    for (long long i = threadIdx.x % 32; i < K; i += 32) top = top > x[i] || top != top ? top : x[i];
    top = warp_max(top);
    for (long long i = threadIdx.x % 32; i < K; i += 32) {
        T e = exp(x[i] - top), smooth = t[i] * (1 - smoothing) + smoothing / K;
        p[i] = e, t[i] = smooth;
        sum += e, total += smooth, dot += smooth * (x[i] - top);
    }
    sum = warp_sum(sum), total = warp_sum(total), dot = warp_sum(dot);
    for (long long i = threadIdx.x % 32; i < K; i += 32) p[i] /= sum;
    if (threadIdx.x % 32 == 0) weight[row] = total, loss[row] = log(sum) * total - dot;
}
extern "C" __global__ void cross_entropy_backward(const T* p, const T* t, const T* weight, T scale, T* dx, long long K,
                                                  long long size) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) dx[i] = (p[i] * weight[i / K] - t[i]) * scale;
}
"""
)


def cross_entropy_forward(
    logits: Array, targets: Array, *, smoothing: float = 0.0, count: int | None = None
) -> tuple[Any, Cache]:
    """logits (B, K), targets (B,) whole numbers or (B, K) probabilities  ->  loss, cache."""
    t = as_probabilities(logits, targets)
    xp, logits, (B, K) = get_xp(logits), solid(logits), logits.shape
    t, p, weight, losses = (
        solid(t),
        xp.empty_like(logits),
        xp.empty(B, logits.dtype),
        xp.empty(B, logits.dtype),
    )
    by_rows(
        CODE,
        "cross_entropy_forward",
        B,
        logits,
        t,
        float(smoothing),
        p,
        weight,
        losses,
        K,
        dtype=logits.dtype,
    )
    count = max(B, 1) if count is None else count
    return losses.sum() / count, (p, t, weight, count)


def cross_entropy_backward(dloss: Any, cache: Cache) -> Array:
    """dloss (a number)  ->  dlogits (B, K)."""
    p, t, weight, count = cache
    dx = get_xp(p).empty_like(p)
    by_elements(
        CODE,
        "cross_entropy_backward",
        p.size,
        p,
        t,
        weight,
        1.0 / count,
        dx,
        p.shape[-1],
        dtype=p.dtype,
    )
    return dx if isinstance(dloss, float) and dloss == 1 else dx * dloss
