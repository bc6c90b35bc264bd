"""Named operations that the layers share, and the decorators that find faster versions.

Each operation is a plain formula with a fast spelling; its docstring says what it equals
and what the spelling gains. The ratios were measured in float32 on one core (NumPy 2.4,
OpenBLAS), on arrays that fit the cache.
"""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from .arrays import Array, as_rows, get_xp, ndarray, on_host, read_only

# uint64: the random bits from which choose_patches draws.
KERNEL_DTYPES = (np.float32, np.float64, np.uint64)

F = TypeVar("F", bound=Callable[..., Any])


class _Mode(threading.local):
    textbook = False


_mode = _Mode()


@contextmanager
def textbook() -> Iterator[None]:
    """Let this thread run the textbook functions in place of their fast twins.

    A forward pass and its backward pass must be in the same mode, because the two forms
    have different caches.
    """
    before = _mode.textbook
    _mode.textbook = True
    try:
        yield
    finally:
        _mode.textbook = before


def on_gpu(f: F) -> F:
    """Decorate `f` so that CuPy arrays go to the kernel of the same name, if there is one.

    The kernels are in backend/kernels. The first argument decides; if it is a number, as
    the gradient of a loss with respect to itself is, the first array of the cache decides.
    For NumPy arrays the decorated function simply calls `f`, which stays available:
    `inspect.unwrap` returns it.
    """

    @functools.wraps(f)
    def call(*args: Any, **kwargs: Any) -> Any:
        # The first line is all that a call on the CPU costs, a tenth of a microsecond.
        if type(args[0]) is ndarray:
            return f(*args, **kwargs)
        array = args[1][0] if isinstance(args[0], float) else args[0]
        if on_host(array) or array.dtype not in KERNEL_DTYPES:
            return f(*args, **kwargs)
        from .kernels import KERNELS

        return KERNELS.get(f.__name__, f)(*args, **kwargs)

    return call  # type: ignore[return-value]


def fast_twin(fast: Callable[..., Any]) -> Callable[[F], F]:
    """Decorate a textbook function so that calling it runs `fast`, which computes the same.

    A forward function and its backward function are replaced together, because each pair
    defines its own cache. The textbook function stays available (`inspect.unwrap` returns
    it), and the tests compare the two.
    """

    def decorate(textbook_function: F) -> F:
        @functools.wraps(textbook_function)
        def call(*args: Any, **kwargs: Any) -> Any:
            chosen = textbook_function if _mode.textbook else fast
            return chosen(*args, **kwargs)

        return call  # type: ignore[return-value]

    return decorate


@on_gpu
def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """Return a @ b, in `out` if that is given: a (..., m, k), b (..., k, n)  ->  (..., m, n)."""
    return get_xp(a).matmul(a, b, out=out)


@functools.lru_cache(maxsize=256)
def filled(xp: ModuleType, n: int, dtype: Any, value: float = 1.0) -> Array:
    """Return (n,) copies of `value`: the vector with which a matrix product sums."""
    return read_only(np.full(n, value, dtype), xp, dtype)


def row_sum(x: Array) -> Array:
    """Return x.sum(-1, keepdims=True): x (..., D)  ->  (..., 1).

    As a matrix product with a vector of ones it is 2 to 6 times as fast.
    """
    sums = as_rows(x) @ filled(get_xp(x), x.shape[-1], x.dtype)
    return sums.reshape(*x.shape[:-1], 1)


def row_mean(x: Array) -> Array:
    """Return x.mean(-1, keepdims=True): x (..., D)  ->  (..., 1).

    It is fast for the same reason as row_sum.
    """
    D = x.shape[-1]
    means = as_rows(x) @ filled(get_xp(x), D, x.dtype, 1 / D)
    return means.reshape(*x.shape[:-1], 1)


def row_dot(a: Array, b: Array) -> Array:
    """Return (a * b).sum(-1, keepdims=True): a (..., D), b (..., D)  ->  (..., 1).

    vecdot is 1.3 times as fast as einsum. For rows of at most 32 elements a matrix product
    with ones is twice as fast again. CuPy has no vecdot.
    """
    xp = get_xp(a)
    if xp is not np or a.shape[-1] <= 32:
        return row_sum(a * b)
    return xp.vecdot(a, b)[..., None]


@on_gpu
def col_sum(x: Array) -> Array:
    """Return the sum over all axes except the last: x (..., D)  ->  (D,).

    As a matrix product with a vector of ones it is 2 to 3 times as fast.
    """
    rows = as_rows(x)
    return filled(get_xp(x), rows.shape[0], x.dtype) @ rows


def transposed(x: Array, scale: float) -> Array:
    """Return a contiguous copy of scale * xᵀ: x (..., N, E)  ->  (..., E, N).

    A product of small matrices with this copy takes a half to two thirds of the time of a
    product with a transposed view, and the copy itself a tenth to a third of it.
    """
    xp = get_xp(x)
    out = xp.empty((*x.shape[:-2], x.shape[-1], x.shape[-2]), x.dtype)
    return xp.multiply(x.swapaxes(-1, -2), scale, out=out)
