"""The twin of optim.py's adamw_update: a thread for each weight, all of AdamW in one pass over memory."""

from typing import Any

from ..backend import Array, get_xp
from .launch import by_elements

CODE = """
extern "C" __global__ void adamw_update(T* p, const T* grad, T* m, T* v, T* average, const T* scale, T rate, T eps, T b1,
                                        T left1, T b2, T left2, T shrink, T follow, long long size) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    T g = grad[i] * *scale;
    m[i] = b1 * m[i] + left1 * g;
    v[i] = b2 * v[i] + left2 * g * g;
    p[i] = shrink * p[i] - rate * m[i] / (sqrt(v[i]) + eps);
    if (follow > 0) average[i] += follow * (p[i] - average[i]);
}
"""


def adamw_update(p: Array, g: Array, m: Array, v: Array, average: Array | None, *, scale: Any, rate: float, eps: float,
                 betas: tuple[float, float], shrink: float, keep: float) -> None:
    """p, g, m, v, average (n,), updated in place."""
    xp, (b1, b2), follow = get_xp(p), betas, 0.0 if average is None else 1.0 - keep
    scale = xp.asarray(scale, p.dtype)
    by_elements(CODE, "adamw_update", p.size, p, g, m, v, p if average is None else average, scale, float(rate), float(eps),
                float(b1), 1.0 - b1, float(b2), 1.0 - b2, float(shrink), follow, dtype=p.dtype)
