"""A stand-in for CuPy where there is no GPU: its arrays lie in the host's memory, and are stricter than CuPy's own.

What works on it works on CuPy, as far as a host can tell: it has only the functions, methods, attributes and parameters of
api.json. It refuses what would be wrong there, and also what CuPy does though a program should not want it:

- NumPy's functions on its arrays, and NumPy arrays among its own, but for asarray, array and set, which upload;
- float(x), int(x), bool(x), x.item(), x.tolist(), and an index by a mask, each of which waits for the device in silence.
  What reads on purpose, get and asnumpy, is counted in `reads`.

While a stream is being captured nothing is done but noted, products by CuPy are refused, and what would wait.

Reductions and items are arrays of no dimension, as there. Numbers too small for a normal float become zero, as they may
there; memory that nobody wrote is full of NaN.
"""

import inspect
import json
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

API = json.loads((Path(__file__).parent / "api.json").read_text())
UPLOADS = {"asarray", "array"}
DTYPES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"}
WAITING = {"sort", "argsort"}  # for the device, at their end
SILENT = {"unique", "nonzero", "bincount"}  # which read something of it
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
reads = 0  # how often something was brought to the host
tape: list[Callable[[], object]] | None = None  # the work of a stream that is being captured


class Refused(TypeError):
    """What the stand-in does not let pass."""


@cache
def signature(kind: str, name: str) -> inspect.Signature:
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
    """x with the NumPy arrays within the stand-in's, also in lists and tuples."""
    if isinstance(x, ndarray):
        return x._a
    if isinstance(x, np.ndarray):
        raise Refused(f"Unsupported type <class 'numpy.ndarray'>: {what} got an array of the host")
    if isinstance(x, (list, tuple)):
        return type(x)(inner(item, what) for item in x)
    if isinstance(x, slice):
        return slice(*(inner(item, what) for item in (x.start, x.stop, x.step)))
    return x


def outer(x: Any) -> Any:
    """x as the stand-in's, with what is too small for a normal float put to zero."""
    if isinstance(x, (np.ndarray, np.generic)):
        a = np.asarray(x)
        return ndarray(a if a.base is not None else flush(a))  # a view was flushed before
    if isinstance(x, (list, tuple)):
        return type(x)(outer(item) for item in x)
    return x


def flush(a: np.ndarray) -> np.ndarray:
    if a.dtype.kind == "f" and a.flags.writeable:
        tiny = np.abs(a) < np.finfo(a.dtype).tiny
        if tiny.any():
            np.copyto(a, 0, where=tiny)
    return a


def now_or_later(work: Callable[[], object]) -> None:
    """Do it, or, while a stream is being captured, put it down for each launch of the graph."""
    if tape is None:
        work()
    else:
        tape.append(work)


def captured(f: Callable[[], Any], used: Any) -> Any:
    """f(), what makes an array of others, `used`; and where a stream is being captured, again for each launch."""
    result = f()
    if tape is None:
        return result
    if isinstance(result, (list, tuple)) and any(
        isinstance(r, ndarray) and r._a.base is None for r in result
    ):
        raise Refused("the stand-in does not capture what returns several new arrays")
    if isinstance(result, ndarray) and not any(
        np.may_share_memory(result._a, a) for a in used if isinstance(a, np.ndarray)
    ):
        tape.append(lambda: np.copyto(result._a, f()._a))  # else it is a view
    return result


def not_while_capturing(what: str, why: str) -> None:
    if tape is not None:
        raise Refused(f"{what} while a stream is being captured: {why}")


def call(kind: str, name: str, f: Any, args: tuple, kwargs: dict, me: Any = None) -> Any:
    """f, NumPy's, by the rules of CuPy's function or method of this name; me: the array whose method it is."""
    try:
        given = signature(kind, name).bind(*args, **kwargs).arguments
    except TypeError as error:
        raise Refused(f"CuPy's {name} takes ({', '.join(API[kind][name])}): {error}") from None
    if kind == "functions" and name in UPLOADS:
        if isinstance(args[0], (list, tuple)) and any(isinstance(a, ndarray) for a in args[0]):
            raise Refused(f"cupy.{name} of a list of arrays: use stack")
        if not isinstance(given[next(iter(given))], ndarray):
            not_while_capturing(
                f"cupy.{name} of the host's data", "its place in memory may be another by the time"
            )
        args = tuple(a._a if isinstance(a, ndarray) else a for a in args)
        result = f(*args, **kwargs)
        return ndarray(
            result if isinstance(given[next(iter(given))], ndarray) else flush(result.copy())
        )
    what = f"cupy.{name}"
    if name in SILENT:
        raise Refused(f"{what} waits for the device in silence, to see how much there is")
    if name in ("stack", "concatenate") and len(args[0]) > 8:
        not_while_capturing(what, "CuPy uploads where more than eight arrays lie")
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
    def refuse(self: Any, *args: Any) -> Any:
        raise Refused(
            f"{name} of an array of the device would wait for it in silence: read it on purpose, with get()"
        )

    return refuse


class ndarray:
    __module__ = "cupy"  # as get_xp asks
    __slots__ = ("__weakref__", "_a")
    __array_ufunc__ = None  # NumPy's functions and operators refuse what has this
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
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array"
        )

    def __array_function__(self, func: Any, *args: Any) -> Any:
        raise Refused(f"numpy.{func.__name__} got an array of the device")

    __float__, __int__, __bool__, __index__, __complex__ = map(
        silent, ("float", "int", "bool", "an index", "complex")
    )
    item, tolist = silent("item"), silent("tolist")

    def get(
        self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True
    ) -> Any:
        global reads
        not_while_capturing("get", "it waits for the device")
        reads += 1
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
        not_while_capturing("set", "the host's memory may be another by the time")
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
        if tape is None:
            return outer(self._a[at])
        # what an index holds is not known yet: what comes out has the shape that any index makes
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
            tape.append(lambda: np.copyto(result._a, self._a[at]))
        return result

    def __setitem__(self, at: Any, value: Any) -> None:
        at, value = index(at, mask=True), inner(value, "an assignment")

        def work() -> None:
            self._a[at] = value
            flush(self._a)

        now_or_later(work)


def index(at: Any, mask: bool = False) -> Any:
    for one in at if isinstance(at, tuple) else (at,):
        if not mask and isinstance(one, ndarray) and one.dtype == bool:
            raise Refused("an index by a mask waits for the device, to count: use where")
        if isinstance(one, list):
            raise Refused("an index by a list is uploaded each time")
    return inner(at, "an index")


def operator(name: str) -> Any:
    f = getattr(np.ndarray, name)

    def method(self: ndarray, *others: Any) -> Any:
        for other in others:
            if isinstance(other, np.ndarray):
                raise Refused(
                    f"Unsupported type <class 'numpy.ndarray'>: {name} of the device's array and the host's"
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


def empty(f: Any) -> Any:
    def made(*args: Any, **kwargs: Any) -> Any:
        a = f(*args, **kwargs)
        a.fill(
            np.nan
            if a.dtype.kind in "fc"
            else np.iinfo(a.dtype).max
            if a.dtype.kind in "iu"
            else True
        )
        return a

    return made


def function(name: str) -> Any:
    f = getattr(np, name)
    f = empty(f) if name in ("empty", "empty_like") else f

    def run(*args: Any, **kwargs: Any) -> Any:
        return call("functions", name, f, args, kwargs)

    run.__name__ = name
    return run


def get_array_module(*args: Any) -> Any:
    return sys.modules["cupy"] if any(isinstance(a, ndarray) for a in args) else np


def add_at(a: Any, indices: Any, b: Any) -> None:
    """As CuPy's add.at."""
    at, plain = index(indices), inner(b, "add.at")
    now_or_later(lambda: np.add.at(a._a, at, plain))


def windows(
    x: Any, window_shape: Any, axis: Any = None, *, subok: bool = False, writeable: bool = False
) -> Any:
    """As CuPy's of its lib.stride_tricks."""
    return outer(
        np.lib.stride_tricks.sliding_window_view(
            inner(x, "sliding_window_view"), window_shape, axis
        )
    )


class CUDARuntimeError(RuntimeError):
    pass


class Device:
    used, free = 0, 4 * 2**30

    def __init__(self, number: int | None = None) -> None:
        self.number = Device.used if number is None else number

    def use(self) -> None:
        Device.used = self.number

    def synchronize(self) -> None:
        global reads
        not_while_capturing("synchronize", "it waits for the device")
        reads += 1

    @property
    def id(self) -> int:
        return self.number

    @property
    def mem_info(self) -> tuple[int, int]:
        return Device.free, 8 * 2**30


class Graph:
    def __init__(self, work: list[Callable[[], object]]) -> None:
        self.work = work

    def launch(self, stream: Any = None) -> None:
        not_while_capturing("a launch", "the stand-in does not do that")
        for one in self.work:
            one()


class Stream:
    streams: ClassVar[list["Stream"]] = []  # entered and not left

    def __init__(
        self,
        null: bool = False,
        non_blocking: bool = False,
        ptds: bool = False,
        priority: Any = None,
    ) -> None:
        self.non_blocking, self.ptr = non_blocking, id(self)

    def __enter__(self) -> "Stream":
        Stream.streams.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        assert Stream.streams.pop() is self

    def synchronize(self) -> None:
        global reads
        not_while_capturing("synchronize", "it waits for the device")
        reads += 1

    def begin_capture(self, mode: int | None = None) -> None:
        global tape
        if not self.non_blocking or get_current_stream() is not self:
            raise Refused("a stream that is captured is non-blocking, and the current one")
        not_while_capturing("begin_capture", "it has begun")
        tape = []

    def end_capture(self) -> Graph:
        global tape
        if tape is None:
            raise CUDARuntimeError("nothing is being captured")
        graph, tape = Graph(tape), None
        return graph


DEFAULT = Stream(null=True)


def get_current_stream(device_id: int = -1) -> Stream:
    return Stream.streams[-1] if Stream.streams else DEFAULT


class Memory:
    def __init__(self, size: int) -> None:
        if size > Device.free:
            raise CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")
        self.size = size


class MemoryPool:
    """It gives what its allocator gives. (The arrays here take their memory from NumPy.)"""

    def __init__(self, allocator: Callable[[int], Any] | None = None) -> None:
        self.allocator = allocator

    def malloc(self, size: int) -> Any:
        if self.allocator is None:
            raise Refused("the stand-in has no memory of its own")
        return self.allocator(size)

    def free_all_blocks(self, stream: Any = None) -> None:
        not_while_capturing("free_all_blocks", "it waits for the device")


@contextmanager
def using_allocator(allocator: Callable[[int], Any]) -> Iterator[None]:
    yield


def cuda(gpus: int, error: str = "") -> Any:
    """What stands in for `cupy.cuda` on a machine with so many GPUs; error: what the driver says instead."""

    def count() -> int:
        if error:
            raise CUDARuntimeError(error)
        return gpus

    runtime = types.SimpleNamespace(getDeviceCount=count, CUDARuntimeError=CUDARuntimeError)
    return types.SimpleNamespace(
        runtime=runtime,
        Device=Device,
        Stream=Stream,
        get_current_stream=get_current_stream,
        MemoryPool=MemoryPool,
        using_allocator=using_allocator,
        Memory=Memory,
        MemoryPointer=lambda memory, offset: (memory, offset),
    )


def module() -> Any:
    """What stands in for `cupy`."""
    cupy: Any = types.ModuleType("cupy")
    cupy.ndarray, cupy.get_array_module, cupy.__version__ = (
        ndarray,
        get_array_module,
        API["version"],
    )
    for name in API["functions"]:
        if not name.startswith("_") and hasattr(np, name) and not hasattr(cupy, name):
            setattr(cupy, name, function(name))
    for name in (
        "float16",
        "float32",
        "float64",
        "int32",
        "int64",
        "uint8",
        "uint32",
        "bool_",
        "newaxis",
        "pi",
        "inf",
    ):
        setattr(cupy, name, getattr(np, name))
    cupy.add.at = add_at
    cupy.lib = types.SimpleNamespace(
        stride_tricks=types.SimpleNamespace(sliding_window_view=windows)
    )
    cupy.cuda = cuda(1)
    cupy.get_default_memory_pool = MemoryPool
    cupy.asnumpy = lambda a: a.get() if isinstance(a, ndarray) else np.asarray(a)
    return cupy


@contextmanager
def installed() -> Iterator[Any]:
    """As `import cupy` finds it; the module."""
    from numpyvit.backend.kernels import gemm as products
    from numpyvit.backend.kernels import launch

    from .blas import Library
    from .compiled import RawKernel

    cupy, found = module(), products.cublas
    cupy.RawKernel = RawKernel
    libraries: Any = types.ModuleType("cupy_backends.cuda.libs")
    libraries.cublas, libraries.nvrtc = None, types.SimpleNamespace(getVersion=lambda: (13, 0))
    fakes = {
        "cupy": cupy,
        "cupy_backends": types.ModuleType("cupy_backends"),
        "cupy_backends.cuda": types.ModuleType("cupy_backends.cuda"),
        libraries.__name__: libraries,
    }
    before = {name: sys.modules.get(name) for name in fakes}
    sys.modules.update(fakes)
    kept = launch.kernel, products.handle  # which hold what they got from CuPy
    for each in kept:
        each.cache_clear()
    products.cublas = cache(Library)
    try:
        yield cupy
    finally:
        for each in kept:
            each.cache_clear()
        products.cublas = found
        for name, was in before.items():
            del sys.modules[name]
            if was is not None:
                sys.modules[name] = was
