"""What all optimizers share: the step around an update, norms, and states for checkpoints."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..backend.arrays import Array, get_xp, on_host
from ..backend.device import to_host
from ..errors import UserError
from ..params import Buffer

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
    """

    def __init__(self, params: Buffer, weight_decay: float, average: float = 0.0) -> None:
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
        zero-dimensional array. If the norm is not finite the step is skipped (on a GPU it
        is not; see may_step). Raises UserError for Buffers of different models.
        """
        check_same_size(params, grads, *self.buffers().values())
        norm = grad_norm(grads)
        if may_step(norm):
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

        Raises UserError for a state that lacks a moment or has the shape of another model.
        """
        t = state.get("t")
        if t is None or t.shape or t.dtype.kind not in "iu":
            raise UserError(
                "the optimizer's step 't' is missing: this state belongs to another optimizer"
            )
        load_flat(state, self.buffers())
        self.t = int(t)


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


def check_same_size(*buffers: Buffer) -> None:
    """Raise UserError unless weights, gradients and moments belong to one model."""
    sizes = [b.flat.size for b in buffers]
    if len(set(sizes)) > 1:
        raise UserError(
            f"weights, gradients and the optimizer's moments have {sizes} elements: "
            "use those of one model"
        )


def load_flat(state: dict[str, Array], buffers: dict[str, Buffer]) -> None:
    """Copy state[name] into each buffer if all of them fit."""
    for name, buffer in buffers.items():
        flat = state.get(name)
        if flat is None or flat.shape != buffer.flat.shape or flat.dtype != buffer.flat.dtype:
            found = "missing" if flat is None else f"{flat.dtype} of shape {flat.shape}"
            raise UserError(
                f"the optimizer's {name!r} is {found}, wanted {buffer.flat.dtype} of shape "
                f"{buffer.flat.shape}: this state belongs to another optimizer or model"
            )
    for name, buffer in buffers.items():
        buffer.flat[...] = get_xp(buffer.flat).asarray(state[name])
