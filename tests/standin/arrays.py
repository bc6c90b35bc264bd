"""The arrays of the stand-in, with the methods and operators that CuPy's have."""

import inspect
import json
import types
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from . import capture
from .capture import Refused, flush, not_while_capturing, now_or_later

API = json.loads((Path(__file__).parent / "api.json").read_text())
UPLOADS = {"asarray", "array"}
DTYPES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"}
WAITING = {"sort", "argsort"}  # these wait for the device at their end
SILENT = {"unique", "nonzero", "bincount"}  # these read a value from it
BLAS = {
    "matmul",
    "dot",
    "vdot",
    "inner",
    "outer",
    "tensordot",
    "einsum",
    "__matmul__",
    "__rmatmul__",
    "__imatmul__",
}
IN_PLACE = {"fill", "sort", "put", "partition"}  # methods


@cache
def signature(kind: str, name: str) -> inspect.Signature:
    """Return the signature that api.json has for a function or method."""
    P, found, by_name = inspect.Parameter, [], False
    for text in API[kind][name]:
        if text == "*":
            by_name = True
        elif text == "**":
            found.append(P("others", P.VAR_KEYWORD))
        elif text.startswith("*"):
            found.append(P(text[1:], P.VAR_POSITIONAL))
            by_name = True
        else:
            found.append(
                P(
                    text.rstrip("="),
                    P.KEYWORD_ONLY if by_name else P.POSITIONAL_OR_KEYWORD,
                    default=None if text.endswith("=") else P.empty,
                )
            )
    return inspect.Signature(found)


def inner(x: Any, what: str) -> Any:
    """Return x with NumPy arrays in place of the stand-in's, also inside lists and tuples."""
    if isinstance(x, ndarray):
        return x._a
    if isinstance(x, np.ndarray):
        raise Refused(
            f"Unsupported type <class 'numpy.ndarray'>: {what} got an array in host memory"
        )
    if isinstance(x, (list, tuple)):
        return type(x)(inner(item, what) for item in x)
    if isinstance(x, slice):
        return slice(*(inner(item, what) for item in (x.start, x.stop, x.step)))
    return x


def outer(x: Any) -> Any:
    """Return x with the stand-in's arrays in place of NumPy's, flushed."""
    if isinstance(x, (np.ndarray, np.generic)):
        a = np.asarray(x)
        return ndarray(a if a.base is not None else flush(a))  # a view was flushed before
    if isinstance(x, (list, tuple)):
        return type(x)(outer(item) for item in x)
    return x


def captured(f: Callable[[], Any], used: Any) -> Any:
    """Return f(), an array computed from `used`; during a capture also record the call."""
    result = f()
    if capture.tape is None:
        return result
    if isinstance(result, (list, tuple)) and any(
        isinstance(r, ndarray) and r._a.base is None for r in result
    ):
        raise Refused("the stand-in cannot capture a function that returns several new arrays")
    if isinstance(result, ndarray) and not any(
        np.may_share_memory(result._a, a) for a in used if isinstance(a, np.ndarray)
    ):
        capture.tape.append(lambda: np.copyto(result._a, f()._a))  # not for views
    return result


def call(kind: str, name: str, f: Any, args: tuple, kwargs: dict, me: Any = None) -> Any:
    """Call NumPy's f by the rules of CuPy's function or method of this name.

    me: the array whose method it is, or None for a function.
    """
    try:
        given = signature(kind, name).bind(*args, **kwargs).arguments
    except TypeError as error:
        raise Refused(f"CuPy's {name} takes ({', '.join(API[kind][name])}): {error}") from None
    if kind == "functions" and name in UPLOADS:
        if isinstance(args[0], (list, tuple)) and any(isinstance(a, ndarray) for a in args[0]):
            raise Refused(f"cupy.{name} of a list of arrays: use stack")
        if not isinstance(given[next(iter(given))], ndarray):
            not_while_capturing(
                f"cupy.{name} of data on the host", "they may have moved when the graph is launched"
            )
        args = tuple(a._a if isinstance(a, ndarray) else a for a in args)
        result = f(*args, **kwargs)
        return ndarray(
            result if isinstance(given[next(iter(given))], ndarray) else flush(result.copy())
        )
    what = f"cupy.{name}"
    if name in SILENT:
        raise Refused(f"{what} silently waits for the device, for the size of the result")
    if name in ("stack", "concatenate") and len(args[0]) > 8:
        not_while_capturing(what, "CuPy uploads the addresses of more than eight arrays")
    if name in WAITING or name in BLAS:
        not_while_capturing(what, "CuPy refuses it")
    plain = (*(() if me is None else (me,)), *inner(args, what))
    named = {k: inner(v, what) for k, v in kwargs.items()}

    def work() -> Any:
        with np.errstate(all="ignore"):  # a GPU does not warn
            return outer(f(*plain, **named))

    out = given.get("out")
    if isinstance(out, ndarray):
        now_or_later(lambda: (work(), flush(out._a)))
        return out
    if kind == "methods" and name in IN_PLACE:
        return now_or_later(work)
    return captured(work, [*plain, *named.values()])


def silent(name: str) -> Any:
    """Return a method that refuses to wait for the device."""

    def refuse(self: Any, *args: Any) -> Any:
        raise Refused(
            f"{name} of an array on the device would silently wait for it: call get() first"
        )

    return refuse


class ndarray:
    """An array on the device; `_a` is the NumPy array that holds its values."""

    __module__ = "cupy"  # get_xp looks at this
    __slots__ = ("__weakref__", "_a")
    __array_ufunc__ = None  # makes NumPy's functions and operators refuse the array
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, a: np.ndarray) -> None:
        if a.dtype.str[1:] not in DTYPES:
            raise Refused(f"Unsupported dtype {a.dtype}")
        self._a = a

    def __getattr__(self, name: str) -> Any:
        if name in API["attributes"]:
            found = getattr(self._a, name)
            return ndarray(found) if isinstance(found, np.ndarray) and name != "base" else found
        if name in API["methods"] and not name.startswith("_"):
            return lambda *args, **kwargs: call(
                "methods", name, getattr(np.ndarray, name), args, kwargs, self._a
            )
        raise AttributeError(f"CuPy's arrays have no {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "shape":
            self._a.shape = value
        else:
            object.__setattr__(self, name, value)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise Refused(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_function__(self, func: Any, *args: Any) -> Any:
        raise Refused(f"numpy.{func.__name__} got an array on the device")

    __float__, __int__, __bool__, __index__, __complex__ = map(
        silent, ("float", "int", "bool", "an index", "complex")
    )
    item, tolist = silent("item"), silent("tolist")

    def get(
        self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True
    ) -> Any:
        not_while_capturing("get", "it waits for the device")
        capture.reads += 1
        if out is None:
            return np.array(self._a, order=order)  # type: ignore[call-overload]
        np.copyto(out, self._a)
        return out

    def set(self, arr: Any, stream: Any = None) -> None:
        if (
            not isinstance(arr, np.ndarray)
            or arr.dtype != self._a.dtype
            or arr.shape != self._a.shape
        ):
            raise Refused("set takes a NumPy array of the same dtype and shape")
        not_while_capturing("set", "the host's array may have moved when the graph is launched")
        self._a[...] = arr

    def view(self, dtype: Any = None, type: Any = None) -> Any:
        return ndarray(self._a.view() if dtype is None else self._a.view(dtype))

    def __len__(self) -> int:
        return len(self._a)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self._a)))

    def __repr__(self) -> str:
        return f"standin({self._a!r})"

    @property
    def data(self) -> Any:
        return types.SimpleNamespace(ptr=self._a.ctypes.data)

    def __getitem__(self, at: Any) -> Any:
        at = index(at)
        if capture.tape is None:
            return outer(self._a[at])
        # The values of an index are not known yet; any values give a result of the same shape.
        some = tuple(
            np.zeros_like(i) if isinstance(i, np.ndarray) else i
            for i in (at if isinstance(at, tuple) else (at,))
        )
        result = outer(
            self._a[some].copy()
            if some and any(isinstance(i, np.ndarray) for i in some)
            else self._a[at]
        )
        if not np.may_share_memory(result._a, self._a):
            capture.tape.append(lambda: np.copyto(result._a, self._a[at]))
        return result

    def __setitem__(self, at: Any, value: Any) -> None:
        at, value = index(at, mask=True), inner(value, "an assignment")

        def work() -> None:
            self._a[at] = value
            flush(self._a)

        now_or_later(work)


def index(at: Any, mask: bool = False) -> Any:
    """Return an index for NumPy; refuse lists, and masks unless mask=True."""
    for one in at if isinstance(at, tuple) else (at,):
        if not mask and isinstance(one, ndarray) and one.dtype == bool:
            raise Refused("indexing by a mask waits for the device, for a count: use where")
        if isinstance(one, list):
            raise Refused("indexing by a list uploads it each time")
    return inner(at, "an index")


def operator(name: str) -> Any:
    """Return the method for an operator such as __add__."""
    f = getattr(np.ndarray, name)

    def method(self: ndarray, *others: Any) -> Any:
        for other in others:
            if isinstance(other, np.ndarray):
                raise Refused(
                    f"Unsupported type <class 'numpy.ndarray'>: {name} of an array on the device "
                    "and one on the host"
                )
            if not isinstance(other, (ndarray, int, float, complex, np.generic)):
                return NotImplemented
        if name in BLAS:
            not_while_capturing(
                name, "calling cuBLAS API during stream capture is currently unsupported"
            )
        plain = [inner(o, name) for o in others]

        def work() -> Any:
            with np.errstate(all="ignore"):
                return outer(f(self._a, *plain))

        if name.startswith("__i") and name != "__invert__":
            now_or_later(lambda: (work(), flush(self._a)))
            return self
        return captured(work, [self._a, *plain])

    return method


ONE = ["neg", "pos", "abs", "invert", "lt", "le", "eq", "ne", "gt", "ge"]
TWO = [
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
]
for _name in (
    f"__{before}{n}__" for n in ONE + TWO for before in ("", "r", "i") if n in TWO or not before
):
    if _name in API["methods"]:
        setattr(ndarray, _name, operator(_name))
