"""SGD and AdamW over the flat buffer, and clipping. Each is a few lines over one array, cut into blocks so that the
intermediate results are small and stay in the cache.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..backend.arrays import Array, fused, get_xp, on_host
from ..backend.device import to_host
from ..errors import UserError
from ..params import Buffer

BLOCK = 32768  # elements. AdamW is 1.05 to 1.1 times faster for it, and makes no arrays of the model's size


Each = Callable[[Callable[[Any], object], Sequence[Any]], None]
Numbers = tuple[float, float, float, float] | Array


def one_by_one(run: Callable[[Any], object], items: Sequence[Any]) -> None:
    """What Workers.each does over threads."""
    for item in items:
        run(item)


def blocks(params: Buffer) -> Iterator[tuple[slice, bool]]:
    """Cut the flat array into blocks, none of which straddles the border between the weights that decay and those that do
    not. (A GPU gets all at once.)"""
    size, decayed = params.flat.size, params.decayed
    block = BLOCK if on_host(params.flat) else max(size, 1)
    for start, stop, decay in ((0, decayed, True), (decayed, size, False)):
        for i in range(start, stop, block):
            yield slice(i, min(i + block, stop)), decay


def grad_norm(grads: Buffer) -> Any:
    """The Euclidean norm of all gradients together: a float, or on a GPU an array of no dimension, so as not to wait."""
    g = grads.flat
    if not on_host(g):
        return get_xp(g).sqrt((g * g).sum())

    def squares(dtype: Any) -> float:
        parts = (g[at].astype(dtype, copy=False) for at, _ in blocks(grads))
        return sum(float(part @ part) for part in parts)

    with np.errstate(over="ignore", invalid="ignore"):  # the caller looks at the norm
        total = squares(g.dtype)
        if not 1e-20 < total < 1e20:  # squares of float32 overflow, or vanish
            total = squares(np.result_type(g.dtype, np.float64))
    return math.sqrt(total)


def clip_factor(norm: Any, clip: float | None) -> Any:
    """What to multiply all gradients by, so that their norm is at most `clip`."""
    if clip is not None and not isinstance(norm, float):
        return get_xp(norm).minimum(1, clip / norm)
    return 1.0 if clip is None or norm <= clip else clip / norm


def may_step(norm: Any) -> bool:
    """Not where the norm is known to be infinite or NaN. On a GPU it is not known: there the weights become NaN with it."""
    return not isinstance(norm, float) or math.isfinite(norm)


def adamw_update(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    average: Array | None,
    *,
    scale: Any,
    numbers: Numbers,
    betas: tuple[float, float],
    weight_decay: float,
) -> None:
    """p, g, m, v, average (n,), updated in place; g counts `scale` times. numbers: AdamW.begin_step's. average: follows p,
    or None."""
    lr, rate, eps, keep = numbers
    b1, b2 = betas
    g = scale * g
    v *= b2
    v += (1 - b2) * (g * g)
    g *= 1 - b1
    m *= b1
    m += g
    if weight_decay:
        p *= 1 - lr * weight_decay
    p -= rate * m / (get_xp(p).sqrt(v) + eps)
    if average is not None:
        average += (1 - keep) * (p - average)


class SGD:
    """Momentum, v = momentum * v + g,  p = p - lr * (v + weight_decay * p). The rate scales the step and not what v gathers,
    so that a schedule acts at once; the decay is decoupled, as AdamW's."""

    def __init__(self, params: Buffer, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        self.momentum, self.weight_decay = momentum, weight_decay
        self.v = params.zeros_like()

    def step(
        self,
        params: Buffer,
        grads: Buffer,
        lr: float,
        clip: float | None = None,
        each: Each = one_by_one,
    ) -> Any:
        """One update of params, in place, with the gradients scaled to a norm of at most `clip`. Returns the norm before;
        where it is not finite, nothing is updated, but on a GPU: see may_step. each: as AdamW.step's, so that one can stand
        for the other."""
        check_same(params, grads, self.v)
        norm = grad_norm(grads)
        if not may_step(norm):
            return norm
        scale = clip_factor(norm, clip)
        for at, decay in blocks(params):
            p, g, v = params.flat[at], grads.flat[at], self.v.flat[at]
            v *= self.momentum
            v += scale * g
            if decay and self.weight_decay:
                p *= 1 - lr * self.weight_decay
            p -= lr * v
        return norm

    def state(self) -> dict[str, Array]:
        """What a checkpoint keeps, on the host."""
        return {"v": to_host(self.v.flat)}

    def load_state(self, state: dict[str, Array]) -> None:
        """The inverse of state(). Raises UserError for the state of another optimizer or model."""
        load_flat(state, {"v": self.v})


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019, algorithm 2):

        m = b1 m + (1 - b1) g,   v = b2 v + (1 - b2) g^2
        p = p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) - lr weight_decay p

    m and v start at zero; dividing by 1 - b^t takes out the share that this start still has after t steps.

    average: where above 0, `self.average` follows the weights, avg = average * avg + (1 - average) p, to evaluate with
    (Polyak and Juditsky, 1992; the exponential form). Where it is 0, `self.average` is the weights themselves.
    """

    def __init__(
        self,
        params: Buffer,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.05,
        average: float = 0.0,
    ) -> None:
        self.betas, self.eps, self.weight_decay, self.decay = betas, eps, weight_decay, average
        self.m, self.v, self.t = params.zeros_like(), params.zeros_like(), 0
        self.average = params.copy() if average else params

    def step(
        self,
        params: Buffer,
        grads: Buffer,
        lr: float,
        clip: float | None = None,
        each: Each = one_by_one,
    ) -> Any:
        """One update of params, in place, with the gradients scaled to a norm of at most `clip`, and of the average, in one
        pass over all of them. each: what may go over threads, Workers.each, does. Returns the norm before; where it is not
        finite, nothing is updated, but on a GPU: see may_step."""
        check_same(params, grads, self.m)
        norm = grad_norm(grads)
        if may_step(norm):
            self.update(
                params, grads, self.begin_step(lr, params.flat), clip_factor(norm, clip), each
            )
        return norm

    def begin_step(self, lr: float, like: Array) -> Numbers:
        """Begin a step. What is new in it and the same for all weights: lr; rate and eps of p -= rate m / (sqrt(v) + eps),
        with both corrections moved out of the elements; and what the average keeps of itself, which is little at first, so
        that it soon forgets the first weights. On a GPU they are an array where `like` is."""
        self.t += 1
        b1, b2 = self.betas
        root = math.sqrt(1 - b2**self.t)
        found = (
            lr,
            lr * root / (1 - b1**self.t),
            self.eps * root,
            min(self.decay, (1 + self.t) / (10 + self.t)),
        )
        return found if on_host(like) else get_xp(like).asarray(found, like.dtype)

    def update(
        self, params: Buffer, grads: Buffer, numbers: Numbers, scale: Any, each: Each
    ) -> None:
        """All of a step, but for its norm: grads count `scale` times. (Too little work for threads, here.)"""
        for at, decay in blocks(params):
            self.adam(at, params, grads, numbers, scale, self.weight_decay if decay else 0.0)

    def adam(
        self,
        at: slice,
        params: Buffer,
        grads: Buffer,
        numbers: Numbers,
        scale: Any,
        weight_decay: float,
    ) -> None:
        """The formula, for a part of the flat array, and its average."""
        fused(adamw_update, params.flat)(
            params.flat[at],
            grads.flat[at],
            self.m.flat[at],
            self.v.flat[at],
            self.average.flat[at] if self.decay else None,
            scale=scale,
            numbers=numbers,
            betas=self.betas,
            weight_decay=weight_decay,
        )

    def state(self) -> dict[str, Array]:
        """What a checkpoint keeps, on the host."""
        return {name: to_host(buffer.flat) for name, buffer in self.buffers().items()} | {
            "t": np.array(self.t)
        }

    def buffers(self) -> dict[str, Buffer]:
        return {"m": self.m, "v": self.v} | ({"average": self.average} if self.decay else {})

    def load_state(self, state: dict[str, Array]) -> None:
        """The inverse of state(). Raises UserError for the state of another optimizer or model."""
        t = state.get("t")
        if t is None or t.shape or t.dtype.kind not in "iu":
            raise UserError(
                "the optimizer's step 't' is missing: this state belongs to another optimizer"
            )
        load_flat(state, self.buffers())
        self.t = int(t)


def check_same(*buffers: Buffer) -> None:
    """Raise UserError unless weights, gradients and moments are of one model."""
    sizes = [b.flat.size for b in buffers]
    if len(set(sizes)) > 1:
        raise UserError(
            f"weights, gradients and the optimizer's moments have {sizes} elements: they are of several models"
        )


def load_flat(state: dict[str, Array], buffers: dict[str, Buffer]) -> None:
    """Copy state[name] into each buffer, if all of them fit."""
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
