"""The contract of a pair: the results it returns and the arguments it leaves unchanged.

Each function below checks one part of the contract, whatever the two compute, and
returns a list of faults, one line each. The list is empty if the pair keeps that part.
"""

import numpy as np

from ..backend.arrays import Array
from ..errors import UserError
from .pair import Pair
from .rounding import rounding
from .values import host, natural_size, normal, random_dy, same


def purity(pair: Pair, seed: int) -> list[str]:
    """Check that forward is deterministic, and that no argument is changed.

    Neither may write to the inputs or to dy. The gradients have the shape and dtype of
    the inputs, and share no memory with them or with each other.
    """
    inputs = [pair.xp.asarray(x.copy()) for x in pair.inputs]
    y, cache = pair.forward(inputs)
    faults = [
        f"forward changed {name}"
        for name, x, original in zip(pair.names, inputs, pair.inputs, strict=True)
        if not same(host(x), original)
    ]
    if y.dtype != np.float64:
        faults.append(f"y is {y.dtype} for float64 inputs")
    again, _ = pair.forward(pair.inputs)
    if not faults and not same(y, again):
        faults.append(
            "forward is not deterministic: a second call returns another y (create a random "
            "generator from its seed inside forward)"
        )
    if faults:
        return faults  # nothing more can be said about such a pair

    dy = pair.xp.asarray(random_dy(y.shape, seed))
    grads = pair.backward(dy, cache)
    if not same(host(dy), random_dy(y.shape, seed)):
        faults.append("backward changed dy")
    for name, x, original, g in zip(pair.names, inputs, pair.inputs, grads, strict=True):
        if not same(host(x), original):
            faults.append(f"backward changed {name}")
        gradient = host(g)
        if gradient.shape != x.shape:
            faults.append(
                f"the gradient of {name} has shape {gradient.shape}, and {name} has {x.shape}"
            )
        elif gradient.dtype != np.float64:
            faults.append(f"the gradient of {name} is {gradient.dtype} for float64 inputs")
    return faults + shared_memory(pair, inputs, grads)


def shared_memory(pair: Pair, inputs: list, grads: list) -> list[str]:
    """Return a fault for each gradient that shares memory with another array."""
    named_inputs = list(zip(pair.names, inputs, strict=True))
    named_grads = [
        (f"the gradient of {name}", g) for name, g in zip(pair.names, grads, strict=True)
    ]
    return [
        f"{name} shares memory with {other}: adding to one in place changes the other"
        for i, (name, g) in enumerate(named_grads)
        for other, h in named_grads[i + 1 :] + named_inputs
        if pair.xp.shares_memory(g, h)
    ]


def linearity(pair: Pair, seed: int) -> list[str]:
    """Check that backward is linear in dy, and gives the same bits at a second call.

    backward(2 a - 3 b) = 2 backward(a) - 3 backward(b), also
    backward(s a) = s backward(a) for a very large and a very small s.
    """
    y, cache = pair.forward(pair.inputs)
    a = random_dy(y.shape, seed)
    b = random_dy(y.shape, seed + 1)

    def gradients(dy: Array, scale: float = 1.0) -> list[Array]:
        return [host(g) / scale for g in pair.backward(scale * dy, cache)]

    of_a = gradients(a)
    of_b = gradients(b)
    of_mixed = gradients(2 * a - 3 * b)
    again = gradients(a)
    faults = [
        f"the gradient of {name} differs at a second call of backward"
        for name, first, second in zip(pair.names, of_a, again, strict=True)
        if not same(first, second)
    ]
    if faults:
        return faults

    large = gradients(a, 2.0**40)
    small = gradients(a, 2.0**-40)
    sizes = [
        max(abs(p).max(initial=0), abs(q).max(initial=0)) for p, q in zip(of_a, of_b, strict=True)
    ]
    least_size = 1e-3 * max(sizes) + 0.1 * natural_size(y, pair.inputs)
    _, moved = rounding(pair, seed, rescale=False)
    for i, (name, size) in enumerate(zip(pair.names, sizes, strict=True)):
        allowed = 1e-11 * (size + least_size) + 64 * abs(moved[i]).max(initial=0)
        pairs = (
            (of_mixed[i], 2 * of_a[i] - 3 * of_b[i]),
            (large[i], of_a[i]),
            (small[i], of_a[i]),
        )
        errors = [abs(found - wanted).max(initial=0) for found, wanted in pairs]
        if np.isfinite(size) and not max(errors) <= allowed:
            faults.append(f"the gradient of {name} is not linear in dy")
    return faults


def reentrancy(pair: Pair, seed: int) -> list[str]:
    """Check that a backward does not depend on other calls made since its forward.

    After two forwards, the first one's backward must give what it gives without the
    second: all that backward needs is in the cache.
    """
    y, cache = pair.forward(pair.inputs)
    dy = random_dy(y.shape, seed)
    alone = [host(g).copy() for g in pair.backward(dy, cache)]

    y, cache = pair.forward(pair.inputs)
    nearby = [x * (1 + 1e-3 * normal(x.shape, seed + i)) for i, x in enumerate(pair.inputs)]
    try:
        other, other_cache = pair.forward(nearby)
        pair.backward(random_dy(other.shape, seed + 1), other_cache)
    except UserError:  # forward is not defined there
        pair.forward(pair.inputs)
    return [
        f"the gradient of {name} changes if forward is called again before backward: keep "
        "everything that backward needs in the cache"
        for name, g, expected in zip(pair.names, pair.backward(dy, cache), alone, strict=True)
        if not same(host(g), expected)
    ]
