import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from numpyvit.gradcheck import SHARP, noisy
from numpyvit.layers.block import Block
from numpyvit.layers.dropout import draw_mask
from numpyvit.params import named_params
from numpyvit.testing import check_layer_contract, close, normal, seeds

# Widths from 4 on, and a large eps: see test_layernorm.
shapes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.sampled_from([(4, 1), (4, 2), (6, 3)]))


@given(shapes, st.sampled_from(["tanh", "erf"]), st.booleans(), st.sampled_from([None, 1]), seeds)
def test_contract(shape, gelu, bias, rows, seed):
    B, N, (D, h) = shape
    block = Block(D, h, 3, gelu=gelu, qkv_bias=bias, eps=0.3)
    check_layer_contract(block, normal((B, N, D), seed), seed, rows=rows, tolerance=SHARP)


@given(shapes, st.sampled_from([None, 1]), seeds)
def test_contract_with_every_dropout(shape, rows, seed):
    B, N, (D, h) = shape
    block = Block(D, h, 3, eps=0.3, dropout=0.2, attention_dropout=0.2, drop_path=0.2)
    check_layer_contract(
        block,
        normal((B, N, D), seed),
        seed,
        splits=False,
        rows=rows,
        rng=lambda: np.random.default_rng(seed),
        zero=block_names(block),
        tolerance=SHARP,
    )


def block_names(block):
    return [name for name, _ in named_params(block)]  # a dropped branch learns nothing


@given(shapes, st.sampled_from(["dropout", "drop_path"]), seeds)
def test_the_masks_are_where_they_belong(shape, kind, seed):
    """By hand from the block's parts: the first mask drawn is the attention's branch's, the second the MLP's."""
    B, N, (D, h) = shape
    block = Block(D, h, 3, eps=0.3, **{kind: 0.5})
    params, x, rng = noisy(block, seed), normal((B, N, D), seed), np.random.default_rng(seed)
    masks = [
        draw_mask(rng, (B, N, D) if kind == "dropout" else (B, 1, 1), 0.5, x) for _ in range(2)
    ]
    a, _ = block.attention.forward(params, block.norm1.forward(params, x)[0])
    z = x + a * masks[0]
    a, _ = block.mlp.forward(params, block.norm2.forward(params, z)[0])
    y, _ = block.forward(params, x, np.random.default_rng(seed))
    assert close(y, z + a * masks[1])


@given(shapes, st.booleans(), seeds)
def test_rows_are_the_first_rows(shape, dropout, seed):
    B, N, (D, h) = shape
    p = 0.3 if dropout else 0.0
    block = Block(D, h, 3, dropout=p, attention_dropout=p, drop_path=p)
    params, x = noisy(block, seed), normal((B, N, D), seed)
    y, cache = block.forward(params, x, np.random.default_rng(seed))
    y1, cache1 = block.forward(params, x, np.random.default_rng(seed), rows=1)
    assert close(y1, y[:, :1])
    dy = np.zeros_like(y)
    dy[:, :1] = normal(y1.shape, seed)
    g, g1 = params.zeros_like(), params.zeros_like()
    assert close(block.backward(dy[:, :1], cache1, g1), block.backward(dy, cache, g), 1e-10)
    assert close(g1.flat, g.flat, 1e-10)
