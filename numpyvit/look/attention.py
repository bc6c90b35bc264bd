"""The attention weights of a model: which tokens each token collects information from."""

import inspect
from typing import Any

import numpy as np

from ..backend.arrays import Array
from ..layers import attention
from ..params import Buffer
from ..vit import ViT
from ..watch import Call, watch


def attention_weights(model: ViT, params: Buffer, images: Array) -> dict[str, Array]:
    """Return the attention weights of each block, {"blocks.0": (B, h, N, N), ...}.

    images (B, H, W, C), normalised. Row i of a matrix has the weights with which token i
    averages the values of all tokens; it sums to 1. The model is run without shortcuts.
    """
    plain = ViT(model.config, shortcuts=False)
    found: dict[str, Array] = {}

    def hook(call: Call) -> Any:
        y, cache = call()
        if isinstance(call.layer, attention.Attention):
            *_, c_attention, _ = cache
            q, k, v = c_attention[:3]
            _, (*_, weights, _, _) = textbook(q, k, v)
            found[call.name.removesuffix(".attention")] = weights
        return y, cache

    textbook = inspect.unwrap(attention.attention_forward)
    with watch(plain, hook):
        plain.forward(Buffer(plain.params, params.flat), np.asarray(images))
    return found
