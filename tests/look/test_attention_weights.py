import numpy as np
import pytest
from hypothesis import given

from numpyvit import ViT
from numpyvit.gradcheck import noisy
from numpyvit.look.attention import attention_weights
from numpyvit.testing import close, normal, seeds, vit_configs


@given(vit_configs(), seeds)
def test_rows_are_averages_over_all_tokens(config, seed):
    model = ViT(config)
    images = normal((2, *config.image, config.channels), seed)
    found = attention_weights(model, noisy(model, seed), images)
    assert list(found) == [f"blocks.{i}" for i in range(config.depth)]
    for weights in found.values():
        assert weights.shape == (2, config.heads, config.tokens, config.tokens)
        assert close(weights.sum(-1), np.ones(weights.shape[:-1]))


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_the_weights_explain_the_output_of_attention(positions):
    """The output of the first block's attention is the average of the values with them."""
    from numpyvit import ViTConfig

    config = ViTConfig(6, 3, 1, 3, width=8, depth=1, heads=2, mlp_width=4, positions=positions)
    model = ViT(config, shortcuts=False)
    params, images = noisy(model, 0), normal((2, 6, 6, 1), 0)
    weights = attention_weights(model, params, images)["blocks.0"]
    x, _ = model.embed.forward(params, images)
    x, _ = model.prefix.forward(params, x)
    x, _ = model.positions.forward(params, x)
    block = model.blocks[0]
    a, _ = block.norm1.forward(params, x)
    y, _ = block.attention.forward(params, a, rotation=model.positions.rotation(x))
    v = (a @ params["blocks.0.attention.qkv.w"] + params["blocks.0.attention.qkv.b"])[..., 16:]
    o = np.einsum("bhij,bjhe->bihe", weights, v.reshape(2, 5, 2, 4)).reshape(2, 5, 8)
    wanted = o @ params["blocks.0.attention.proj.w"] + params["blocks.0.attention.proj.b"]
    assert close(y, wanted)
