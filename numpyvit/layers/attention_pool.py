"""Attention where only the first few tokens ask, without keys and values: the last block's, where only the class token does.

A query needs of its keys only the products with them, and q . k_j = q . (Wk' x_j) = (Wk q) . x_j: the query can go to where
the tokens are. What it gets back is a mean of values, sum_j a_j (Wv' x_j) = Wv' (sum_j a_j x_j): the mean can be taken of
the tokens. With M queries and h heads each token takes part in 2 M h products of length D, where its key and value take 2 D
of them. All of it is exact but for rounding. The key bias adds q . bk to all scores of a query, and softmax does not see it.

With M = 1 forward and backward take 0.2 (17 tokens, D = 64) to 0.05 (65 tokens, D = 192) of the time that they take with
keys and values.
"""

from typing import Any

from ..backend.arrays import Array, col_sum, get_xp, matmul, transposed
from .linear import linear_backward, linear_forward


def by_head(x: Array, heads: int) -> Array:
    """(n, h * E)  ->  (h, n, E), a view. Of weights (D, D) whose columns are heads: (h, D, E)."""
    return x.reshape(len(x), heads, x.shape[1] // heads).swapaxes(0, 1)


def few_queries_forward(
    x: Array, w: Array, b: Array | None, heads: int, rows: int, mask: Array | None = None
) -> tuple[Array, tuple]:
    """x (B, N, D), w (D, 3D), b (3D,) or None, mask (N, B, h, rows) or None  ->  o (B, rows, D), cache.

    The same as o = attention of the first `rows` tokens, with q, k, v = x w + b. J = rows * h.
    """
    xp, (B, N, D), h = get_xp(x), x.shape, heads
    q, c1 = linear_forward(x[:, :rows], w[:, :D], None if b is None else b[:D])
    q = by_head(q.reshape(B * rows, D), h)  # (h, B * rows, E)
    wk, wv = by_head(w[:, D : 2 * D], h), by_head(w[:, 2 * D :], h)  # (h, D, E)
    u = xp.empty((B * rows, h, D), x.dtype)  # Wk q, for each head
    matmul(q, wk.swapaxes(1, 2), out=u.swapaxes(0, 1))
    u = u.reshape(B, rows * h, D)

    a = xp.empty((N, B, rows * h), x.dtype)  # keys first, as in keys_first.py
    matmul(x, transposed(u, (D // h) ** -0.5), out=a.swapaxes(0, 1))
    a -= a.max(0)
    xp.exp(a, out=a)
    a *= 1 / col_sum(a.reshape(N, B * rows * h)).reshape(B, rows * h)
    if mask is not None:
        mask = mask.swapaxes(2, 3).reshape(a.shape)
    p = a if mask is None else a * mask

    m = matmul(p.transpose(1, 2, 0), x)  # (B, J, D), sum_j p_j x_j
    o = xp.empty((B * rows, h, D // h), x.dtype)
    matmul(m.reshape(B * rows, h, D).swapaxes(0, 1), wv, out=o.swapaxes(0, 1))
    total = 1 if mask is None else p.sum(0).reshape(B * rows, h, 1)  # sum_j p_j
    if b is not None:
        o += total * b[2 * D :].reshape(h, D // h)
    return o.reshape(B, rows, D), (x, q, wk, wv, b, u, a, p, mask, m, total, c1)


def few_queries_backward(do: Array, cache: tuple) -> tuple[Array, Array, Array | Any]:
    """do (B, rows, D)  ->  dx (B, N, D), dw (D, 3D), db (3D,) or None. Forward, read upwards."""
    x, q, wk, wv, b, u, a, p, mask, m, total, c1 = cache
    xp, (B, _, D), h, rows = get_xp(x), x.shape, len(q), do.shape[1]
    do = by_head(do.reshape(B * rows, D), h)  # (h, B * rows, E)
    dw = xp.empty((D, 3 * D), x.dtype)
    matmul(m.reshape(B * rows, h, D).transpose(1, 2, 0), do, out=by_head(dw[:, 2 * D :], h))
    dm = xp.empty(u.shape, x.dtype)  # o = m wv + total bv
    matmul(do, wv.swapaxes(1, 2), out=dm.reshape(B * rows, h, D).swapaxes(0, 1))

    da = xp.empty_like(a)
    matmul(x, transposed(dm, 1.0), out=da.swapaxes(0, 1))  # m = p' x
    if mask is not None:
        if b is not None:  # total = sum_j p_j
            da += matmul(do, b[2 * D :].reshape(h, -1, 1))[..., 0].T.reshape(B, rows * h)
        da *= mask  # p = a mask
    ds = a * (da - (da * a).sum(0)) * (D // h) ** -0.5  # a = softmax(x u' / sqrt(E))

    du = matmul(ds.transpose(1, 2, 0), x)  # (B, J, D)
    dx = matmul(p.swapaxes(0, 1), dm)  # m = p' x
    dx += matmul(ds.swapaxes(0, 1), u)  # s = x u'
    du = du.reshape(B * rows, h, D).swapaxes(0, 1)  # (h, B * rows, D)
    matmul(du.swapaxes(1, 2), q, out=by_head(dw[:, D : 2 * D], h))  # u = q wk'
    dq = xp.empty((B * rows, h, D // h), x.dtype)
    matmul(du, wk, out=dq.swapaxes(0, 1))
    dx_rows, dw[:, :D], dbq = linear_backward(dq.reshape(B, rows, D), c1)
    dx[:, : dx_rows.shape[1]] += dx_rows  # the tokens that asked were also asked
    if b is None:
        return dx, dw, None
    dbv = (total * do.swapaxes(0, 1)).sum(0).reshape(D)
    return dx, dw, xp.concatenate([dbq, xp.zeros(D, x.dtype), dbv])
