"""The contract of a pair: the results it returns and the arguments it leaves unchanged.

Each function below checks one part of the contract, whatever the two compute, and
returns a list of faults, one line each. The list is empty if the pair keeps that part.
"""

import contextlib
from collections.abc import Iterator

import numpy as np

from ..backend.arrays import Array
from ..errors import UserError
from .pair import Pair
from .rounding import rounding
from .values import close, host, natural_size, norm, normal, random_dy, same

LAYOUT_TOLERANCE = 1e-6  # sums in another order round differently


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
    backward(s a) = s backward(a) for a very large s and a very small negative one.
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
    small = gradients(a, -(2.0**-40))
    sizes = [
        max(abs(p).max(initial=0), abs(q).max(initial=0)) for p, q in zip(of_a, of_b, strict=True)
    ]
    least_size = 1e-3 * max(sizes) + 0.1 * natural_size(y, pair.inputs)
    moved: list[Array] = []  # by rounding; measured only where that matters
    for i, (name, size) in enumerate(zip(pair.names, sizes, strict=True)):
        pairs = (
            (of_mixed[i], 2 * of_a[i] - 3 * of_b[i]),
            (large[i], of_a[i]),
            (small[i], of_a[i]),
        )
        error = max(abs(found - wanted).max(initial=0) for found, wanted in pairs)
        allowed = 1e-11 * (size + least_size)
        if not np.isfinite(size) or error <= allowed:
            continue
        moved = moved or rounding(pair, seed, rescale=False)[1]
        if not error <= allowed + 64 * abs(moved[i]).max(initial=0):
            faults.append(f"the gradient of {name} is not linear in dy")
    return faults


def reentrancy(pair: Pair, seed: int) -> list[str]:
    """Check that a backward does not depend on other calls made since its forward.

    Between a forward and its backward, forward is called at other inputs, and backward
    after it. The first forward's y and gradients must stay what they are without that:
    all that backward needs is in the cache, and every call returns new arrays.
    """
    y, cache = pair.forward(pair.inputs)
    y_alone = y.copy()
    dy = random_dy(y.shape, seed)
    alone = [host(g).copy() for g in pair.backward(dy, cache)]
    advice = "keep everything that backward needs in the cache"
    called = False  # whether backward was called at other inputs
    for inputs in other_inputs(pair, seed):
        try:
            other, other_cache = pair.forward(inputs)
        except UserError:  # forward is not defined there
            continue
        if not np.isfinite(other).all():
            continue
        if not same(y, y_alone):
            return ["y is overwritten by the next call of forward: return a new array"]
        try:
            grads = pair.backward(dy, cache)
        except UserError as error:
            return [f"{error}, after forward was called with another batch: {advice}"]
        changes = f"changes if forward is called again before backward: {advice}"
        if faults := changed(pair, grads, alone, changes):
            return faults
        if not called:
            with contextlib.suppress(UserError):
                pair.backward(random_dy(other.shape, seed + 1), other_cache)
            changes = "is overwritten by the next call of backward: return a new array"
            if faults := changed(pair, grads, alone, changes):
                return faults
            called = True
    return []


def changed(pair: Pair, grads: list, expected: list[Array], how: str) -> list[str]:
    """Return a fault for each of the gradients that is not the expected one."""
    return [
        f"the gradient of {name} {how}"
        for name, g, wanted in zip(pair.names, grads, expected, strict=True)
        if not same(host(g), wanted)
    ]


def other_inputs(pair: Pair, seed: int) -> Iterator[list[Array]]:
    """Yield other inputs, at which what forward keeps outside of its cache would differ.

    The first two change every sign, and with it a mask such as x > 0 or the position of
    a maximum. They may lie outside the domain of forward. The next two do not: they are
    the same values in another order, and values close to them. The last have one more
    element along an axis: another batch, or another number of tokens or features.
    """
    x, *weights = pair.inputs
    rng = np.random.default_rng((seed, 6))
    yield [-x, *weights]
    yield [-a * rng.uniform(0.25, 4, a.shape) for a in pair.inputs]
    yield [np.flip(a) for a in pair.inputs]
    yield [a * (1 + 1e-3 * normal(a.shape, seed + i)) for i, a in enumerate(pair.inputs)]
    for axis in range(x.ndim):
        first = x.take(range(min(1, x.shape[axis])), axis)
        yield [np.concatenate([x, first], axis), *weights]


def layouts(pair: Pair, seed: int) -> list[str]:
    """Check that the order of the elements in memory changes nothing but rounding.

    Inputs, or dy, are given in Fortran order, which `x.ravel("K")` and pointers into
    the memory of an array do see. A forward or backward that refuses such arrays by an
    exception gives no wrong result, and passes.
    """
    y, cache = pair.forward(pair.inputs)
    dy = random_dy(y.shape, seed)
    grads = [host(g).copy() for g in pair.backward(dy, cache)]
    sizes = [abs(g).max(initial=0) for g in grads]
    least_size = 1e-3 * norm(np.array(sizes)) + 0.1 * natural_size(y, pair.inputs)
    advice = "the result depends on the order of the elements in memory"
    try:
        other, other_cache = pair.forward([x.copy(order="F") for x in pair.inputs])
    except UserError:
        return []
    if not close(other, y, LAYOUT_TOLERANCE):
        return [f"y differs for inputs in Fortran order: {advice}"]
    for what, dy_given, cache_given in (
        ("dy", dy.copy(order="F"), cache),
        ("inputs", dy, other_cache),
    ):
        try:
            found = pair.backward(dy_given, cache_given)
        except UserError:
            continue
        faults = [
            f"the gradient of {name} differs for {what} in Fortran order: {advice}"
            for name, g, wanted, size in zip(pair.names, found, grads, sizes, strict=True)
            if np.isfinite(least_size)
            and not abs(host(g) - wanted).max(initial=0) <= LAYOUT_TOLERANCE * (size + least_size)
        ]
        if faults:
            return faults
    return []
