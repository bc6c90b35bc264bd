import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from numpyvit.gradcheck import SHARP
from numpyvit.layers.attention import attention_backward, attention_forward, split_heads
from numpyvit.layers.attention_pool import few_queries_backward, few_queries_forward
from numpyvit.testing import assert_gradients, close, normal, seeds, shapes_BNhE


def draw(shape, rows, bias, dropout, seed):
    """x, w, b or None, and a mask (N, B, h, rows) or None."""
    B, N, h, E = shape
    D = h * E
    x, w, b = (
        normal((B, N, D), seed),
        normal((D, 3 * D), seed + 1),
        normal((3 * D,), seed + 2) if bias else None,
    )
    return x, w, b, (normal((N, B, h, min(rows, N)), seed + 3) > 0) * 2.0 if dropout else None


@given(shapes_BNhE(), st.integers(1, 2), st.booleans(), st.booleans(), seeds)
def test_equals_the_textbook(shape, rows, bias, dropout, seed):
    """Queries, keys and values made, attention by its formula; and its gradients back through the one product."""
    B, N, h, E = shape
    rows = min(rows, N)
    x, w, b, mask = draw(shape, rows, bias, dropout, seed)
    q, k, v = split_heads(x @ w + (b if bias else 0), 3, h)
    o, cache = attention_forward(
        q[:, :, :rows], k, v, mask.transpose(1, 2, 3, 0) if dropout else None
    )
    few, few_cache = few_queries_forward(x, w, b, h, rows, mask)
    assert close(few, o.transpose(0, 2, 1, 3).reshape(B, rows, h * E))

    do = normal(few.shape, seed + 4)
    dq, dk, dv = attention_backward(split_heads(do, 1, h)[0], cache)
    dqkv = np.zeros((B, N, 3 * h * E))
    into = split_heads(dqkv, 3, h)
    into[0][:, :, :rows], into[1], into[2] = dq, dk, dv
    dx, dw, db = few_queries_backward(do, few_cache)
    assert close(dx, dqkv @ w.T)
    assert close(dw, np.einsum("bni,bno->io", x, dqkv))
    assert db is None if b is None else close(db, dqkv.sum((0, 1)))


@given(shapes_BNhE(), st.integers(1, 2), st.booleans(), seeds)
def test_gradients(shape, rows, dropout, seed):
    _, N, h, _ = shape
    x, w, b, mask = draw(shape, rows, True, dropout, seed)
    assert_gradients(
        lambda x, w, b: few_queries_forward(x, w, b, h, min(rows, N), mask),
        few_queries_backward,
        x,
        w,
        b,
        tolerance=SHARP,
        zero=["input 0", "input 1", "input 2"],
    )  # one key, or all dropped: nothing to learn
