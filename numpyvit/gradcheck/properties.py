"""Properties of a pair that only the property tests check (numpyvit.testing).

As in contract.py, each function returns a list of faults, which is empty if the pair has
the property.
"""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend.arrays import Array
from ..errors import UserError
from .pair import Pair
from .values import close, host, natural_size, random_dy

# Errors of float32 that are allowed: a fraction of a gradient's size, and this many times
# what changes of the last digits of the inputs do.
LOOSE = 1e-2
ROUNDINGS = 64


def batch_splits(pair: Pair, seed: int) -> list[str]:
    """Check that a batch can be computed in two parts, wherever it is cut.

    The y and dx of the parts are those of the whole batch, and the gradients of the
    weights add up to those of the whole batch. One of the parts may be empty, if the
    functions accept an empty batch.
    """
    x, *weights = pair.inputs
    if not x.ndim:
        return []

    def run(part: slice) -> tuple[Array, list[Array]]:
        y, cache = pair.forward([x[part], *weights])
        return y, [host(g) for g in pair.backward(dy[part], cache)]

    dy = random_dy(pair.forward(pair.inputs)[0].shape, seed)
    y, whole = run(slice(None))
    cuts = range(len(x) + 1) if accepts(run, slice(0, 0)) else range(1, len(x))
    for cut in cuts:
        try:
            y1, first = run(slice(None, cut))
            y2, second = run(slice(cut, None))
        except UserError as error:
            return [f"a part of the batch (cut at {cut}) fails, splits=False allows that: {error}"]
        if not (close(y1, y[:cut]) and close(y2, y[cut:])):
            return [f"y of a part (cut at {cut}) is not that part of y"]
        if not close(np.concatenate([first[0], second[0]]), whole[0]):
            return [f"dx of the parts (cut at {cut}) is not dx of the batch"]
        for name, a, b, g in zip(pair.names[1:], first[1:], second[1:], whole[1:], strict=True):
            if not close(a + b, g):
                return [f"the gradients of {name} of the parts (cut at {cut}) do not add up"]
    return []


def accepts(run: Callable[[slice], Any], part: slice) -> bool:
    """Return whether run(part) raises no UserError."""
    try:
        run(part)
    except UserError:
        return False
    return True


def copies(pair: Pair, seed: int) -> list[str]:
    """Check that only the values of arrays count, and that backward keeps its cache.

    Inputs that are read-only and not contiguous give the same results, and so does a
    cache that was pickled.
    """
    y, cache = pair.forward(pair.inputs)
    dy = random_dy(y.shape, seed)
    before = pickle.dumps(cache)
    grads = [host(g) for g in pair.backward(dy, cache)]
    if pickle.dumps(cache) != before:
        return ["backward changed its cache"]

    y_strided, cache_strided = pair.forward([strided(x) for x in pair.inputs])
    if not close(y_strided, y):
        return ["y differs for non-contiguous inputs"]
    copied = pickle.loads(before)  # pickling also makes views contiguous
    for how, other_dy, other_cache in (
        ("for non-contiguous inputs", strided(dy), cache_strided),
        ("when the cache is pickled", dy, copied),
    ):
        others = pair.backward(other_dy, other_cache)
        for name, found, wanted in zip(pair.names, others, grads, strict=True):
            if not close(host(found), wanted):
                return [f"the gradient of {name} differs {how}"]
    return []


def strided(x: Array) -> Array:
    """Return a read-only array with the values of x and gaps in memory between them."""
    wide = np.full((*x.shape, 2), np.nan, x.dtype)
    wide[..., 0] = x
    wide.flags.writeable = False
    return wide[..., 0]


def dtypes(pair: Pair, seed: int) -> list[str]:
    """Check that y and the gradients have the dtype of the inputs, and its values.

    The dtypes are float32, float64 and longdouble. The values are those of float64, as
    far as float32 can tell.
    """
    inputs = [x.astype(np.float32) for x in pair.inputs]
    rng = np.random.default_rng((seed, 11))
    eps = float(np.finfo(np.float32).eps)

    def results(dtype: Any, change: float = 0.0) -> list[Array]:
        """Return y and the gradients, with the last digits of the inputs changed."""
        given = [x.astype(dtype) for x in inputs]
        if change:
            given = [x * (1 + change * rng.uniform(-2, 2, x.shape)) for x in given]
        y, cache = pair.forward(given)
        dy = random_dy(y.shape, seed, np.float32).astype(dtype)
        return [y, *(host(g) for g in pair.backward(dy, cache))]

    right = results(np.float64)
    others = [results(np.float64, eps) for _ in range(3)]
    sizes = [float(abs(a).max(initial=0)) for a in right]
    least = 1e-3 * max(sizes[1:]) + 0.1 * natural_size(right[0], pair.inputs)
    least_sizes = [0.0, *[least] * len(inputs)]
    # Beyond these sizes, float32 overflows or underflows.
    comparable = all(1e-30 < size < 1e30 for size in sizes if size)
    names = ["y", *(f"the gradient of {name}" for name in pair.names)]
    for dtype in (np.float32, np.float64, np.longdouble):
        found = results(dtype)
        for i, (name, a) in enumerate(zip(names, found, strict=True)):
            if a.dtype != dtype:
                return [f"{name} is {a.dtype} for {np.dtype(dtype)} inputs"]
            moved = max(abs(other[i] - right[i]).max(initial=0) for other in others)
            allowed = LOOSE * (sizes[i] + least_sizes[i]) + ROUNDINGS * moved
            if comparable and not abs(a - right[i]).max(initial=0) <= allowed:
                return [f"{name} has other values in {np.dtype(dtype)} than in float64"]
    return []
