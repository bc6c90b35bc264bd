"""How exactly a backward computes: how much rounding moves its gradients."""

import numpy as np

from ..backend.arrays import Array
from .pair import Pair
from .values import host

COUNT = 4  # random dys


def rounding(pair: Pair, seed: int, rescale: bool = True) -> tuple[Array, list[Array]]:
    """Return four random dys (4, m), and how much rounding moves their gradients.

    The second is an array (4, size) for each input. It is measured: the last digits of
    the inputs are changed at random, and dy is scaled by a random factor (unless
    rescale is False) that is divided out of the gradients, so that every operation
    rounds differently.
    """
    rng = np.random.default_rng((seed, 4))
    eps = np.finfo(np.float64).eps
    y, cache = pair.forward(pair.inputs)
    dys = rng.normal(size=(COUNT, *y.shape))
    moved = [np.empty((COUNT, x.size)) for x in pair.inputs]
    for i, dy in enumerate(dys):
        plain = [host(g).copy() for g in pair.backward(dy.copy(), cache)]
        scale = rng.uniform(0.5, 1) if rescale else 1.0
        inputs = [x * (1 + eps * rng.uniform(-2, 2, x.shape)) for x in pair.inputs]
        _, other_cache = pair.forward(inputs)
        other = pair.backward(scale * dy, other_cache)
        for out, g, g_plain in zip(moved, other, plain, strict=True):
            out[i] = (host(g) / scale - g_plain).ravel()
    return dys.reshape(COUNT, -1), moved
