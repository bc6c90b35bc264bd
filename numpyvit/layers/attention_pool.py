"""Attention of a few queries to many tokens, without computing keys and values.

This is a fast form of attention for the case of few queries. In the last block only the
class token's output is read, so only its query is needed (ClsAttention below, used in
last_block.py). Read attention.py first.

A query needs a key only for a dot product with it, and q · k_j = q · (x_j wk) = (q wkᵀ) · x_j:
instead of mapping every token to a key, map the query to the tokens, once. What the query
receives is an average of values, Σ_j p_j (x_j wv) = (Σ_j p_j x_j) wv: average the tokens
first, and map the average. With M queries and h heads each token takes part in 2 M h dot
products of length D, where its key and its value would take 2 D of them.

The result is exact up to rounding. There is no key bias: it would add q · bk to all scores
of a query, which softmax does not notice. With M = 1, forward and backward together take
0.2 (17 tokens, D = 64) to 0.05 (65 tokens, D = 192) of the time with keys and values.
"""

from typing import Any

import numpy as np

from ..backend.arrays import Array, get_xp
from ..backend.ops import col_sum, matmul, transposed
from ..params import Buffer
from .attention import Attention
from .dropout import draw_mask
from .linear import linear_backward, linear_forward


def by_head(x: Array, heads: int) -> Array:
    """(n, h * E)  ->  (h, n, E), a view."""
    n, width = x.shape
    return x.reshape(n, heads, width // heads).swapaxes(0, 1)


def attention_pool_forward(
    q: Array,
    x: Array,
    wk: Array,
    wv: Array,
    bv: Array | None,
    heads: int,
    mask: Array | None = None,
) -> tuple[Array, tuple]:
    """q (B, M, D), x (B, N, D), wk, wv (D, D), bv (D,) or None  ->  o (B, M, D), cache.

    For each head o = softmax(q kᵀ / √E) v with k = x wk and v = x wv + bv. mask is the
    mask of dropout (N, B, h, M), or None. M: queries per image; J = M h: queries of all
    heads.
    """
    xp = get_xp(x)
    (B, N, D), M, h = x.shape, q.shape[1], heads
    E, J = D // h, M * h
    qh = by_head(q.reshape(B * M, D), h)  # (h, B * M, E)
    wkh, wvh = by_head(wk, h), by_head(wv, h)  # (h, D, E)
    u = xp.empty((B * M, h, D), x.dtype)  # q wkᵀ: the queries, to be compared with tokens
    matmul(qh, wkh.swapaxes(1, 2), out=u.swapaxes(0, 1))
    u = u.reshape(B, J, D)

    a = xp.empty((N, B, J), x.dtype)  # keys first, as in attention_fast.py
    matmul(x, transposed(u, E**-0.5), out=a.swapaxes(0, 1))  # x_j · u / √E
    a -= a.max(0)
    xp.exp(a, out=a)
    sums = col_sum(a.reshape(N, B * J)).reshape(B, J)
    a *= 1 / sums
    if mask is not None:
        mask = mask.swapaxes(2, 3).reshape(a.shape)
    p = a if mask is None else a * mask

    mean_x = matmul(p.transpose(1, 2, 0), x)  # (B, J, D), the averages Σ_j p_j x_j
    o = xp.empty((B * M, h, E), x.dtype)
    matmul(mean_x.reshape(B * M, h, D).swapaxes(0, 1), wvh, out=o.swapaxes(0, 1))
    total = 1 if mask is None else p.sum(0).reshape(B * M, h, 1)  # Σ_j p_j
    if bv is not None:
        o += total * bv.reshape(h, E)
    return o.reshape(B, M, D), (qh, x, wkh, wvh, bv, u, a, p, mask, mean_x, total)


def attention_pool_backward(
    do: Array, cache: tuple
) -> tuple[Array, Array, Array, Array, Array | Any]:
    """do (B, M, D)  ->  dq (B, M, D), dx (B, N, D), dwk, dwv (D, D), dbv (D,) or None."""
    qh, x, wkh, wvh, bv, u, a, p, mask, mean_x, total = cache
    xp = get_xp(x)
    (B, _, D), h, M = x.shape, len(qh), do.shape[1]
    E, J = D // h, M * h
    do = by_head(do.reshape(B * M, D), h)  # (h, B * M, E)
    dwv = xp.empty((D, D), x.dtype)
    matmul(
        mean_x.reshape(B * M, h, D).transpose(1, 2, 0), do, out=by_head(dwv, h)
    )  # o = mean_x wv + …
    dm = xp.empty(u.shape, x.dtype)
    matmul(do, wvh.swapaxes(1, 2), out=dm.reshape(B * M, h, D).swapaxes(0, 1))  # o = mean_x wv + …

    da = xp.empty_like(a)
    matmul(x, transposed(dm, 1.0), out=da.swapaxes(0, 1))  # mean_x = pᵀ x
    if mask is not None:
        if bv is not None:  # without dropout, Σ_j p_j = 1 is a constant and has no gradient
            dtotal = matmul(do, bv.reshape(h, E, 1))[..., 0]  # o = ... + total bv, (h, B * M)
            da += dtotal.T.reshape(B, J)  # total = Σ_j p_j
        da *= mask  # p = a mask
    ds = a * (da - (da * a).sum(0)) * E**-0.5  # a = softmax(x uᵀ / √E)

    dx = matmul(p.swapaxes(0, 1), dm)  # mean_x = pᵀ x
    dx += matmul(ds.swapaxes(0, 1), u)  # s = x uᵀ
    du = matmul(ds.transpose(1, 2, 0), x)  # s = x uᵀ, (B, J, D)
    du = du.reshape(B * M, h, D).swapaxes(0, 1)  # (h, B * M, D)
    dwk = xp.empty((D, D), x.dtype)
    matmul(du.swapaxes(1, 2), qh, out=by_head(dwk, h))  # u = q wkᵀ
    dq = xp.empty((B * M, h, E), x.dtype)
    matmul(du, wkh, out=dq.swapaxes(0, 1))  # u = q wkᵀ
    dbv = None if bv is None else (total * do.swapaxes(0, 1)).sum(0).reshape(D)
    return dq.reshape(B, M, D), dx, dwk, dwv, dbv


class ClsAttention(Attention):
    """Attention of the class token only, the first of each image. Weights as Attention."""

    def forward(
        self,
        params: Buffer,
        x: Array,
        rng: np.random.Generator | None = None,
        rotation: Any = None,
    ) -> tuple[Array, tuple]:
        """x (B, N, D)  ->  y (B, 1, D), cache: the first token of what Attention computes."""
        B, N, D = x.shape
        w, b = params[self.qkv.w], params[self.qkv.b] if self.qkv.b else None
        wq, wk, wv = w[:, :D], w[:, D : 2 * D], w[:, 2 * D :]
        bq, bv = (None, None) if b is None else (b[:D], b[2 * D :])
        mask = None
        if rng is not None and self.dropout:  # the draws of Attention, of which one row is used
            mask = draw_mask(rng, (N, B, self.heads, N), self.dropout, x)[..., :1]
        q, c_q = linear_forward(x[:, :1], wq, bq)  # (B, 1, D)
        o, c_pool = attention_pool_forward(q, x, wk, wv, bv, self.heads, mask)
        y, c_proj = self.proj.forward(params, o)  # (B, 1, D)
        return y, (c_q, c_pool, c_proj)

    def backward(self, dy: Array, cache: tuple, grads: Buffer) -> Array:
        """dy (B, 1, D)  ->  dx (B, N, D); adds the weights' gradients into grads."""
        c_q, c_pool, c_proj = cache
        do = self.proj.backward(dy, c_proj, grads)
        dq, dx, dwk, dwv, dbv = attention_pool_backward(do, c_pool)
        dx_first, dwq, dbq = linear_backward(dq, c_q)
        dx[:, :1] += dx_first  # the class token gives the query and is also attended to
        D = dx.shape[-1]
        dw = grads[self.qkv.w]
        dw[:, :D] += dwq
        dw[:, D : 2 * D] += dwk
        dw[:, 2 * D :] += dwv
        if self.qkv.b:
            db = grads[self.qkv.b]
            db[:D] += dbq
            db[2 * D :] += dbv  # the gradient of the key bias is zero
        return dx
