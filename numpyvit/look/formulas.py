"""The formula of every number: a statement, read as a function of its operands.

`run` runs one statement with Symbols in place of arrays. A Symbol has the shape of the
array and, instead of values, a tree that says how they are computed. So the layers'
source is the only place where a formula is written down; whoever wants to show how one
number came about (the page does) follows the tree for that one element.

A tree is made of dicts, so that JSON can hold it. Each has the key "op", and its
"shape" (evaluate.py computes the values):

    step       the array of the recorded step number "step"
    number     the same "value" everywhere
    gather     elements of "arg": element (i, j, ...) is number
               offset + Σ strides · (i, j, ...) of the elements of arg in C order; or,
               in general, number index[n] of
               them for the n-th element in C order, where -1 stands for 0
    assign     a copy of "base" in which the elements at "index" have been replaced by
               those of "value", both in C order
    join       the elements of the arrays "args", one array after the other
    sum, max   over the last axis of "arg"
    matmul     the matrix product of the two "args"
    other ops  NumPy's function of that name, element by element: add, exp, tanh, ...
               of "args", which all have this shape
"""

import ast
import math
from collections.abc import Callable
from types import CodeType, SimpleNamespace
from typing import Any

import numpy as np

from ..backend.arrays import Array

Tree = dict[str, Any]
# NumPy's functions that only rearrange, repeat or leave out the elements of their
# argument.
VIEWS = frozenset(
    [
        np.broadcast_to,
        np.expand_dims,
        np.flip,
        np.lib.stride_tricks.sliding_window_view,
        np.moveaxis,
        np.pad,
        np.ravel,
        np.repeat,
        np.reshape,
        np.roll,
        np.squeeze,
        np.swapaxes,
        np.take,
        np.tile,
        np.transpose,
    ]
)


class Symbol(np.lib.mixins.NDArrayOperatorsMixin):
    """An array of which only the formula, `tree`, is known."""

    def __init__(self, tree: Tree, dtype: Any = np.float32) -> None:
        self.tree = tree
        self.dtype = np.dtype(dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tree["shape"])

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def T(self) -> "Symbol":
        return self.transpose()

    def __len__(self) -> int:
        return self.shape[0]

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        out = kwargs.pop("out", None)
        if method != "__call__" or kwargs:
            return NotImplemented
        result = apply(ufunc, [as_symbol(x) for x in inputs])
        if out is None:
            return result
        target = out[0]
        if not isinstance(target, Symbol) or target.shape != result.shape:
            return NotImplemented
        target.tree = result.tree
        return target

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if func in (np.stack, np.concatenate):
            return join(func, *args, **kwargs)
        if func is np.where and len(args) == 3:
            return apply(np.where, [as_symbol(x) for x in args])
        if func in (np.empty_like, np.zeros_like):
            return number(0.0, self.shape)
        array, *rest = args
        if func not in VIEWS or not isinstance(array, Symbol):
            return NotImplemented
        if func is np.pad:
            if "constant_values" in kwargs:
                return NotImplemented
            kwargs = {**kwargs, "constant_values": -1}  # index -1 stands for 0
        return view(array, lambda index: func(index, *rest, **kwargs))

    def reshape(self, *shape: Any) -> "Symbol":
        return view(self, lambda index: index.reshape(*shape))

    def transpose(self, *axes: Any) -> "Symbol":
        return view(self, lambda index: index.transpose(*axes))

    def swapaxes(self, a: int, b: int) -> "Symbol":
        return view(self, lambda index: index.swapaxes(a, b))

    def __getitem__(self, key: Any) -> "Symbol":
        return view(self, lambda index: index[key])

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __setitem__(self, key: Any, value: Any) -> None:
        index = np.arange(self.size).reshape(self.shape)[key]
        new = broadcast(as_symbol(value), np.shape(index))
        places = np.ravel(index).tolist()
        tree = {"op": "assign", "base": self.tree, "index": places, "value": new.tree}
        self.tree = {**tree, "shape": self.shape}

    def sum(self, axis: int | None = None, keepdims: bool = False) -> "Symbol":
        return reduced("sum", self, axis, keepdims)

    def max(self, axis: int | None = None, keepdims: bool = False) -> "Symbol":
        return reduced("max", self, axis, keepdims)

    def astype(self, dtype: Any) -> "Symbol":
        return self


def number(value: float, shape: tuple[int, ...] = ()) -> Symbol:
    """Return a Symbol whose elements are all `value`."""
    return Symbol({"op": "number", "value": float(value), "shape": shape})


def as_symbol(x: Any) -> Symbol:
    """Return a number as a Symbol. Raises TypeError for an array that is not one."""
    if isinstance(x, Symbol):
        return x
    if np.ndim(x) == 0:
        return number(float(x))
    raise TypeError(f"an array of shape {np.shape(x)} is not a recorded one")


def apply(ufunc: Any, inputs: list[Symbol]) -> Symbol:
    """Return the Symbol of a NumPy function of Symbols."""
    if ufunc is np.matmul:
        a, b = inputs
        shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
        a = broadcast(a, (*shape[:-2], *a.shape[-2:]))
        b = broadcast(b, (*shape[:-2], *b.shape[-2:]))
        return Symbol({"op": "matmul", "args": [a.tree, b.tree], "shape": shape})
    shape = np.broadcast_shapes(*(x.shape for x in inputs))
    args = [broadcast(x, shape).tree for x in inputs]
    return Symbol({"op": ufunc.__name__, "args": args, "shape": shape})


def broadcast(x: Symbol, shape: tuple[int, ...]) -> Symbol:
    """Return x with its elements repeated to fill `shape`."""
    if x.shape == shape:
        return x
    if x.tree["op"] == "number":
        return number(x.tree["value"], shape)
    return view(x, lambda index: np.broadcast_to(index, shape))


def view(x: Symbol, change: Callable[[Array], Array]) -> Symbol:
    """Return the Symbol of a view of x; change makes the same view of any array."""
    return gather(x, change(np.arange(x.size).reshape(x.shape)))


def gather(x: Symbol, index: Array) -> Symbol:
    """Return the Symbol of the elements of x at the places `index`, in C order."""
    tree: Tree = {"op": "gather", "arg": x.tree, "shape": index.shape}
    # Most views are a regular pattern: the place changes by a fixed stride along each
    # axis.
    origin = (0,) * index.ndim
    offset = int(index[origin]) if index.size else 0
    strides = []
    for axis, length in enumerate(index.shape):
        step = tuple(int(i == axis) for i in range(index.ndim))
        strides.append(int(index[step]) - offset if length > 1 and index.size else 0)
    regular = offset + sum(
        stride * np.arange(n).reshape(-1, *[1] * (index.ndim - 1 - axis))
        for axis, (stride, n) in enumerate(zip(strides, index.shape, strict=True))
    )
    if np.array_equal(np.broadcast_to(regular, index.shape), index):
        return Symbol({**tree, "offset": offset, "strides": strides}, x.dtype)
    return Symbol({**tree, "index": index.ravel().tolist()}, x.dtype)


def join(func: Any, arrays: Any, axis: int = 0) -> Symbol:
    """Return the Symbol of np.stack or np.concatenate."""
    symbols = [as_symbol(x) for x in arrays]
    starts = np.cumsum([0] + [x.size for x in symbols])
    parts = [
        np.arange(start, start + x.size).reshape(x.shape)
        for start, x in zip(starts, symbols, strict=False)
    ]
    order = func(parts, axis=axis)
    args = [x.tree for x in symbols]
    all_elements = Symbol({"op": "join", "args": args, "shape": (int(starts[-1]),)})
    return gather(all_elements, order)


def reduced(op: str, x: Symbol, axis: int | None, keepdims: bool) -> Symbol:
    """Return the Symbol of a sum or a maximum over one axis, or over all of them."""
    if axis is None:
        return Symbol({"op": op, "arg": x.reshape(-1).tree, "shape": ()})
    moved = view(x, lambda index: np.moveaxis(index, axis, -1))
    result = Symbol({"op": op, "arg": moved.tree, "shape": moved.shape[:-1]})
    return view(result, lambda index: np.expand_dims(index, axis)) if keepdims else result


# The helpers of the layers' pages, as the first page documents them.
def _col_sum(x: Any) -> Any:
    return x.reshape(-1, x.shape[-1]).sum(0)


def _erf(x: Any) -> Any:
    return Symbol({"op": "erf", "args": [x.tree], "shape": x.shape})


class Numpy(SimpleNamespace):
    """What get_xp returns while a statement runs: numpy, but new arrays are Symbols."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


XP = Numpy(
    zeros=lambda shape, dtype=None: number(0.0, np.empty(shape, bool).shape),
    empty=lambda shape, dtype=None: number(0.0, np.empty(shape, bool).shape),
)
HELPERS: dict[str, Any] = {
    "matmul": lambda a, b, out=None: a @ b,
    "row_sum": lambda x: x.sum(-1, keepdims=True),
    "row_mean": lambda x: x.sum(-1, keepdims=True) / x.shape[-1],
    "row_dot": lambda a, b: (a * b).sum(-1, keepdims=True),
    "col_sum": _col_sum,
    "as_rows": lambda x: x.reshape(-1, x.shape[-1]),
    "transposed": lambda x, scale: scale * x.swapaxes(-1, -2),
    "contiguous": lambda x: x,
    "get_xp": lambda x: XP,
    "erf": _erf,
}


def compiled(statement: ast.stmt) -> CodeType:
    """Return a statement for `run`. A return statement sets the variable "return"."""
    if isinstance(statement, ast.Return):
        value = statement.value or ast.Constant(None)
        statement = ast.Assign([ast.Name("return", ast.Store())], value)
    module = ast.fix_missing_locations(ast.Module([statement], []))
    return compile(module, "<statement>", "exec")


def run(code: CodeType, names: dict[str, Any], module: dict[str, Any]) -> dict[str, Any]:
    """Run a statement, as compiled, and return its variables.

    names: the variables before it, arrays as Symbols; module: the globals of its
    function. Raises what the statement raises if it does more with its arrays than
    Symbols can follow.
    """
    names = dict(names)
    exec(code, {**module, **HELPERS}, names)
    return names
