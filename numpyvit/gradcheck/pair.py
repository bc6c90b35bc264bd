"""A forward and its backward, with a one-line error for results that do not fit."""

import contextlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from ..backend.arrays import Array, get_xp
from ..errors import UserError
from .values import describe, first_bad, host, is_array, is_cupy

Forward = Callable[..., tuple[Array, Any]]
Backward = Callable[[Array, Any], Any]


class Pair:
    """A forward and its backward at given inputs.

    `forward(*inputs)` returns y and a cache, `backward(dy, cache)` a gradient for each
    input.

    inputs: the inputs as float64 NumPy arrays. names: a name for each. promoted: a
    remark for each input that was not float64. xp: the library, NumPy or CuPy, whose
    arrays the two functions are given.

    Floating-point warnings are off during the calls, since what they warn of shows in
    the values.
    """

    def __init__(
        self,
        forward: Forward,
        backward: Backward,
        inputs: Sequence[Any],
        names: Sequence[str] | None = None,
    ) -> None:
        for what, function in (("forward", forward), ("backward", backward)):
            if not callable(function):
                raise UserError(
                    f"{what} is {describe(function)}, wanted two functions and then the inputs"
                )
        self.to_forward = forward
        self.to_backward = backward
        self.names = checked_names(names, len(inputs))
        self.xp = library_of(inputs[0])
        self.inputs: list[Array] = []
        self.promoted: list[str] = []
        for name, given in zip(self.names, inputs, strict=True):
            x = float_array(name, given)
            if x.dtype != np.float64:
                self.promoted.append(f"{name} is {x.dtype}, promoted to float64")
            self.inputs.append(x.astype(np.float64))

    def forward(self, inputs: Sequence[Array]) -> tuple[Array, Any]:
        """Return y as a NumPy array, and the cache."""
        arrays = [self.xp.asarray(x) for x in inputs]
        with np.errstate(all="ignore"):
            found = explained("forward", self.to_forward, *arrays)
        if not (isinstance(found, tuple) and len(found) == 2):
            raise UserError(
                f"forward returned {describe(found)}, wanted a pair `y, cache`: return the cache "
                "after y (None, if backward needs none)"
            )
        y, cache = found
        if not is_array(y):
            raise UserError(f"forward returned {describe(y)} as y, wanted an array of floats")
        y = converted("y", y)
        if host(y).dtype.kind != "f":
            raise UserError(
                f"forward returned an array of {host(y).dtype} as y, wanted an array of floats"
            )
        return host(y), cache

    def backward(self, dy: Array, cache: Any) -> list[Any]:
        """Return the gradient for each input, as arrays of NumPy or CuPy."""
        with np.errstate(all="ignore"):
            found = explained("backward", self.to_backward, self.xp.asarray(dy), cache)
        grads = list(found) if isinstance(found, tuple | list) else [found]
        if len(grads) < len(self.names):
            missing = ", ".join(self.names[len(grads) :])
            raise UserError(
                f"backward returned {len(grads)} of {len(self.names)} gradients, that of {missing} "
                "is missing: return one for each input, in the order of the inputs"
            )
        if len(grads) > len(self.names):
            raise UserError(
                f"backward returned {len(grads)} gradients, wanted one for each input: "
                f"{', '.join(self.names)}"
            )
        for name, g in zip(self.names, grads, strict=True):
            if not is_array(g):
                raise UserError(
                    f"backward returned {describe(g)} as the gradient of {name}, wanted an array "
                    f"of the shape of {name}"
                )
        return [
            converted(f"the gradient of {name}", g)
            for name, g in zip(self.names, grads, strict=True)
        ]


def checked_names(names: Any, count: int) -> list[str]:
    """Return a name for each of `count` inputs.

    Raises UserError if `names` does not fit.
    """
    if names is None:
        names = [f"input {i}" for i in range(count)]
    found = list(names) if np.iterable(names) else []
    if not count or len(found) != count:
        raise UserError(
            f"there are {count} inputs and {len(found)} names: wanted at least one input, and a "
            "name for each"
        )
    if len({name for name in found if isinstance(name, str)}) < count:
        raise UserError(f"the names are {found}, wanted different strings")
    return found


def library_of(x: Any) -> ModuleType:
    """Return the library that x belongs to: cupy, or numpy for everything else."""
    return get_xp(x) if is_cupy(x) else np


def converted(what: str, x: Any) -> Any:
    """Return x as an array of NumPy, or as it is if it is one of CuPy.

    Raises UserError if NumPy cannot convert it, such as a tensor of PyTorch that
    requires a gradient or is on a GPU. what: what x is, for the message.
    """
    if is_cupy(x):
        return x
    try:
        return np.asarray(x)
    except Exception as error:
        why = " ".join(str(error).split())
        raise UserError(f"{what} cannot be converted to a NumPy array: {why[:300]}") from error


def float_array(name: str, x: Any) -> Array:
    """Return x as a NumPy array.

    Raises UserError unless it is an array of finite floats.
    """
    array = None
    if is_array(x):
        array = host(converted(name, x))
    elif isinstance(x, list | tuple | int):
        with contextlib.suppress(ValueError):  # a list of lists of different lengths
            array = np.asarray(x)
    if array is None:
        raise UserError(f"{name} is not an array: wanted an array of floats")
    if array.dtype.kind != "f":
        raise UserError(
            f"{name} is {array.dtype}, and only floats have gradients: make it float64, or, if it "
            "holds labels or indices, pass it to forward by a lambda"
        )
    if bad := first_bad(array):
        raise UserError(f"{name} holds {bad}: check at finite values")
    return array


def explained(what: str, function: Callable, *args: Any) -> Any:
    """Return function(*args). Turn an exception into a UserError of one line."""
    try:
        return function(*args)
    except UserError:
        raise
    except Exception as error:
        shapes = ", ".join(str(tuple(a.shape)) for a in args if hasattr(a, "shape"))
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{what} failed on arrays of shapes {shapes}: {why[:300]}") from error
