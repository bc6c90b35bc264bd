"""The fast twin of the pair in attention.py: the same values in another memory layout.

The scores are laid out keys first, (N keys, B, h, N queries). The maximum and the sum that
softmax takes over the keys of a query then run along long rows of memory, for all queries
at once, and take a seventh to a twentieth of the time. In addition, `transposed` copies
factors into the layout in which matrix products are fastest. Both together bring attention
to 0.58 (N = 17) to 0.88 (N = 197) of the time of the textbook form.
"""

from ..backend.arrays import Array, get_xp
from ..backend.ops import col_sum, row_dot, transposed


def attention_fast_forward(
    q: Array, k: Array, v: Array, mask: Array | None = None
) -> tuple[Array, tuple]:
    """q, k, v (B, h, N, E), mask (B, h, N, N) or None  ->  o (B, h, N, E), cache."""
    xp = get_xp(q)
    B, h, N, E = q.shape
    a = xp.empty((N, B, h, N), q.dtype)
    scores = a.transpose(1, 2, 0, 3)  # (B, h, N keys, N queries), a view of a
    xp.matmul(k, transposed(q, E**-0.5), out=scores)  # scores[..., j, i] = k_j · q_i / √E
    a -= a.max(0)
    xp.exp(a, out=a)
    sums = col_sum(a.reshape(N, B * h * N)).reshape(B, h, N)
    a *= 1 / sums
    p = a if mask is None else a * mask.transpose(3, 0, 1, 2)
    # The result lies in memory as (B, N, h, E), so that merging the heads needs no copy.
    o = xp.empty((B, N, h, E), q.dtype).transpose(0, 2, 1, 3)
    xp.matmul(p.transpose(1, 2, 3, 0), v, out=o)
    return o, (q, k, v, a, p, o, mask)


def attention_fast_backward(do: Array, cache: tuple) -> Array:
    """do (B, h, N, E)  ->  dq, dk, dv in one array (3, B, h, N, E).

    The number that softmax's backward subtracts from the row of a query is Σ_j da_ij a_ij.
    With da = mask dp and p = mask a, da a = dp p. With dp_ij = do_i · v_j and
    Σ_j p_ij v_j = o_i, the sum is do_i · o_i: E products per query instead of N.
    """
    q, k, v, a, p, o, mask = cache
    xp = get_xp(q)
    B, h, N, E = q.shape
    scale = E**-0.5
    # In memory (B, N, 3, h, E), so that merging the heads needs no copy.
    dqkv = xp.empty((B, N, 3, h, E), do.dtype).transpose(2, 0, 3, 1, 4)
    dq, dk, dv = dqkv
    xp.matmul(p.transpose(1, 2, 0, 3), do, out=dv)  # o = p v
    ds = xp.empty_like(a)
    da = ds.transpose(1, 2, 0, 3)  # (B, h, N keys, N queries), a view of ds
    xp.matmul(v, transposed(do, scale), out=da)  # dp / √E: the scale of s is included
    if mask is not None:
        ds *= mask.transpose(3, 0, 1, 2)  # p = a mask
    dots = row_dot(do.swapaxes(1, 2), o.swapaxes(1, 2))[..., 0]  # do_i · o_i, (B, N, h)
    ds -= scale * xp.ascontiguousarray(dots.swapaxes(1, 2))
    ds *= a  # a = softmax(s)
    xp.matmul(ds.transpose(1, 2, 3, 0), k, out=dq)  # s = q kᵀ
    xp.matmul(ds.transpose(1, 2, 0, 3), q, out=dk)  # s = q kᵀ
    return dqkv
