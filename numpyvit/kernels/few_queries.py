"""The twins of layers/few_queries.py: the same products by cuBLAS, with the scores query by query and softmax's kernels."""

from typing import Any

from ..backend import Array, get_xp
from ..layers.few_queries import by_head
from .launch import by_rows
from .linear import linear_backward, linear_forward
from .products import matmul
from .softmax import CODE


def few_queries_forward(x: Array, w: Array, b: Array | None, heads: int, rows: int,
                        mask: Array | None = None) -> tuple[Array, tuple]:
    """x (B, N, D), w (D, 3D), b (3D,) or None, mask (N, B, h, rows) or None  ->  o (B, rows, D), cache."""
    xp, (B, N, D), h = get_xp(x), x.shape, heads
    q, c1 = linear_forward(x[:, :rows], w[:, :D], None if b is None else b[:D])
    q = by_head(q.reshape(B * rows, D), h)                               # (h, B * rows, E)
    wk, wv = by_head(w[:, D:2 * D], h), by_head(w[:, 2 * D:], h)         # (h, D, E)
    u = xp.empty((B * rows, h, D), x.dtype)
    matmul(q, wk.swapaxes(1, 2), out=u.swapaxes(0, 1))
    u = u.reshape(B, rows * h, D)
    a = matmul(u, x.swapaxes(1, 2))                                      # (B, J, N)
    by_rows(CODE, "softmax_forward", a.size // N, a, a, (D // h) ** -0.5, N, dtype=a.dtype)
    if mask is not None:
        mask = mask.transpose(1, 3, 2, 0).reshape(a.shape)
    p = a if mask is None else a * mask
    m = matmul(p, x)                                                     # (B, J, D)
    o = xp.empty((B * rows, h, D // h), x.dtype)
    matmul(m.reshape(B * rows, h, D).swapaxes(0, 1), wv, out=o.swapaxes(0, 1))
    total = 1 if mask is None else p.sum(-1).reshape(B * rows, h, 1)
    if b is not None:
        o += total * b[2 * D:].reshape(h, D // h)
    return o.reshape(B, rows, D), (x, q, wk, wv, b, u, a, p, mask, m, total, c1)


def few_queries_backward(do: Array, cache: tuple) -> tuple[Array, Array, Array | Any]:
    """do (B, rows, D)  ->  dx (B, N, D), dw (D, 3D), db (3D,) or None."""
    x, q, wk, wv, b, u, a, p, mask, m, total, c1 = cache
    xp, (B, N, D), h, rows = get_xp(x), x.shape, len(q), do.shape[1]
    do = by_head(do.reshape(B * rows, D), h)                             # (h, B * rows, E)
    dw = xp.empty((D, 3 * D), x.dtype)
    matmul(m.reshape(B * rows, h, D).transpose(1, 2, 0), do, out=by_head(dw[:, 2 * D:], h))
    dm = xp.empty(u.shape, x.dtype)
    matmul(do, wv.swapaxes(1, 2), out=dm.reshape(B * rows, h, D).swapaxes(0, 1))
    da = matmul(dm, x.swapaxes(1, 2))                                    # (B, J, N)
    if mask is not None:
        if b is not None:
            da += (do * b[2 * D:].reshape(h, 1, -1)).sum(-1).T.reshape(B, rows * h, 1)
        da *= mask
    by_rows(CODE, "softmax_backward", da.size // N, da, a, da, (D // h) ** -0.5, N, dtype=da.dtype)      # now of the scores
    dx = matmul(p.swapaxes(1, 2), dm)
    matmul(da.swapaxes(1, 2), u, out=dx, beta=1)
    du = matmul(da, x).reshape(B * rows, h, D).swapaxes(0, 1)            # (h, B * rows, D)
    matmul(du.swapaxes(1, 2), q, out=by_head(dw[:, D:2 * D], h))
    dq = xp.empty((B * rows, h, D // h), x.dtype)
    matmul(du, wk, out=dq.swapaxes(0, 1))
    dx_rows, dw[:, :D], dbq = linear_backward(dq.reshape(B, rows, D), c1)
    dx[:, :dx_rows.shape[1]] += dx_rows
    if b is None:
        return dx, dw, None
    dbv = (total * do.swapaxes(0, 1)).sum(0).reshape(D)
    return dx, dw, xp.concatenate([dbq, xp.zeros(D, x.dtype), dbv])
