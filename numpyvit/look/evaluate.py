"""The values of a formula, which tests compare with the recorded ones."""

import math
from collections.abc import Sequence

import numpy as np

from ..backend.arrays import Array
from .formulas import Tree


def evaluate(tree: Tree, steps: Sequence[Array]) -> Array:
    """Return the values of a formula, computed from those of the recorded steps."""
    op, shape = tree["op"], tuple(tree["shape"])
    if op == "step":
        return np.asarray(steps[tree["step"]])
    if op == "number":
        return np.full(shape, tree["value"])
    if op == "gather":
        flat = np.append(evaluate(tree["arg"], steps).ravel(), 0)  # -1: the zero at the end
        if "index" in tree:
            return flat[np.array(tree["index"], int)].reshape(shape)
        grid = np.indices(shape).reshape(len(shape), -1)
        places = tree["offset"] + np.array(tree["strides"], int) @ grid
        return flat[places].reshape(shape)
    if op == "assign":
        base = evaluate(tree["base"], steps).ravel().copy()
        base[tree["index"]] = evaluate(tree["value"], steps).ravel()
        return base.reshape(shape)
    if op == "join":
        return np.concatenate([evaluate(arg, steps).ravel() for arg in tree["args"]])
    if op in ("sum", "max"):
        arg = evaluate(tree["arg"], steps)
        return arg.sum(-1) if op == "sum" else arg.max(-1)
    args = [evaluate(arg, steps) for arg in tree["args"]]
    if op == "erf":
        return np.vectorize(math.erf, otypes=[float])(args[0])
    return getattr(np, op)(*args)
