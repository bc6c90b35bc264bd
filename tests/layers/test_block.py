import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from numpyvit import ViTConfig
from numpyvit.gradcheck import SHARP, noisy
from numpyvit.layers.block import Block
from numpyvit.layers.dropout import draw_mask
from numpyvit.layers.last_block import LastBlock
from numpyvit.layers.rotary import rotation_table
from numpyvit.params import Buffer, init, params_of
from numpyvit.testing import check_layer_contract, close, normal, seeds

# Widths from 4 on, and a large eps: see test_layernorm.
shapes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.sampled_from([(4, 1), (4, 2), (6, 3)]))


def make(kind, width, heads, **fields):
    """Return the only block of a small model."""
    fields = {"norm_eps": 0.3, **fields}
    return kind(ViTConfig(width=width, heads=heads, depth=1, mlp_width=3, **fields), 0)


@given(
    shapes,
    st.sampled_from([Block, LastBlock]),
    st.sampled_from(["tanh", "erf"]),
    st.booleans(),
    seeds,
)
def test_contract(shape, kind, gelu, bias, seed):
    B, N, (D, h) = shape
    block = make(kind, D, h, gelu=gelu, qkv_bias=bias)
    check_layer_contract(block, normal((B, N, D), seed), seed, tolerance=SHARP)


@given(shapes, st.sampled_from([Block, LastBlock]), seeds)
def test_contract_with_every_dropout(shape, kind, seed):
    B, N, (D, h) = shape
    block = make(kind, D, h, dropout=0.2, attention_dropout=0.2, drop_path=0.2)
    check_layer_contract(
        block,
        normal((B, N, D), seed),
        seed,
        splits=False,
        rng=lambda: np.random.default_rng(seed),
        zero=list(params_of(block)),  # nothing is learned by a dropped branch
        tolerance=SHARP,
    )


@given(st.integers(1, 3), seeds)
def test_contract_with_rotary_positions(B, seed):
    block = make(Block, 8, 2, positions="rotary")
    x, rotation = normal((B, 4, 8), seed), rotation_table((2, 2), 4)
    check_layer_contract(block, x, seed, rotation=rotation, tolerance=SHARP)


@given(shapes, st.sampled_from(["dropout", "drop_path"]), seeds)
def test_the_masks_are_where_they_belong(shape, kind, seed):
    """From the block's parts: the first mask is for attention's branch, then one for the MLP's."""
    B, N, (D, h) = shape
    block = make(Block, D, h, **{kind: 0.5})
    params, x, rng = noisy(block, seed), normal((B, N, D), seed), np.random.default_rng(seed)
    mask_shape = (B, N, D) if kind == "dropout" else (B, 1, 1)
    masks = [draw_mask(rng, mask_shape, 0.5, x) for _ in range(2)]
    a, _ = block.attention.forward(params, block.norm1.forward(params, x)[0])
    z = x + a * masks[0]
    a, _ = block.mlp.forward(params, block.norm2.forward(params, z)[0])
    y, _ = block.forward(params, x, np.random.default_rng(seed))
    assert close(y, z + a * masks[1])


@given(shapes, st.booleans(), st.booleans(), seeds)
def test_the_last_block_is_the_first_token_of_a_block(shape, dropout, bias, seed):
    B, N, (D, h) = shape
    p = 0.3 if dropout else 0.0
    fields = {"dropout": p, "attention_dropout": p, "drop_path": p, "qkv_bias": bias}
    block, last = make(Block, D, h, **fields), make(LastBlock, D, h, **fields)
    params, x = noisy(block, seed), normal((B, N, D), seed)
    assert params_of(last).keys() == params_of(block).keys()
    params1 = Buffer(init(last).params, params.flat)
    y, cache = block.forward(params, x, np.random.default_rng(seed))
    y1, cache1 = last.forward(params1, x, np.random.default_rng(seed))
    assert close(y1, y[:, :1])
    dy = np.zeros_like(y)
    dy[:, :1] = normal(y1.shape, seed)
    g, g1 = params.zeros_like(), params1.zeros_like()
    assert close(last.backward(dy[:, :1], cache1, g1), block.backward(dy, cache, g), 1e-10)
    assert close(g1.flat, g.flat, 1e-10)
