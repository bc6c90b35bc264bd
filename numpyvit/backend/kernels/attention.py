"""The twins of layers/keys_first.py: batched products, and between them softmax's kernels, in place.

Scores are (B, h, M, N) here, a row for each query. Where all of them would take more than STORED elements, none is kept:
they are made for some queries at a time, and made again for the gradient (Chen et al., 2016, "Training Deep Nets with
Sublinear Memory Cost").
"""

from collections.abc import Iterator

from ..arrays import Array, get_xp
from .gemm import product
from .launch import by_rows, solid
from .softmax import CODE

STORED = 2**26
Cache = tuple[Array, Array, Array, Array | None, Array, Array | None]


def queries(q: Array, N: int) -> Iterator[slice]:
    """Parts of the M queries whose scores are few enough; all of them where they can be kept."""
    B, h, M, _ = q.shape
    size = max(1, STORED // max(B * h * N, 1))
    for start in range(0, M, size):
        yield slice(start, min(start + size, M))


def probabilities(q: Array, k: Array) -> Array:
    """q (B, h, m, E), k (B, h, N, E)  ->  softmax(q k' / sqrt(E)), (B, h, m, N)."""
    a = product(q, k.swapaxes(-1, -2))
    N = a.shape[-1]
    by_rows(CODE, "softmax_forward", a.size // N, a, a, q.shape[-1] ** -0.5, N, dtype=a.dtype)
    return a


def by_query(mask: Array | None, part: slice) -> Array | None:
    """A mask (N, B, h, M) as (B, h, m, N)."""
    return None if mask is None else mask[..., part].transpose(1, 2, 3, 0)


def keys_first_forward(
    q: Array, k: Array, v: Array, mask: Array | None = None
) -> tuple[Array, Cache]:
    """q (B, h, M, E), k, v (B, h, N, E), mask (N, B, h, M)  ->  o (B, h, M, E), cache."""
    xp, (B, h, M, E), N = get_xp(q), q.shape, k.shape[2]
    q, k, v = solid(q), solid(k), solid(v)  # once, and not in each product
    o, a = (
        xp.empty((B, M, h, E), q.dtype).transpose(0, 2, 1, 3),
        None,
    )  # in memory as the projection wants it
    for part in queries(q, N):
        a = probabilities(q[:, :, part], k)
        here = by_query(mask, part)
        product(a if here is None else a * here, v, out=o[:, :, part])
    return o, (q, k, v, a if B * h * M * N <= STORED else None, o, mask)


def keys_first_backward(do: Array, cache: Cache, out: Array | list[Array]) -> None:
    """do (B, h, M, E)  ->  dq, dk, dv, written to the arrays of `out`."""
    q, k, v, kept, _, mask = cache
    (dq, dk, dv), N = out, k.shape[2]
    do, sums = solid(do), get_xp(do).empty((2, *k.shape), k.dtype)
    for part in queries(q, N):
        a, here = (
            kept if kept is not None else probabilities(q[:, :, part], k),
            by_query(mask, part),
        )
        d = do[:, :, part]
        product(
            (a if here is None else a * here).swapaxes(-1, -2),
            d,
            out=sums[1],
            beta=float(part.start > 0),
        )
        da = product(d, v.swapaxes(-1, -2))
        da = da if here is None else da * here
        by_rows(
            CODE,
            "softmax_backward",
            da.size // N,
            da,
            a,
            da,
            q.shape[-1] ** -0.5,
            N,
            dtype=da.dtype,
        )
        product(da, k, out=dq[:, :, part])
        product(da.swapaxes(-1, -2), q[:, :, part], out=sums[0], beta=float(part.start > 0))
    dk[...], dv[...] = sums[0], sums[1]
