"""Muon: momentum whose every matrix is made orthogonal, for the weights that are matrices; AdamW for the rest."""

import math
from itertools import groupby
from typing import Any

import numpy as np

from ..backend.arrays import Array, fused, get_xp, on_host
from ..errors import UserError
from ..params import Buffer, Param
from .adamw import AdamW, Each, Numbers, blocks

# A s + B s^3 + C s^5: five times over, it brings every s from 0.02 to 1 into 0.65 to 1.25
A, B, C, ROUNDS = 3.4445, -4.7750, 2.0315, 5
RMS = 0.2  # of an update's elements, which is about what AdamW's have: so one rate fits both


def orthogonal(m: Array) -> Array:
    """m (..., I, O)  ->  about u v', where m = u diag(s) v' is its singular value decomposition: all s made 1.

    An odd polynomial of m acts on each s alone: m m' m = u diag(s^3) v'. So a polynomial that draws all of 0..1 to 1 does so
    for the singular values, with products of matrices only (Newton and Schulz). This one (Jordan et al., 2024, "Muon: an
    optimizer for hidden layers") ends near 1, and sooner than one that would end at 1; more is not needed.
    """
    x = m / ((m * m).sum((-2, -1), keepdims=True) ** 0.5 + 1e-7)  # its largest s is 1 at most
    tall = m.shape[-2] > m.shape[-1]
    x = x.swapaxes(-2, -1) if tall else x  # so that x x' is the smaller product
    for _ in range(ROUNDS):
        xx = x @ x.swapaxes(-2, -1)
        x = A * x + (B * xx + C * (xx @ xx)) @ x
    return x.swapaxes(-2, -1) if tall else x


class Muon(AdamW):
    """For each matrix, with v = momentum * v + g:

        p = p - lr (0.2 sqrt(max(I, O)) orthogonal(g + momentum v) + weight_decay p)

    Gradients of matrices are steep in a few directions and shallow in the others; this steps equally far in all of them. An
    orthogonal matrix has elements of root mean square 1 / sqrt(max(I, O)), so the factor makes that of the update 0.2 (Liu
    et al., 2025, "Muon is scalable for LLM training", equation 4). The weights that are no matrices, those that do not
    decay, get AdamW's step at the same rate. betas, eps, average: AdamW's.
    """

    def __init__(
        self,
        params: Buffer,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.05,
        average: float = 0.0,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(params, betas, eps, weight_decay, average)
        self.momentum = momentum
        # the longest first, and those of one shape together
        self.matrices = sorted(
            (p for p in params.params.values() if p.decay), key=lambda p: (-p.size, p.shape)
        )
        for p in self.matrices:
            if len(p.shape) != 2:
                raise UserError(
                    f"a weight of shape {p.shape} decays: Muon wants all those to be matrices; use AdamW"
                )

    def update(
        self, params: Buffer, grads: Buffer, numbers: Numbers, scale: Any, each: Each
    ) -> None:
        """As AdamW.update. Of the matrices m holds the momentum, and v nothing."""
        lr, _, _, keep = numbers

        def move(p: Param) -> None:
            w, m = params[p], self.m[p]
            with np.errstate(
                over="ignore", invalid="ignore"
            ):  # as the trainer's; a thread does not inherit it
                g = scale * grads[p]
                m *= self.momentum
                m += g
                g += self.momentum * m  # Nesterov's
                w *= 1 - lr * self.weight_decay
                w -= (lr * RMS * math.sqrt(max(p.shape))) * orthogonal(g)

        if on_host(params.flat):
            each(move, self.matrices)
        else:
            self.move_all(params, grads, lr, scale)
        for at, decay in blocks(params):
            if not decay:
                self.adam(at, params, grads, numbers, scale, 0.0)
            elif self.decay:
                self.average.flat[at] += (1 - keep) * (params.flat[at] - self.average.flat[at])

    def move_all(self, params: Buffer, grads: Buffer, lr: Any, scale: Any) -> None:
        """`move` for all matrices at once, and orthogonal for those of one shape: a GPU is asked for less, and for more."""
        xp, moves, matrices = get_xp(params.flat), grads.copy(), slice(params.decayed)
        w, m, g = (buffer.flat[matrices] for buffer in (params, self.m, moves))
        g *= scale
        m *= self.momentum
        m += g
        g += self.momentum * m
        for shape, group in groupby(self.matrices, lambda p: p.shape):
            alike = [moves[p] for p in group]
            together = xp.empty(
                (len(alike), *shape), g.dtype
            )  # (xp.stack would upload their places first)
            for i, move in enumerate(alike):
                together[i] = move
            for o, move in zip(fused(orthogonal, g)(together), alike, strict=True):
                xp.multiply(o, RMS * math.sqrt(max(shape)), out=move)
        w *= 1 - lr * self.weight_decay
        g *= lr
        w -= g
