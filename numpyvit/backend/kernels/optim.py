"""Optimizers on a GPU: all of AdamW in one pass over memory, and Muon's orthogonalise."""

from typing import Any

from ..arrays import Array, get_xp
from .gemm import product
from .launch import by_elements

CODE = """
extern "C" __global__ void adamw_update(
        T* p, const T* grad, T* m, T* v, T* average, const T* scale, const T* numbers, T b1,
        T left1, T b2, T left2, T weight_decay, long long follows, long long size) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    T g = grad[i] * *scale, lr = numbers[0], rate = numbers[1], eps = numbers[2], keep = numbers[3];
    m[i] = b1 * m[i] + left1 * g;
    v[i] = b2 * v[i] + left2 * g * g;
    p[i] = (1 - lr * weight_decay) * p[i] - rate * m[i] / (sqrt(v[i]) + eps);
    if (follows) average[i] += (1 - keep) * (p[i] - average[i]);
}
"""


def adamw_update(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    average: Array | None,
    *,
    scale: Any,
    numbers: Any,
    betas: tuple[float, float],
    weight_decay: float,
) -> None:
    """Update p, m, v and average (n,) in place: a thread for each weight."""
    b1, b2 = betas
    scale = get_xp(p).full((), scale, p.dtype) if isinstance(scale, float) else scale
    arrays = (p, g, m, v, p if average is None else average, scale, numbers)
    factors = (float(b1), 1.0 - b1, float(b2), 1.0 - b2, float(weight_decay))
    follows = int(average is not None)
    by_elements(CODE, "adamw_update", p.size, *arrays, *factors, follows, dtype=p.dtype)


def orthogonalise(m: Array, coefficients: tuple[float, float, float], iterations: int) -> Array:
    """m (..., I, O)  ->  about u vᵀ."""
    A, B, C = coefficients
    x = m / ((m * m).sum((-2, -1), keepdims=True) ** 0.5 + 1e-7)
    tall = m.shape[-2] > m.shape[-1]
    x = x.swapaxes(-2, -1) if tall else x
    for _ in range(iterations):
        xx = product(x, x.swapaxes(-2, -1))
        polynomial = product(xx, xx, xx.copy(), alpha=C, beta=B)  # B xx + C xx xx
        x = product(polynomial, x, x.copy(), beta=A)
    return x.swapaxes(-2, -1) if tall else x
