"""Multi-head self-attention ("Attention Is All You Need", section 3.2): each token asks all tokens, by their content.

The textbook pair comes first and is all of the mathematics; the tests keep it as the reference. The layer runs the pair of
keys_first.py, which computes the same, faster, or that of few_queries.py, where only the first tokens ask.
"""

from typing import Any

import numpy as np

from ..backend.arrays import Array, fused, get_xp
from ..params import Buffer
from .attention_fast import keys_first_backward, keys_first_forward
from .attention_pool import few_queries_backward, few_queries_forward
from .dropout import draw_mask
from .linear import Linear
from .rotary import rotary_backward, rotary_forward
from .softmax import softmax_backward, softmax_forward


def attention_forward(
    q: Array, k: Array, v: Array, mask: Array | None = None
) -> tuple[Array, tuple]:
    """q (B, h, M, E), k, v (B, h, N, E), mask (B, h, M, N): dropout's factors, or None  ->  o (B, h, M, E), cache.

    o = softmax(q k' / sqrt(E)) v. A dot product of E terms has deviation sqrt(E); divided by it, softmax does not start
    saturated. E is the width of one head, not of the token.
    """
    a, _ = softmax_forward(q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5)  # (B, h, M, N)
    p = a if mask is None else a * mask
    return p @ v, (q, k, v, a, p, mask)


def attention_backward(do: Array, cache: tuple) -> tuple[Array, Array, Array]:
    """do (B, h, M, E)  ->  dq (B, h, M, E), dk, dv (B, h, N, E). Two products, each differentiated as in linear.py."""
    q, k, v, a, p, mask = cache
    dp = do @ v.swapaxes(-1, -2)  # o = p v
    dv = p.swapaxes(-1, -2) @ do
    da = dp if mask is None else dp * mask  # p = a * mask
    ds = softmax_backward(da, a) * q.shape[-1] ** -0.5  # a = softmax(q k' / sqrt(E))
    return ds @ k, ds.swapaxes(-1, -2) @ q, dv


def split_heads(x: Array, parts: int, heads: int) -> Array:
    """(B, N, parts * D)  ->  (parts, B, h, N, E), a view: q, k, v = split_heads(qkv, 3, heads)."""
    B, N, width = x.shape
    return x.reshape(B, N, parts, heads, width // parts // heads).transpose(2, 0, 3, 1, 4)


class Attention:
    """Weights: qkv (D, 3D), its columns q, k, v and in each the heads; proj (D, D).

    rows: how many leading tokens ask, by few_queries.py. With rows=1 only the class token does, which is all that the last
    block owes to the head.
    """

    def __init__(self, width: int, heads: int, qkv_bias: bool = True, dropout: float = 0.0) -> None:
        self.heads, self.dropout = heads, dropout
        self.qkv = Linear(width, 3 * width, bias=qkv_bias)
        self.proj = Linear(width, width)

    def forward(
        self,
        params: Buffer,
        x: Array,
        rng: np.random.Generator | None = None,
        rows: int | None = None,
        taps: dict[str, Any] | None = None,
        turn: Array | None = None,
    ) -> tuple[Array, tuple]:
        """x (B, N, D)  ->  y (B, rows or N, D), cache. taps["attention"]: the probabilities (B, h, N, N); needs all rows.
        turn: the tokens' places, as in rotary.py."""
        B, N, D = x.shape
        mask = None
        if rng is not None and self.dropout:
            mask = draw_mask(rng, (N, B, self.heads, N), self.dropout, x)[..., :rows]
        if rows is not None and turn is None:  # few_queries.py has no keys to turn
            w, b = params[self.qkv.w], params[self.qkv.b] if self.qkv.b else None
            o, c2 = few_queries_forward(x, w, b, self.heads, rows, mask)  # (B, rows, D)
            y, c3 = self.proj.forward(params, o)
            return y, (None, c2, c3, None)
        qkv, c1 = self.qkv.forward(params, x)  # (B, N, 3D)
        q, k, v = split_heads(qkv, 3, self.heads)  # each (B, h, N, E)
        if turn is not None:
            q, k = (rotary_forward(t.swapaxes(1, 2), turn)[0].swapaxes(1, 2) for t in (q, k))
        o, c2 = fused(keys_first_forward, q)(q[:, :, :rows], k, v, mask)
        if taps is not None:
            taps["attention"] = attention_forward(q, k, v)[1][3]
        y, c3 = self.proj.forward(params, o.transpose(0, 2, 1, 3).reshape(B, o.shape[2], D))
        return y, (c1, c2, c3, turn)

    def backward(self, dy: Array, cache: tuple, grads: Buffer) -> Array:
        """dy (B, rows or N, D)  ->  dx (B, N, D); adds the weights' gradients into grads."""
        c1, c2, c3, turn = cache
        do = self.proj.backward(dy, c3, grads)  # (B, rows or N, D)
        if c1 is None:
            dx, dw, db = few_queries_backward(do, c2)
            grads[self.qkv.w] += dw
            if self.qkv.b:
                grads[self.qkv.b] += db
            return dx
        B, M, D = do.shape
        dqkv = get_xp(do).empty((B, c2[1].shape[2], 3 * D), do.dtype)
        dqkv[:, M:, :D] = 0  # those that did not ask
        dq, dk, dv = split_heads(dqkv, 3, self.heads)  # views: what is written to them is in dqkv
        fused(keys_first_backward, do)(
            split_heads(do, 1, self.heads)[0], c2, out=[dq[:, :, :M], dk, dv]
        )
        if turn is not None:
            for d in (dq, dk):
                d[...] = rotary_backward(d.swapaxes(1, 2), turn).swapaxes(1, 2)
        return self.qkv.backward(dqkv, c1, grads)
