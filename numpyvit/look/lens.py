"""The logit lens: what the head would say after each block.

The last norm, the pooling and the head are applied to the residual stream as it is
before the first block and after each of them (nostalgebraist, 2020, "interpreting GPT:
the logit lens"). After the last block the result is the model's own.
"""

from typing import Any

import numpy as np

from ..backend.arrays import Array
from ..config import ViTConfig
from ..params import Buffer
from ..vit import ViT
from ..watch import Call, watch


def logit_lens(config: ViTConfig, params: Buffer, image: Array) -> Array:
    """Return the logits (depth + 1, K) of one image (H, W, C), normalised."""
    model = ViT(config, shortcuts=False)
    weights = Buffer(model.params, params.flat)
    blocks = {f"blocks.{i}" for i in range(config.depth)}
    stream: list[Array] = []

    def hook(call: Call) -> Any:
        if call.name in blocks and not stream:
            stream.append(call.args[1])
        result = call()
        if call.name in blocks:
            stream.append(result[0])
        return result

    with watch(model, hook):
        model.forward(weights, image[None], need_cache=False)
    x, _ = model.norm.forward(weights, np.concatenate(stream))
    x, _ = model.pool.forward(weights, x)
    logits, _ = model.head.forward(weights, x)
    return logits
