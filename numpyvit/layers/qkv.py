"""Queries, keys and values: what each token asks, what it answers to, and what it then says. One product makes all three."""

from typing import Any

from ..backend import Array, get_xp
from .linear import Cache, linear_backward, linear_forward


def split_heads(x: Array, parts: int, heads: int) -> Array:
    """(B, N, parts * D)  ->  (parts, B, h, N, E), a view: q, k, v = split_heads(qkv, 3, heads)."""
    B, N, width = x.shape
    return x.reshape(B, N, parts, heads, width // parts // heads).transpose(2, 0, 3, 1, 4)


def qkv_forward(x: Array, w: Array, b: Array | None, heads: int, rows: int | None = None) -> tuple[list[Array], list[Cache]]:
    """x (B, N, D), w (D, 3D), b (3D,) or None  ->  [q (B, h, rows or N, E), k, v (B, h, N, E)], caches of the products.

    rows: how many leading tokens ask. Where not all do, their q is a product of its own, and k and v another.
    """
    D = x.shape[-1]
    if rows is None:
        inputs = [(x, w, b)]
    else:
        inputs = [(x[:, :rows], w[:, :D], b if b is None else b[:D]), (x, w[:, D:], b if b is None else b[D:])]
    products = [linear_forward(*args) for args in inputs]
    return [part for y, _ in products for part in split_heads(y, y.shape[-1] // D, heads)], [cache for _, cache in products]


def qkv_gradients(caches: list[Cache], heads: int) -> tuple[list[Array], list[Array]]:
    """Empty arrays for the gradients of forward's products, and dq, dk, dv as views into them: attention writes there,
    and nothing needs to be put together afterwards."""
    D = caches[0][1].shape[0]
    arrays = [get_xp(x).empty((*x.shape[:-1], w.shape[1]), x.dtype) for x, w, _ in caches]
    return arrays, [part for a in arrays for part in split_heads(a, a.shape[-1] // D, heads)]


def qkv_backward(arrays: list[Array], caches: list[Cache]) -> tuple[Array, Array, Array | Any]:
    """arrays as from qkv_gradients, filled  ->  dx (B, N, D), dw (D, 3D), db (3D,) or None."""
    products = [linear_backward(dy, cache) for dy, cache in zip(arrays, caches, strict=True)]
    if len(products) == 1:
        return products[0]
    (dx_rows, dw_q, db_q), (dx, dw_kv, db_kv) = products
    dx[:, :dx_rows.shape[1]] += dx_rows                                  # the tokens that asked were also asked
    xp = get_xp(dx)
    return dx, xp.concatenate([dw_q, dw_kv], axis=1), None if db_q is None else xp.concatenate([db_q, db_kv])
