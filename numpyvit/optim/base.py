"""What all optimizers share: the step around an update, norms, and states for checkpoints."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..backend.arrays import Array, get_xp, on_host
from ..backend.device import to_host
from ..errors import UserError, check_function, check_number, check_type, shown
from ..params import Buffer
from .uninterrupted import uninterrupted

# Elements in a block of the flat array. Updates are computed block by block, so that
# intermediate results are small and stay in the cache: AdamW is 1.05 to 1.1 times as fast.
BLOCK = 32768

Map = Callable[[Callable[[Any], object], Sequence[Any]], None]


def serial_map(function: Callable[[Any], object], items: Sequence[Any]) -> None:
    """Call function(item) for each item, one after another (Workers.map uses threads)."""
    for item in items:
        function(item)


class Optimizer:
    """The base of all optimizers.

    A kind of optimizer has its moments in `buffers()`, and its `update` computes the new
    weights in place and calls `follow` for the running average. The base counts the steps
    `t`, and measures and clips the gradients.

    average: if above 0, `self.average` follows the weights,
    avg = average * avg + (1 - average) * p, to evaluate with (Polyak and Juditsky, 1992, in
    its exponential form); in the first steps the factor is smaller, so that the initial
    weights are soon forgotten. If 0, `self.average` is the weights themselves.

    Raises UserError for numbers that make no sense.
    """

    def __init__(self, params: Buffer, weight_decay: float, average: float = 0.0) -> None:
        check_buffer("params", params)
        check_number("weight_decay", weight_decay, least=0)
        check_number("average", average, least=0, below=1)
        self.weight_decay, self.average_decay = weight_decay, average
        self.t = 0
        self.average = params.copy() if average else params

    def step(
        self,
        params: Buffer,
        grads: Buffer,
        lr: float,
        clip: float | None = None,
        map: Map = serial_map,
    ) -> Any:
        """Update params in place, with the gradients scaled to a norm of at most `clip`.

        map runs independent parts of the update, for example over threads (Workers.map).
        Returns the norm of the gradients before clipping: a float, or on a GPU a
        zero-dimensional array. Ctrl-C takes effect before or after the update, never between
        two of its arrays. If the norm is not finite the step is skipped (on a GPU it
        is not; see may_step). Raises UserError for Buffers of different models, a negative
        lr, and a clip that is not above 0 (None turns clipping off).
        """
        check_number("lr", lr, least=0)
        if clip is not None:
            check_number("clip", clip, above=0, hint=", or None for no clipping")
        check_function("map", map, "a function (function, items)")
        check_buffer("params", params)
        check_buffer("grads", grads)
        if grads.flat is params.flat:
            raise UserError(
                "grads is the Buffer of the weights: it must be that of their gradients"
            )
        check_same_layout(params, grads, *self.buffers().values())
        norm = grad_norm(grads)
        if may_step(norm):
            with uninterrupted():
                numbers = self.begin_step(lr, params.flat)
                self.update(params, grads, numbers, clip_factor(norm, clip), map)
        return norm

    def begin_step(self, lr: float, like: Array) -> Any:
        """Advance t and return the numbers of this step that are the same for all weights.

        On a GPU they are an array on the device of `like`.
        """
        self.t += 1
        found = self.numbers(lr)
        return found if on_host(like) else get_xp(like).asarray(found, like.dtype)

    def numbers(self, lr: float) -> tuple[float, ...]:
        """Return the numbers of step t; the last is the factor of the running average."""
        return lr, min(self.average_decay, (1 + self.t) / (10 + self.t))

    def update(self, params: Buffer, grads: Buffer, numbers: Any, scale: Any, map: Map) -> None:
        """Update the weights and the moments in place; the gradients count `scale` times.

        An optimizer defines this. It must not change grads and scale, and must take
        everything that depends on the step from `numbers`, which is an array on a GPU: a
        CUDA graph repeats all other Python values. It must not read values from the device.
        `blocks` says which weights decay. After each slice of new weights it calls `follow`
        for that slice. (AdamW's update moves the average itself, to save a pass over memory.)
        """
        raise TypeError(f"{type(self).__name__} does not define update")

    def follow(self, at: slice, params: Buffer, average_factor: Any) -> None:
        """Move the running average, if there is one, towards a slice of the new weights."""
        if self.average_decay:
            average = self.average.flat[at]
            average += (1 - average_factor) * (params.flat[at] - average)

    def buffers(self) -> dict[str, Buffer]:
        """Return the Buffers that a checkpoint keeps, by name."""
        return {"average": self.average} if self.average_decay else {}

    def state(self) -> dict[str, Array]:
        """Return what a checkpoint keeps, on the host."""
        flat = {name: to_host(buffer.flat) for name, buffer in self.buffers().items()}
        return flat | {"t": np.array(self.t)}

    def load_state(self, state: dict[str, Array]) -> None:
        """Restore the result of state().

        The state may also have the "weights", which a checkpoint keeps beside it; they are
        not read. Raises UserError for a state of another kind of optimizer or of another
        model. Nothing has changed then.
        """
        check_type("state", state, dict, "a dict of arrays, as state() returns it")
        t = state.get("t")
        if not (isinstance(t, np.ndarray) and t.shape == () and t.dtype.kind in "iu" and t >= 0):
            raise UserError(
                "the optimizer's step 't' is missing: this state belongs to another optimizer"
            )
        buffers = self.buffers()
        check_state(state, buffers)
        self.check_moments(state)
        for name, buffer in buffers.items():
            buffer.flat = state[name]
        self.t = int(t)

    def check_moments(self, state: dict[str, Array]) -> None:
        """Raise UserError if the values show that another kind of optimizer made the state.

        The names, shapes and dtypes have been checked.
        """


def blocks(params: Buffer) -> Iterator[tuple[slice, bool]]:
    """Yield (slice of the flat array, whether its weights decay), block by block.

    No block contains both weights that decay and weights that do not. On a GPU a block is
    as large as possible.
    """
    size, decayed = params.flat.size, params.decayed
    block = BLOCK if on_host(params.flat) else max(size, 1)
    for start, stop, decay in ((0, decayed, True), (decayed, size, False)):
        for i in range(start, stop, block):
            yield slice(i, min(i + block, stop)), decay


def grad_norm(grads: Buffer) -> Any:
    """Return the Euclidean norm of all gradients together.

    A float; on a GPU a zero-dimensional array, so that nothing waits for it.
    """
    g = grads.flat
    if not on_host(g):
        return get_xp(g).sqrt((g * g).sum())

    def sum_of_squares(dtype: Any) -> float:
        parts = (g[at].astype(dtype, copy=False) for at, _ in blocks(grads))
        return sum(float(part @ part) for part in parts)

    with np.errstate(over="ignore", invalid="ignore"):  # the caller looks at the norm
        total = sum_of_squares(g.dtype)
        if not 1e-20 < total < 1e20:  # squares of float32 overflow or vanish
            total = sum_of_squares(np.result_type(g.dtype, np.float64))
    return math.sqrt(total)


def clip_factor(norm: Any, clip: float | None) -> Any:
    """Return the factor for all gradients that makes their norm at most `clip`."""
    if clip is not None and not isinstance(norm, float):
        return get_xp(norm).minimum(1, clip / norm)
    return 1.0 if clip is None or norm <= clip else clip / norm


def may_step(norm: Any) -> bool:
    """Return False if the norm is known to be infinite or NaN.

    On a GPU it is not known at this time; the weights then become NaN with the gradients,
    and the trainer stops when it looks.
    """
    return not isinstance(norm, float) or math.isfinite(norm)


def check_buffer(name: str, value: object) -> None:
    """Raise UserError unless `value` is a Buffer."""
    check_type(name, value, Buffer, "a Buffer, such as model.init() and zeros_like() return")


def check_same_layout(*buffers: Buffer) -> None:
    """Raise UserError unless weights, gradients and moments belong to one model."""
    first, *others = buffers
    for other in others:
        if other.params is not first.params and other.layout() != first.layout():
            sizes = [b.flat.size for b in buffers]
            raise UserError(
                f"weights, gradients and the optimizer's moments have {sizes} elements, or "
                "different shapes: use those of one model"
            )


def check_state(state: dict[str, Array], buffers: dict[str, Buffer]) -> None:
    """Raise UserError unless a state has an array for each buffer, and no others."""
    for name in state:
        if name not in {*buffers, "t", "weights"}:
            raise UserError(
                f"the state has {shown(name)}, which this optimizer does not have: it belongs to "
                "another optimizer"
            )
    for name, buffer in buffers.items():
        flat = state.get(name)
        shape, dtype = buffer.flat.shape, buffer.flat.dtype
        if not isinstance(flat, np.ndarray) or flat.shape != shape or flat.dtype != dtype:
            found = "missing" if flat is None else shown(flat)
            raise UserError(
                f"the optimizer's {name!r} is {found}, wanted {dtype} of shape {shape}: this "
                "state belongs to another optimizer or model"
            )
