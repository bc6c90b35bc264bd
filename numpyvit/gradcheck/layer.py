"""Turn a layer with weights into a pure pair of functions, which the checker takes."""

import inspect
from typing import Any

import numpy as np

from ..backend.arrays import Array, get_xp
from ..params import Buffer, init
from .pair import Backward, Forward


def layer_pair(layer: Any, params: Buffer, **options: Any) -> tuple[Forward, Backward, list[str]]:
    """Return a layer as a pure pair over (x, every weight), and the names ["x", ...].

    The weights are arguments of the forward that is returned; of `params` only the
    layout is used. options are passed to the layer's forward. A function among them is
    called each time: with `rng=lambda: default_rng(3)` every call has the same dropout.
    A backward that has the argument need_dx is asked for dx.
    """
    takes_need_dx = "need_dx" in inspect.signature(layer.backward).parameters
    backward_options = {"need_dx": True} if takes_need_dx else {}

    def forward(x: Array, *weights: Array) -> tuple[Array, Any]:
        flat = get_xp(x).empty(params.flat.shape, x.dtype)
        values = Buffer(params.params, flat)
        for name, w in zip(params.names(), weights, strict=True):
            values[name] = w
        if get_xp(x) is np:
            flat.flags.writeable = False  # a layer that writes to its weights fails
        forward_options = {
            key: value() if callable(value) else value for key, value in options.items()
        }
        return layer.forward(Buffer(params.params, flat), x, **forward_options)

    def backward(dy: Array, cache: Any) -> tuple[Array, ...]:
        grads = Buffer(params.params, get_xp(dy).zeros(params.flat.shape, dy.dtype))
        dx = layer.backward(dy, cache, grads, **backward_options)
        return (dx, *(grads[name] for name in grads.names()))

    return forward, backward, ["x", *params.names()]


def noisy(layer: Any, seed: int, dtype: Any = np.float64) -> Buffer:
    """Return a layer's initial weights plus noise, so that no bias is 0."""
    params = init(layer, seed, dtype)
    params.flat += np.random.default_rng((seed, 1)).normal(0, 0.3, params.flat.shape)
    return params


def noisy_pair(
    layer: Any, seed: int, **options: Any
) -> tuple[Forward, Backward, list[str], list[Array]]:
    """Return layer_pair's forward, backward and names, and noisy weights."""
    params = noisy(layer, seed)
    forward, backward, names = layer_pair(layer, params, **options)
    return forward, backward, names, [params[name] for name in params.names()]
