"""Turn a layer with weights into a pure pair of functions, which the checker takes."""

import inspect
from functools import partial
from typing import Any

import numpy as np

from ..backend.arrays import Array, get_xp
from ..params import Buffer, init
from .pair import Backward, Forward, Pair
from .values import host, norm, random_dy


def layer_pair(layer: Any, params: Buffer, **options: Any) -> tuple[Forward, Backward, list[str]]:
    """Return a layer as a pure pair over (x, every weight), and the names ["x", ...].

    The weights are arguments of the forward that is returned; of `params` only the
    layout is used. options are passed to the layer's forward. A function among them is
    called each time: with `rng=lambda: default_rng(3)` every call has the same dropout.
    A backward that has the argument need_dx is asked for dx. The backward that is
    returned takes an optional third argument, what grads holds before (by default 0).
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

    def backward(dy: Array, cache: Any, start: Any = 0) -> tuple[Array, ...]:
        grads = Buffer(params.params, get_xp(dy).zeros(params.flat.shape, dy.dtype))
        grads.flat[...] = start
        dx = layer.backward(dy, cache, grads, **backward_options)
        return (dx, *(grads[name] for name in grads.names()))

    return forward, backward, ["x", *params.names()]


def overwriting(layer: Any, x: Any, seed: int, **options: Any) -> list[str]:
    """Check that a layer's backward adds its gradients to what is in grads already.

    The backward is given numbers of the size of the gradients and has to add to them.
    Returns a list of one fault, or of none.
    """
    params = noisy(layer, seed)
    forward, backward, names = layer_pair(layer, params, **options)
    pair = Pair(forward, backward, [x, *params.values()], names)
    y, cache = pair.forward(pair.inputs)
    dy = random_dy(y.shape, seed)
    grads = [host(g).astype(np.float64) for g in pair.backward(dy, cache)[1:]]
    largest = norm(np.array([norm(g) for g in grads])) or 1.0
    if not grads or not np.isfinite(largest):
        return []

    rng = np.random.default_rng((seed, 10))
    before = params.zeros_like()
    for name, g in zip(before, grads, strict=True):
        sign = rng.choice([-1.0, 1.0], g.shape)
        before[name] = sign * rng.uniform(1, 2, g.shape) * largest
    add: Any = backward
    pair.to_backward = partial(add, start=pair.xp.asarray(before.flat))
    after = [host(g) for g in pair.backward(dy, cache)[1:]]
    wrong = [
        name
        for name, g, found in zip(before, grads, after, strict=True)
        if not abs(found - before[name] - g).max(initial=0) <= 1e-6 * largest
    ]
    if not wrong:
        return []
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return [
        f"backward overwrites what grads holds of {', '.join(wrong[:3])}{more}: add to it, as in "
        "grads[self.w] += dw"
    ]


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
