"""Which step is the gradient of which, found on a small model with the same steps.

The answer depends on the parts of a model and not on their sizes, so it is proven on a twin
with the same parts and few features and patches, which takes seconds for a model of any
size.
"""

import dataclasses

import numpy as np

from ..config import ViTConfig
from ..gradcheck import noisy
from ..vit import ViT
from .slopes import gradient_steps
from .trace import Trace, trace

HEAD_WIDTH = 4  # rotary positions need a multiple of 4
FEATURES = 6  # of the hidden layers


def gradients_of(model: ViT, recorded: Trace) -> dict[int, int]:
    """Return what gradient_steps returns for this model, whose trace is given."""
    config = twin_config(model.config)
    twin = ViT(config)
    image = np.random.default_rng(1).normal(size=(*config.image, config.channels))
    params = noisy(twin, 0)
    # The least likely class gives a large loss, and so large gradients.
    label = int(twin.forward(params, image[None], need_cache=False)[0].argmin())
    if structure(trace(twin, params, image, label)) != structure(recorded):
        raise ValueError(f"a model of {config} has other steps")
    return {
        n: gradient
        for n, gradient in gradient_steps(twin, params, image, label).items()
        if recorded.steps[n].value.shape == recorded.steps[gradient].value.shape
    }


def twin_config(config: ViTConfig) -> ViTConfig:
    """Return a config with the same parts as this one, but of small sizes."""
    (rows, columns), (p1, p2) = config.grid, config.patch
    return dataclasses.replace(
        config,
        image_size=(min(rows, 2) * p1, min(columns, 3) * p2),
        width=HEAD_WIDTH * config.heads,
        mlp_width=FEATURES,
        head_hidden=config.head_hidden and FEATURES + 1,
        norm_eps=0.1,  # a norm of few features is otherwise almost a step function
    )


def structure(recorded: Trace) -> list[tuple[str, str, str, int]]:
    """Return what is the same for a model and its twin: where each step was made."""
    return [(s.layer, s.function, s.variable, s.line) for s in recorded.steps]
