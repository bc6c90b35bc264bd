"""Weights: a Param declares one weight, a Buffer holds the values of all of them.

A layer owns no arrays. It declares its weights as Param handles, and its forward and
backward receive a Buffer that has an array for each handle:

    class Linear:
        def __init__(self, d_in, d_out):
            self.w = Param((d_in, d_out), xavier)       # the declaration

        def forward(self, params, x):
            w = params[self.w]                          # the values
            return x @ w, (x, w)

        def backward(self, dy, cache, grads):
            x, w = cache
            grads[self.w] += x.T @ dy                   # the gradient, in another Buffer
            return dy @ w.T                             # (both are derived in linear.py)

A Buffer is one flat array with a view into it for each Param. The weights, their
gradients, and what an optimizer remembers of each weight all have the same layout, so the
same handle finds a weight in each of them. Zeroing, the norm, adding two gradients, writing
a checkpoint and moving to a GPU each work on one array, and so do most optimizers.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .backend.arrays import Array, check_array, check_dtype, get_xp
from .backend.device import to
from .errors import UserError, check_bool, check_function, check_int, check_type, shown
from .seeds import WEIGHTS

Initialiser = Callable[[np.random.Generator, tuple[int, ...]], Array]


def zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return zeros, the initial value of biases."""
    return np.zeros(shape)


def ones(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return ones, the initial scale of a layer norm."""
    return np.ones(shape)


def xavier(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Draw uniformly with variance 2 / (I + O) (Glorot and Bengio, 2010).

    I and O are the features into and out of a linear layer. With this variance the size of
    neither y nor dx grows with them.
    """
    limit = (6.0 / (shape[0] + shape[-1])) ** 0.5
    return rng.uniform(-limit, limit, shape)


def normal_02(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Draw normally with standard deviation 0.02, as the ViT paper's code does for positions."""
    return rng.normal(0.0, 0.02, shape)


@dataclass(frozen=True, eq=False)
class Param:
    """A handle for one weight.

    shape: the shape of its array; init: draws its initial values; decay: whether weight
    decay, which pulls a weight towards 0 in each step, applies to it (it does to matrices,
    but not to biases, norms, positions and tokens). Params are compared by identity, so
    that the handles of one model do not fit the Buffer of another. init must be defined at
    the top level of a module, or be a functools.partial of such a function, because Buffers
    are pickled.
    """

    shape: tuple[int, ...]
    init: Initialiser
    decay: bool = False

    def __post_init__(self) -> None:
        check_type("shape", self.shape, tuple, "a tuple of integers")
        for n in self.shape:
            check_int("an axis of the shape", n, least=1, most=2**31 - 1)
        check_function("init", self.init, "a function of (rng, shape), such as params.xavier")
        check_bool("decay", self.decay)

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


def named_params(layer: object, prefix: str = "") -> Iterator[tuple[str, Param]]:
    """Yield ("blocks.0.attention.qkv.w", Param) for every Param of a layer, depth first."""
    if isinstance(layer, Param):
        yield prefix, layer
        return
    items: dict[Any, object] = {}
    if isinstance(layer, list | tuple):
        items = dict(enumerate(layer))
    elif isinstance(layer, dict):
        items = layer
    elif hasattr(layer, "forward"):  # a layer: its weights and inner layers are attributes
        items = vars(layer)
    for name, item in items.items():
        yield from named_params(item, f"{prefix}.{name}" if prefix else str(name))


def params_of(layer: object) -> dict[str, Param]:
    """Return named_params as a dict.

    A layer that is used in two places has its weights once, under the first name.
    """
    # Reversed: if a Param occurs twice, its first name is written last and wins.
    first = {p: name for name, p in reversed(list(named_params(layer)))}
    return {name: p for p, name in reversed(first.items())}


class Buffer(Mapping[str, Array]):
    """The values of all weights of a layer or model, in one flat array.

    `buffer[param]` and `buffer["blocks.0.mlp.fc1.w"]` are views of the shape of that Param,
    `buffer.flat` is the whole array. The weights with weight decay come first in it, so
    that weight decay concerns one slice, `flat[:decayed]`. A Buffer is a mapping from names
    to arrays: `np.savez(file, **params)` works.
    """

    __hash__ = object.__hash__  # Buffers are compared by identity, not by their arrays

    def __init__(self, params: dict[str, Param], flat: Array) -> None:
        check_type("params", params, dict, "a dict of names and Params, such as model.params")
        for p in params.values():
            check_type("params", p, Param, "a dict of names and Params, such as model.params")
        check_array("flat", flat, "floats", ("n",))
        if not flat.flags.c_contiguous:
            raise UserError("flat is not contiguous: views of it need np.ascontiguousarray(flat)")
        size = sum(p.size for p in params.values())
        if flat.shape != (size,):
            raise UserError(
                f"the weights are an array of shape {flat.shape}, but the model has {size:,} "
                "weights: use the model that they were made for"
            )
        self.params, self._flat = params, flat
        self.decayed = sum(p.size for p in params.values() if p.decay)
        self._views: dict[Param | str, Array] = {}
        start = 0
        decayed_first = sorted(params.items(), key=lambda item: not item[1].decay)  # stable
        for name, p in decayed_first:
            view = flat[start : start + p.size].reshape(p.shape)
            self._views[p] = self._views[name] = view
            start += p.size

    @property
    def flat(self) -> Array:
        """The whole array. Assigning to it copies the values into the array that is there."""
        return self._flat

    @flat.setter
    def flat(self, value: Array) -> None:
        # The views, and an optimizer's, are views of the array that is there. It must stay.
        if value is not self._flat:  # after `buffer.flat *= 0.9` the array itself is assigned
            check_array("flat", value, str(self._flat.dtype), self._flat.shape)
            self._flat[...] = get_xp(self._flat).asarray(value)

    def __getitem__(self, key: Param | str) -> Array:
        try:
            return self._views[key]
        except (KeyError, TypeError):
            if isinstance(key, Param):
                raise UserError(
                    f"a Param of shape {key.shape} does not belong to the model that this "
                    "Buffer was made for: make the weights with init() of the same model object"
                ) from None
            raise UserError(f"no weight is called {key!r}: list(params) has the names") from None

    def __setitem__(self, key: Param | str, value: Any) -> None:
        # `buffer[p] += x` has already added in place and then assigns the view itself.
        if value is not self._views.get(key):
            view = self[key]
            try:
                view[...] = value
            except (ValueError, TypeError, OverflowError) as error:
                raise UserError(
                    f"{shown(key)} has shape {view.shape}; it cannot be {shown(value)}: {error}"
                ) from None

    def __contains__(self, key: object) -> bool:
        return key in self._views

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the array of `key`, or `default` if there is none."""
        return self._views.get(key, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self.params)

    def __len__(self) -> int:
        return len(self.params)

    def __eq__(self, other: object) -> bool:
        return self is other

    def names(self) -> list[str]:
        """Return the names of all weights, in the order of the model."""
        return list(self.params)

    def layout(self) -> list[tuple[str, tuple[int, ...], bool]]:
        """Return name, shape and decay of each weight; Buffers with equal layouts fit together."""
        return [(name, p.shape, p.decay) for name, p in self.params.items()]

    def zeros_like(self) -> "Buffer":
        """Return a Buffer of the same layout filled with zeros."""
        return Buffer(self.params, get_xp(self.flat).zeros_like(self.flat))

    def copy(self) -> "Buffer":
        """Return a Buffer with a copy of the values."""
        return Buffer(self.params, self.flat.copy())

    def astype(self, dtype: Any) -> "Buffer":
        """Return a Buffer with the values converted to `dtype`, a type of floats."""
        check_dtype("dtype", dtype)
        return Buffer(self.params, self.flat.astype(dtype))

    def to(self, device: str) -> "Buffer":
        """Return the Buffer on a device, "cpu", "cuda" or "cuda:1".

        Raises UserError if the device is not available.
        """
        return Buffer(self.params, to(self.flat, device))

    def __getstate__(self) -> tuple[dict[str, Param], Array]:
        return self.params, self.flat

    def __setstate__(self, state: tuple[dict[str, Param], Array]) -> None:
        # The views must be made again, into the new flat array.
        self.__init__(*state)  # type: ignore[misc]

    def __repr__(self) -> str:
        return (
            f"<Buffer of {self.flat.size:,} {self.flat.dtype} weights in {len(self.params)} arrays>"
        )


def init(layer: object, seed: int = 0, dtype: Any = np.float32) -> Buffer:
    """Draw initial weights for any layer or model.

    They are drawn in float64, so that models of all dtypes start alike. Raises UserError for
    a seed that is not an integer from 0, and for a dtype that is not one of floats.
    """
    seed = check_int("seed", seed, most=2**128)
    check_dtype("dtype", dtype)
    params = params_of(layer)
    buffer = Buffer(params, np.empty(sum(p.size for p in params.values()), dtype))
    rng = np.random.default_rng((seed, WEIGHTS))
    for p in params.values():
        buffer[p][...] = p.init(rng, p.shape)
    return buffer
