"""Weights: a Param declares one, a Buffer holds all of them in one flat array.

The same Param handle finds a weight in the weights, its gradient in the gradients and its moments in the optimizer, since
each of these is a Buffer of the same layout. Zeroing, the norm, AdamW, adding two gradients and a checkpoint are then
each one operation over one array.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .backend.arrays import Array, get_xp
from .backend.device import to
from .errors import UserError

Initialiser = Callable[[np.random.Generator, tuple[int, ...]], Array]


# Each use of a seed draws from a stream of its own, default_rng((seed, USE, ...)). A seed alone would be the stream of
# (seed, 0), since missing numbers count as 0; so no use is 0.
WEIGHTS, ORDER, AUGMENT, DROPOUT, HELD_OUT = 1, 2, 3, 4, 5


def zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.zeros(shape)


def ones(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.ones(shape)


def xavier(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Uniform with variance 2 / (I + O), so that neither y nor dx grows with the width (Glorot and Bengio, 2010)."""
    limit = (6.0 / (shape[0] + shape[-1])) ** 0.5
    return rng.uniform(-limit, limit, shape)


def normal_02(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Normal with deviation 0.02, as the ViT paper's code has it for positions."""
    return rng.normal(0.0, 0.02, shape)


@dataclass(frozen=True, eq=False)
class Param:
    """A handle for one weight; compared by identity, so that one model's handles do not fit another's Buffer.

    shape: of the array; init: draws its first values; decay: whether weight decay applies (to matrices, not to
    biases, norms, positions and tokens).
    """

    shape: tuple[int, ...]
    init: Initialiser
    decay: bool = False

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


def named_params(layer: object, prefix: str = "") -> Iterator[tuple[str, Param]]:
    """Yield ("blocks.0.attention.qkv.w", Param) for every Param among a layer's attributes, depth first."""
    if isinstance(layer, Param):
        yield prefix, layer
        return
    items: dict[Any, object] = {}
    if isinstance(layer, list | tuple):
        items = dict(enumerate(layer))
    elif isinstance(layer, dict):
        items = layer
    elif hasattr(layer, "forward"):
        items = vars(layer)
    for name, item in items.items():
        yield from named_params(item, f"{prefix}.{name}" if prefix else str(name))


def params_of(layer: object) -> dict[str, Param]:
    """named_params as a dict. A layer that is used in two places has its weights once, under the first name."""
    first = {p: name for name, p in reversed(list(named_params(layer)))}
    return {name: p for p, name in reversed(first.items())}


class Buffer:
    """All weights of a layer or model in one flat array, with a view for each Param.

    `buffer[param]` or `buffer["blocks.0.mlp.fc1.w"]` is a view of the Param's shape; `buffer.flat` is everything. The
    weights that decay come first in `flat`, so that weight decay is one slice: `flat[:decayed]`.
    """

    def __init__(self, params: dict[str, Param], flat: Array) -> None:
        size = sum(p.size for p in params.values())
        if flat.shape != (size,):
            raise UserError(
                f"these weights are an array of shape {flat.shape}, but the model has {size:,} of them"
            )
        self.params, self.flat = params, flat
        self.decayed = sum(p.size for p in params.values() if p.decay)
        self._views: dict[Param | str, Array] = {}
        start = 0
        for name, p in sorted(
            params.items(), key=lambda item: not item[1].decay
        ):  # stable: the model's order within
            self._views[p] = self._views[name] = flat[start : start + p.size].reshape(p.shape)
            start += p.size

    def __getitem__(self, key: Param | str) -> Array:
        try:
            return self._views[key]
        except KeyError:
            if isinstance(key, str):
                raise UserError(f"no weight is called {key!r}; names() lists them") from None
            raise UserError(
                f"a Param of shape {key.shape} is not of the model that this Buffer was made for: "
                "make the weights with the init() of the same model object"
            ) from None

    def __setitem__(self, key: Param | str, value: Any) -> None:
        if value is not self._views.get(
            key
        ):  # buffer[p] += x has added in place already, and assigns the view itself
            self[key][...] = value

    def names(self) -> list[str]:
        return list(self.params)

    def zeros_like(self) -> "Buffer":
        return Buffer(self.params, get_xp(self.flat).zeros_like(self.flat))

    def copy(self) -> "Buffer":
        return Buffer(self.params, self.flat.copy())

    def astype(self, dtype: Any) -> "Buffer":
        return Buffer(self.params, self.flat.astype(dtype))

    def to(self, device: str) -> "Buffer":
        """The weights on a device, "cpu", "cuda" or "cuda:1". Raises UserError where that is not to be had."""
        return Buffer(self.params, to(self.flat, device))

    def __getstate__(self) -> tuple[dict[str, Param], Array]:
        return self.params, self.flat

    def __setstate__(self, state: tuple[dict[str, Param], Array]) -> None:
        self.__init__(*state)  # type: ignore[misc]     # the views must be made anew, over the new flat array

    def __repr__(self) -> str:
        return (
            f"<Buffer of {self.flat.size:,} {self.flat.dtype} weights in {len(self.params)} arrays>"
        )


def init(layer: object, seed: int = 0, dtype: Any = np.float32) -> Buffer:
    """First weights for any layer or model, as a Buffer. They are drawn in float64: all dtypes start alike."""
    params = params_of(layer)
    buffer = Buffer(params, np.empty(sum(p.size for p in params.values()), dtype))
    rng = np.random.default_rng((seed, WEIGHTS))
    for p in params.values():
        buffer[p][...] = p.init(rng, p.shape)
    return buffer
