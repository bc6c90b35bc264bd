"""How a forward and its backward behave, whatever they compute: what they return, and what they leave alone.

Each of the functions below returns a list of faults, one line each, empty where all is well.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backend.arrays import Array, get_xp
from ..errors import UserError

Forward = Callable[..., tuple[Array, Any]]
Backward = Callable[[Array, Any], Any]


def host(x: Any) -> Array:
    """x as a NumPy array, from whichever device."""
    return x.get() if hasattr(x, "get") and hasattr(x, "shape") else np.asarray(x)


def is_array(x: object) -> bool:
    return isinstance(x, float | np.generic | np.ndarray) or (
        hasattr(x, "get") and hasattr(x, "shape")
    )


def place(index: Sequence[int]) -> str:
    """(0, 2) as "[0, 2]"; () as ""."""
    return f"[{', '.join(str(int(i)) for i in index)}]" if len(index) else ""


def first_bad(x: Array) -> str | None:
    """Where x first is NaN or infinite, as "NaN, first at [0, 2]"; None where it is finite."""
    bad = np.argwhere(~np.isfinite(x))
    if not len(bad):
        return None
    where = tuple(bad[0])
    return f"{'NaN' if np.isnan(x[where]) else 'infinity'}" + (
        f", first at {place(where)}" if where else ""
    )


def same(a: Array, b: Array) -> bool:
    return a.shape == b.shape and np.array_equal(a, b, equal_nan=True)


def close(a: Array, b: Array, tolerance: float = 1e-12) -> bool:
    """Whether a and b agree to within `tolerance` of their largest value."""
    return a.shape == b.shape and bool(
        np.all(abs(a - b) <= tolerance * (1 + abs(b).max(initial=0)))
    )


def normal(shape: Sequence[int], seed: int, dtype: Any = np.float64) -> Array:
    """Random values from the seed."""
    return np.random.default_rng((seed, 3)).normal(size=shape).astype(dtype)


def random_dy(shape: Sequence[int], seed: int, dtype: Any = np.float64) -> Array:
    """Likewise, but never the same values as x has: with dy = x, x' dy is its own transpose."""
    return np.random.default_rng((seed, 9)).normal(size=shape).astype(dtype)


def natural_size(y: Array, inputs: Sequence[Array]) -> float:
    """What a gradient of y would be if y (or 1, where y is 0) changed by all of itself while the inputs do (or move by 1,
    where they are smaller)."""
    return (float(abs(y).max(initial=0)) or 1.0) / max(
        [1.0, *(float(abs(x).max(initial=0)) for x in inputs)]
    )


class Pair:
    """forward(*inputs) -> y, cache and backward(dy, cache) -> gradients, with what does not fit explained in one line.

    inputs: floats, NumPy's or CuPy's; promoted says which were not float64 and are now. Floating-point
    warnings are off in the calls: what they warn of shows in the values.
    """

    def __init__(
        self,
        forward: Forward,
        backward: Backward,
        inputs: Sequence[Any],
        names: Sequence[str] | None = None,
    ) -> None:
        for what, f in (("forward", forward), ("backward", backward)):
            if not callable(f):
                raise UserError(f"{what} is {kind(f)}, wanted two functions and then the inputs")
        names = [f"input {i}" for i in range(len(inputs))] if names is None else names
        self.names = list(names) if np.iterable(names) else []
        if not inputs or len(self.names) != len(inputs):
            raise UserError(
                f"there are {len(inputs)} inputs and {len(self.names)} names: wanted an input at least, "
                "and a name for each"
            )
        if len({name for name in self.names if isinstance(name, str)}) < len(inputs):
            raise UserError(f"the names are {self.names}, wanted different strings")
        self.to_forward, self.to_backward = forward, backward
        self.xp = (
            np
            if isinstance(inputs[0], float | list)
            else get_xp(inputs[0])
            if is_array(inputs[0])
            else np
        )
        self.inputs, self.promoted = [], []
        for name, x in zip(self.names, inputs, strict=True):
            x = float_array(name, x)
            if x.dtype != np.float64:
                self.promoted.append(f"{name} is {x.dtype}, promoted to float64")
            self.inputs.append(x.astype(np.float64))

    def forward(self, inputs: Sequence[Array]) -> tuple[Array, Any]:
        """y as a NumPy array, and the cache."""
        arrays = [self.xp.asarray(x) for x in inputs]
        with np.errstate(all="ignore"):
            found = explained("forward", self.to_forward, *arrays)
        if not (isinstance(found, tuple) and len(found) == 2):
            raise UserError(
                f"forward returned {kind(found)}, wanted a pair `y, cache`: return the cache beside y (None, if "
                "backward needs none)"
            )
        y, cache = found
        if not is_array(y) or host(y).dtype.kind != "f":
            found = f"an array of {host(y).dtype}" if is_array(y) else kind(y)
            raise UserError(f"forward returned {found} as y, wanted an array of floats")
        return host(y), cache

    def backward(self, dy: Array, cache: Any) -> list[Any]:
        """A gradient for each input, as backward gave them."""
        with np.errstate(all="ignore"):
            found = explained("backward", self.to_backward, self.xp.asarray(dy), cache)
        grads = list(found) if isinstance(found, tuple | list) else [found]
        if len(grads) < len(self.names):
            missing = ", ".join(self.names[len(grads) :])
            raise UserError(
                f"backward returned {len(grads)} of {len(self.names)} gradients, that of {missing} is missing: "
                "wanted one for each input, in their order"
            )
        if len(grads) > len(self.names):
            raise UserError(
                f"backward returned {len(grads)} gradients, wanted one for each input: {', '.join(self.names)}"
            )
        for name, g in zip(self.names, grads, strict=True):
            if not is_array(g):
                raise UserError(
                    f"backward returned {kind(g)} as the gradient of {name}, wanted an array like it"
                )
        return grads


def float_array(name: str, x: Any) -> Array:
    """x as a NumPy array, if it is one of finite floats. Raises UserError."""
    try:
        x = host(x) if is_array(x) or isinstance(x, list | tuple | int) else None
    except ValueError:  # a list of lists of different lengths
        x = None
    if x is None:
        raise UserError(f"{name} is no array: wanted floats")
    if x.dtype.kind != "f":
        raise UserError(
            f"{name} is {x.dtype}, and gradients are for floats: make it float64, or, if it is labels or "
            "indices, leave it to forward by a lambda"
        )
    if bad := first_bad(x):
        raise UserError(f"{name} holds {bad}: check at finite values")
    return x


def kind(x: object) -> str:
    return (
        "None"
        if x is None
        else f"a tuple of {len(x)}"
        if isinstance(x, tuple)
        else f"one {type(x).__name__}"
    )


def explained(what: str, f: Callable, *args: Any) -> Any:
    """f(*args), and where that fails, one line that says so; the traceback is still behind it."""
    try:
        return f(*args)
    except UserError:
        raise
    except Exception as error:
        shapes = ", ".join(str(tuple(a.shape)) for a in args if hasattr(a, "shape"))
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{what} failed on arrays of shapes {shapes}: {why[:300]}") from error


def purity(pair: Pair, seed: int) -> list[str]:
    """forward is deterministic; neither changes its inputs or dy; gradients are like the inputs, and share no memory with
    them or with each other."""
    inputs = [pair.xp.asarray(x.copy()) for x in pair.inputs]
    y, cache = pair.forward(inputs)
    faults = [
        f"forward changed {name}"
        for name, x, was in zip(pair.names, inputs, pair.inputs, strict=True)
        if not same(host(x), was)
    ]
    if y.dtype != np.float64:
        faults.append(f"y is {y.dtype} for float64 inputs")
    again, _ = pair.forward(pair.inputs)
    if not faults and not same(y, again):
        faults.append(
            "forward is not deterministic: a second call gives another y (make a generator anew from its seed)"
        )
    if faults:
        return faults  # nothing more could be said
    dy = pair.xp.asarray(random_dy(y.shape, seed))
    grads = pair.backward(dy, cache)
    if not same(host(dy), random_dy(y.shape, seed)):
        faults.append("backward changed dy")
    for name, x, was, g in zip(pair.names, inputs, pair.inputs, grads, strict=True):
        if not same(host(x), was):
            faults.append(f"backward changed {name}")
        found, wanted = host(g).shape, x.shape
        if found != wanted:
            faults.append(f"the gradient of {name} has shape {found}, and {name} has {wanted}")
        elif host(g).dtype != np.float64:
            faults.append(f"the gradient of {name} is {host(g).dtype} for float64 inputs")
    named = [(f"the gradient of {name}", g) for name, g in zip(pair.names, grads, strict=True)]
    for i, (name, g) in enumerate(named):
        for other, h in named[i + 1 :] + list(zip(pair.names, inputs, strict=True)):
            if pair.xp.shares_memory(g, h):
                faults.append(
                    f"{name} shares memory with {other}: whoever adds to one in place changes both"
                )
    return faults


def rounding(pair: Pair, seed: int, rescale: bool = True) -> tuple[Array, list[Array]]:
    """How exactly backward computes: four random dys (4, m), and for each input by how much the gradients for them move when
    the last digits of the inputs change and dy is scaled, which rounds everything otherwise: (4, size)."""
    rng = np.random.default_rng((seed, 4))
    y, cache = pair.forward(pair.inputs)
    dys = rng.normal(size=(4, *y.shape))
    moved = [np.empty((4, x.size)) for x in pair.inputs]
    for i, dy in enumerate(dys):
        plain = [host(g).copy() for g in pair.backward(dy.copy(), cache)]
        eps, scale = np.finfo(np.float64).eps, rng.uniform(0.5, 1) if rescale else 1.0
        _, other = pair.forward([x * (1 + eps * rng.uniform(-2, 2, x.shape)) for x in pair.inputs])
        for out, g, g_plain in zip(moved, pair.backward(scale * dy, other), plain, strict=True):
            out[i] = (host(g) / scale - g_plain).ravel()
    return dys.reshape(4, -1), moved


def linearity(pair: Pair, seed: int) -> list[str]:
    """backward(2 a - 3 b) = 2 backward(a) - 3 backward(b), also where dy is very large or small; and the same dy gives the
    same bits again."""
    y, cache = pair.forward(pair.inputs)
    a, b = random_dy(y.shape, seed), random_dy(y.shape, seed + 1)

    def gradients(dy: Array, scale: float = 1.0) -> list[Array]:
        return [host(g) / scale for g in pair.backward(scale * dy, cache)]

    ga, gb, mixed, again = gradients(a), gradients(b), gradients(2 * a - 3 * b), gradients(a)
    faults = [
        f"the gradient of {name} differs at a second call of backward"
        for name, p, r in zip(pair.names, ga, again, strict=True)
        if not same(p, r)
    ]
    if faults:
        return faults
    large, small = gradients(a, 2.0**40), gradients(a, 2.0**-40)
    sizes = [max(abs(p).max(initial=0), abs(q).max(initial=0)) for p, q in zip(ga, gb, strict=True)]
    least = 1e-3 * max(sizes) + 0.1 * natural_size(y, pair.inputs)
    _, moved = rounding(pair, seed, rescale=False)
    for i, (name, size) in enumerate(zip(pair.names, sizes, strict=True)):
        spare = 1e-11 * (size + least) + 64 * abs(moved[i]).max(initial=0)
        off = [
            abs(found - wanted).max(initial=0)
            for found, wanted in (
                (mixed[i], 2 * ga[i] - 3 * gb[i]),
                (large[i], ga[i]),
                (small[i], ga[i]),
            )
        ]
        if np.isfinite(size) and not max(off) <= spare:
            faults.append(f"the gradient of {name} is not linear in dy")
    return faults


def reentrancy(pair: Pair, seed: int) -> list[str]:
    """Two forwards, then their backwards: each as if it had been alone. All that backward needs is in the cache."""
    y, cache = pair.forward(pair.inputs)
    dy = random_dy(y.shape, seed)
    alone = [host(g).copy() for g in pair.backward(dy, cache)]
    y, cache = pair.forward(pair.inputs)
    try:
        other, cache2 = pair.forward(
            [x * (1 + 1e-3 * normal(x.shape, seed + i)) for i, x in enumerate(pair.inputs)]
        )
        pair.backward(random_dy(other.shape, seed + 1), cache2)
    except UserError:  # outside of where forward is defined
        pair.forward(pair.inputs)
    return [
        f"the gradient of {name} changes if forward is called again before backward: keep all it needs in the cache"
        for name, g, was in zip(pair.names, pair.backward(dy, cache), alone, strict=True)
        if not same(host(g), was)
    ]
