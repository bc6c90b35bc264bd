"""Attention on a GPU: batched matrix products, and softmax's kernels in place in between.

Scores are (B, h, N, N), a row for each query. If all of them would take more than STORED
elements, none are kept: they are computed for some queries at a time, and again for the
gradient (Chen et al., 2016, "Training Deep Nets with Sublinear Memory Cost").
"""

from collections.abc import Iterator

from ..arrays import Array, contiguous, get_xp
from .gemm import product
from .launch import by_rows
from .softmax import CODE

STORED = 2**26
Cache = tuple[Array, Array, Array, Array | None, Array | None]


def attention_forward(
    q: Array, k: Array, v: Array, mask: Array | None = None
) -> tuple[Array, Cache]:
    """q, k, v (B, h, N, E), mask (B, h, N, N) or None  ->  o (B, h, N, E), cache."""
    xp = get_xp(q)
    B, h, N, E = q.shape
    q, k, v = contiguous(q), contiguous(k), contiguous(v)  # once, not in each product
    o = xp.empty((B, N, h, E), q.dtype).transpose(0, 2, 1, 3)  # as merging the heads needs it
    a = None
    for part in query_parts(q):
        a = probabilities(q[:, :, part], k)
        p = a if mask is None else a * mask[:, :, part]
        product(p, v, out=o[:, :, part])
    stored = a if B * h * N * N <= STORED else None
    return o, (q, k, v, stored, mask)


def attention_backward(do: Array, cache: Cache) -> Array:
    """do (B, h, N, E)  ->  dq, dk, dv in one array (3, B, h, N, E)."""
    q, k, v, stored, mask = cache
    xp = get_xp(do)
    B, h, N, E = q.shape
    do = contiguous(do)
    # In memory (B, N, 3, h, E), as merging the heads needs it.
    dqkv = xp.empty((B, N, 3, h, E), do.dtype).transpose(2, 0, 3, 1, 4)
    dk, dv = xp.empty(k.shape, k.dtype), xp.empty(v.shape, v.dtype)
    for part in query_parts(q):
        a = probabilities(q[:, :, part], k) if stored is None else stored
        p = a if mask is None else a * mask[:, :, part]
        beta = float(part.start > 0)  # add to the parts before
        product(p.swapaxes(-1, -2), do[:, :, part], out=dv, beta=beta)
        da = product(do[:, :, part], v.swapaxes(-1, -2))
        if mask is not None:
            da = da * mask[:, :, part]
        by_rows(CODE, "softmax_backward", da.size // N, da, a, da, E**-0.5, N, dtype=da.dtype)
        product(da, k, out=dqkv[0][:, :, part])
        product(da.swapaxes(-1, -2), q[:, :, part], out=dk, beta=beta)
    dqkv[1], dqkv[2] = dk, dv
    return dqkv


def query_parts(q: Array) -> Iterator[slice]:
    """Yield slices of the queries whose scores are few enough; one if all can be kept."""
    B, h, N, _ = q.shape
    size = max(1, STORED // max(B * h * N, 1))
    for start in range(0, N, size):
        yield slice(start, min(start + size, N))


def probabilities(q: Array, k: Array) -> Array:
    """q (B, h, m, E), k (B, h, N, E)  ->  softmax(q kᵀ / √E), (B, h, m, N)."""
    a = product(q, k.swapaxes(-1, -2))
    N = a.shape[-1]
    by_rows(CODE, "softmax_forward", a.size // N, a, a, q.shape[-1] ** -0.5, N, dtype=a.dtype)
    return a
