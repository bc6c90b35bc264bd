"""Multi-head self-attention ("Attention Is All You Need", Vaswani et al., 2017, section 3.2).

Attention is how tokens exchange information: each token receives a weighted average of
values from all tokens, and computes the weights of this average itself, from what the
tokens contain. Three linear maps of the token play three roles:

    query  q_i   what token i is looking for
    key    k_j   what token j offers to be found by
    value  v_j   what token j passes on to the tokens that find it

Token i compares its query with every key by a dot product, softmax turns the N scores into
weights a_ij that sum to 1, and its output is the average of the values with these weights:

    s_ij = q_i · k_j / √E,    a_ij = exp(s_ij) / Σ_l exp(s_il),    o_i = Σ_j a_ij v_j

For two tokens of width 2, whose queries match their own keys better than each other's:

>>> import numpy as np
>>> q = k = np.array([[[[2.0, 0.0], [0.0, 2.0]]]])  # one image, one head: (1, 1, N, E)
>>> v = np.array([[[[10.0, 0.0], [0.0, 10.0]]]])
>>> o, _ = attention_forward(q, k, v)
>>> o.round(2)  # softmax([2.83, 0]) = [0.94, 0.06]
array([[[[9.44, 0.56],
         [0.56, 9.44]]]])

The queries, keys and values of a token have D features each, and each feature is
computed from all features of the token: q_i = x_i wq + bq, and likewise k_i and v_i, in
the code by one linear layer, qkv. They are divided among h heads of E = D / h features,
and each head does the above with its own part. One head gives each token one set of
weights; with several heads it can look at several things at once, for example at its
neighbours and at similar patches. A last linear map, proj, combines what the heads have
found.

The pair of functions below is the textbook form. When it is called on NumPy arrays,
attention_fast.py computes the same values in a faster memory layout, and on a GPU a
kernel does; the tests compare all three. `inspect.unwrap(attention_forward)` is the
function as you read it.

`mask` belongs to dropout, which sets random weights a_ij to 0 in training. Until you have
read dropout.py, take mask as None, p as a, and dp as da.
"""

from typing import Any

import numpy as np

from ..backend.arrays import Array, get_xp
from ..backend.ops import fast_twin, on_gpu
from ..errors import UserError, check_bool, check_number, check_sizes
from ..params import Buffer
from .attention_fast import attention_fast_backward, attention_fast_forward
from .dropout import draw_mask
from .linear import Linear
from .softmax import softmax_backward, softmax_forward


@on_gpu
@fast_twin(attention_fast_forward)
def attention_forward(
    q: Array, k: Array, v: Array, mask: Array | None = None
) -> tuple[Array, tuple]:
    """q, k, v (B, h, N, E), dropout's mask (B, h, N, N) or None  ->  o (B, h, N, E), cache.

    o = softmax(q kᵀ / √E) v. The dot product of two vectors of E independent entries of
    mean 0 and variance 1 has standard deviation √E. Divided by √E, the scores are of size
    about 1 before training; otherwise softmax would give nearly all weight to one token, and
    its gradient would vanish: y_j (δ_ij - y_i) is 0 where one y is 1. E is the width of a
    head, not of the token.
    """
    E = q.shape[-1]
    s = (q @ k.swapaxes(-1, -2)) * E**-0.5  # (B, h, N, N)
    a, _ = softmax_forward(s)  # (B, h, N, N)
    p = a if mask is None else a * mask
    o = p @ v  # (B, h, N, E)
    return o, (q, k, v, a, p, mask)


@on_gpu
@fast_twin(attention_fast_backward)
def attention_backward(do: Array, cache: tuple) -> Array:
    """do (B, h, N, E)  ->  dq, dk, dv in one array (3, B, h, N, E).

    For a product y = x w, linear.py found dx = dy wᵀ and dw = xᵀ dy. So o = p v gives
    dp = do vᵀ and dv = pᵀ do. With r = q kᵀ, x is q and w is kᵀ: dq = dr k, and
    d(kᵀ) = qᵀ dr, which is dk = drᵀ q when it is transposed. They are returned in one
    array, since one linear layer made q, k and v.
    """
    q, k, v, a, p, mask = cache
    E = q.shape[-1]
    dp = do @ v.swapaxes(-1, -2)  # o = p v
    dv = p.swapaxes(-1, -2) @ do  # o = p v
    da = dp if mask is None else dp * mask  # p = a mask
    ds = softmax_backward(da, a)  # a = softmax(s)
    dr = ds * E**-0.5  # s = r / √E, with r = q kᵀ
    dq = dr @ k  # r = q kᵀ
    dk = dr.swapaxes(-1, -2) @ q  # r = q kᵀ
    return get_xp(do).stack([dq, dk, dv])


def split_heads(x: Array, parts: int, heads: int) -> Array:
    """(B, N, parts * D)  ->  (parts, B, h, N, E), a view: q, k, v = split_heads(qkv, 3, h).

    The columns of qkv are q, k and v, each head after head. With D = 4 and h = 2, columns
    0 1 | 2 3 are the two heads of q, 4 5 | 6 7 those of k, and 8 9 | 10 11 those of v.
    """
    B, N, width = x.shape
    x = x.reshape(B, N, parts, heads, width // parts // heads)
    return x.transpose(2, 0, 3, 1, 4)  # (parts, B, h, N, E)


def merge_heads(x: Array) -> Array:
    """(parts, B, h, N, E)  ->  (B, N, parts * D), the inverse of split_heads."""
    parts, B, h, N, E = x.shape
    x = x.transpose(1, 3, 0, 2, 4)  # (B, N, parts, h, E)
    return x.reshape(B, N, parts * h * E)


class Attention:
    """Weights: qkv (D, 3D), the maps to q, k and v side by side, and proj (D, D)."""

    def __init__(self, width: int, heads: int, qkv_bias: bool = True, dropout: float = 0.0) -> None:
        check_sizes(width=width, heads=heads)
        if width % heads:
            raise UserError(f"width {width} cannot be divided among {heads} heads")
        check_bool("qkv_bias", qkv_bias)
        check_number("dropout", dropout, least=0, below=1)
        self.heads, self.dropout = heads, dropout
        self.qkv = Linear(width, 3 * width, bias=qkv_bias)
        self.proj = Linear(width, width)

    def forward(
        self,
        params: Buffer,
        x: Array,
        rng: np.random.Generator | None = None,
        rotation: Any = None,
    ) -> tuple[Array, tuple]:
        """x (B, N, D)  ->  y (B, N, D), cache.

        rng draws the dropout mask of the attention weights; without it nothing is dropped.
        rotation is only used by RotaryAttention (rotary.py).
        """
        qkv, c_qkv = self.qkv.forward(params, x)  # (B, N, 3D)
        q, k, v = split_heads(qkv, 3, self.heads)  # (B, h, N, E) each
        mask = attention_mask(rng, self.dropout, q)  # (B, h, N, N) or None
        o, c_attention = attention_forward(q, k, v, mask)  # (B, h, N, E)
        o = merge_heads(o[None])  # (B, N, D); o[None] is one part, where qkv has three
        y, c_proj = self.proj.forward(params, o)  # (B, N, D)
        return y, (c_qkv, c_attention, c_proj)

    def backward(self, dy: Array, cache: tuple, grads: Buffer) -> Array:
        """dy (B, N, D)  ->  dx (B, N, D); adds the weights' gradients into grads."""
        c_qkv, c_attention, c_proj = cache
        do = self.proj.backward(dy, c_proj, grads)  # (B, N, D)
        do = split_heads(do, 1, self.heads)[0]  # (B, h, N, E)
        dqkv = attention_backward(do, c_attention)  # (3, B, h, N, E)
        return self.qkv.backward(merge_heads(dqkv), c_qkv, grads)


def attention_mask(rng: np.random.Generator | None, rate: float, q: Array) -> Array | None:
    """Draw dropout's mask for the attention weights of q (B, h, N, E)  ->  (B, h, N, N).

    None if nothing is dropped. The random numbers are drawn in the order (keys, B, h,
    queries), because attention_fast.py stores the scores like that.
    """
    if rng is None or rate == 0:
        return None
    B, h, N, _ = q.shape
    return draw_mask(rng, (N, B, h, N), rate, q).transpose(1, 2, 3, 0)
