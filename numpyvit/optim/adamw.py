"""AdamW: a step size for each weight from its own gradients."""

import math
from typing import Any

from ..backend.arrays import Array, get_xp
from ..backend.ops import on_gpu
from ..errors import UserError, check_number, shown
from ..params import Buffer
from .base import Map, Optimizer, blocks

Numbers = tuple[float, float, float, float] | Array


@on_gpu
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
    """Update p, m, v and average (n,) in place; g (n,) counts `scale` times.

    numbers: those of AdamW.numbers. average: follows p, or None.
    """
    lr, rate, eps, average_factor = numbers
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
        average += (1 - average_factor) * (p - average)


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019, algorithm 2):

        m = b1 m + (1 - b1) g,    v = b2 v + (1 - b2) g²
        p = p - lr (m / (1 - b1ᵗ)) / (√(v / (1 - b2ᵗ)) + eps) - lr weight_decay p

    m and v start at zero and are too small at first; dividing by 1 - bᵗ corrects this.
    average: as for Optimizer. betas are from 0 to below 1, and eps is above 0.
    """

    def __init__(
        self,
        params: Buffer,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.05,
        average: float = 0.0,
    ) -> None:
        super().__init__(params, weight_decay, average)
        check_betas(betas)
        check_number("eps", eps, above=0)
        self.betas, self.eps = betas, eps
        self.m, self.v = params.zeros_like(), params.zeros_like()

    def numbers(self, lr: float) -> tuple[float, ...]:
        """Return lr, then rate and eps of p -= rate m / (√v + eps), and the average's factor.

        rate and eps contain both bias corrections, which need not be applied to every
        element then.
        """
        b1, b2 = self.betas
        root = math.sqrt(1 - b2**self.t)
        _, average_factor = super().numbers(lr)
        return lr, lr * root / (1 - b1**self.t), self.eps * root, average_factor

    def update(self, params: Buffer, grads: Buffer, numbers: Any, scale: Any, map: Map) -> None:
        """Update the weights and moments in place; the gradients count `scale` times.

        There is too little work here for threads.
        """
        for at, decay in blocks(params):
            self.update_slice(at, params, grads, numbers, scale, self.weight_decay if decay else 0)

    def update_slice(
        self,
        at: slice,
        params: Buffer,
        grads: Buffer,
        numbers: Any,
        scale: Any,
        weight_decay: float,
    ) -> None:
        """Update one slice of the flat array, and its average."""
        adamw_update(
            params.flat[at],
            grads.flat[at],
            self.m.flat[at],
            self.v.flat[at],
            self.average.flat[at] if self.average_decay else None,
            scale=scale,
            numbers=numbers,
            betas=self.betas,
            weight_decay=weight_decay,
        )

    def buffers(self) -> dict[str, Buffer]:
        """Return the Buffers that a checkpoint keeps, by name."""
        return {"m": self.m, "v": self.v} | super().buffers()

    def check_moments(self, state: dict[str, Array]) -> None:
        """Raise UserError for the state of Muon, which has no second moments of matrices."""
        matrices = slice(self.m.decayed)
        if state["m"][matrices].any() and not state["v"][matrices].any():
            raise UserError(
                "the second moments of the matrices are all zero: this state belongs to Muon"
            )


def check_betas(betas: object) -> None:
    """Raise UserError unless betas are two numbers from 0 to below 1."""
    if not (isinstance(betas, tuple | list) and len(betas) == 2):
        raise UserError(f"betas is {shown(betas)}: it must be two numbers, such as (0.9, 0.999)")
    for beta in betas:
        check_number("each of betas", beta, least=0, below=1)
