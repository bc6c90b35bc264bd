"""Small functions on arrays that the files of the checker share."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend.arrays import Array


def is_cupy(x: object) -> bool:
    """Return whether x is an array of CuPy."""
    return type(x).__module__.partition(".")[0] == "cupy"


def host(x: Any) -> Array:
    """Return x as a NumPy array: CuPy's arrays, and all that NumPy can convert."""
    return x.get() if is_cupy(x) else np.asarray(x)


def is_array(x: object) -> bool:
    """Return whether x is a single float or an array: of NumPy, CuPy, PyTorch, JAX...

    Every object with the method __array__ counts as an array.
    """
    has_method = hasattr(x, "__array__") and not isinstance(x, type)
    return is_cupy(x) or has_method or isinstance(x, float)


def describe(x: object) -> str:
    """Return what x is, for an error message: "None", "a tuple of 3", "one ndarray"."""
    if x is None:
        return "None"
    if isinstance(x, tuple):
        return f"a tuple of {len(x)}"
    return f"one {type(x).__name__}"


def format_index(index: Sequence[int]) -> str:
    """Return (0, 2) as "[0, 2]", and () as ""."""
    if not len(index):
        return ""
    return f"[{', '.join(str(int(i)) for i in index)}]"


def first_bad(x: Array) -> str | None:
    """Return where x is not finite, as "NaN, first at [0, 2]"; None if it is finite."""
    bad = np.argwhere(~np.isfinite(x))
    if not len(bad):
        return None
    index = tuple(bad[0])
    found = "NaN" if np.isnan(x[index]) else "infinity"
    return f"{found}, first at {format_index(index)}" if index else found


def same(a: Array, b: Array) -> bool:
    """Return whether a and b have the same shape and values, with NaN equal to NaN."""
    return a.shape == b.shape and np.array_equal(a, b, equal_nan=True)


def close(a: Array, b: Array, tolerance: float = 1e-12) -> bool:
    """Return whether a and b agree to within `tolerance` times 1 + max |b|."""
    if a.shape != b.shape:
        return False
    allowed = tolerance * (1 + abs(b).max(initial=0))
    return bool(np.all(abs(a - b) <= allowed))


def normal(shape: Sequence[int], seed: int, dtype: Any = np.float64) -> Array:
    """Return normally distributed values of this shape, decided by the seed."""
    return np.random.default_rng((seed, 3)).normal(size=shape).astype(dtype)


def random_dy(shape: Sequence[int], seed: int, dtype: Any = np.float64) -> Array:
    """Return normally distributed values that differ from `normal`'s for the same seed.

    With dy = x some wrong gradients look right: xᵀ dy is then its own transpose.
    """
    return np.random.default_rng((seed, 9)).normal(size=shape).astype(dtype)


def norm(x: Array) -> float:
    """Return the square root of the sum of squares, without overflow or underflow."""
    largest = float(abs(x).max(initial=0))
    if not 0 < largest < np.inf:
        return largest
    return largest * float(np.linalg.norm((x / largest).astype(float)))


def natural_size(y: Array, inputs: Sequence[Array]) -> float:
    """Return the size of a gradient if y changes by max |y| when x changes by max |x|.

    If y is 0 everywhere, it is taken to change by 1. Inputs below 1 are taken to change
    by 1.
    """
    y_size = float(abs(y).max(initial=0)) or 1.0
    input_sizes = [float(abs(x).max(initial=0)) for x in inputs]
    return y_size / max([1.0, *input_sizes])
