"""Muon: momentum made orthogonal, for the weights that are matrices; AdamW for the rest."""

import math
from itertools import groupby
from typing import Any

import numpy as np

from ..backend.arrays import Array, get_xp, on_host
from ..backend.ops import on_gpu
from ..errors import UserError, check_number
from ..params import Buffer
from .adamw import AdamW
from .base import Map, blocks

# A s + B s³ + C s⁵, applied five times, brings every s from 0.02 to 1 into 0.65 to 1.25.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
# The root mean square of the elements of an update. AdamW's is about the same, so one
# learning rate fits both.
UPDATE_RMS = 0.2


@on_gpu
def orthogonalise(
    m: Array,
    coefficients: tuple[float, float, float] = COEFFICIENTS,
    iterations: int = ITERATIONS,
) -> Array:
    """m (..., I, O)  ->  about u vᵀ, where m = u diag(s) vᵀ is its singular value decomposition.

    All singular values are made about 1. An odd polynomial of m acts on the singular values
    alone: m mᵀ m = u diag(s³) vᵀ. A polynomial that brings all values between 0 and 1 close
    to 1 therefore does so for the singular values, with matrix products only (the
    Newton-Schulz iteration). The coefficients are those of Jordan et al. (2024, "Muon: an
    optimizer for hidden layers"), which come near 1 sooner than coefficients that converge
    to 1; more precision is not needed.
    """
    A, B, C = coefficients
    x = m / ((m * m).sum((-2, -1), keepdims=True) ** 0.5 + 1e-7)  # no singular value is above 1
    tall = m.shape[-2] > m.shape[-1]
    x = x.swapaxes(-2, -1) if tall else x  # x xᵀ is then the smaller product
    for _ in range(iterations):
        xx = x @ x.swapaxes(-2, -1)
        x = A * x + (B * xx + C * (xx @ xx)) @ x
    return x.swapaxes(-2, -1) if tall else x


class Muon(AdamW):
    """For each matrix, with v = momentum * v + g:

        p = p - lr (0.2 √max(I, O) orthogonalise(g + momentum v) + weight_decay p)

    The gradient of a matrix is large in a few directions and small in the others; Muon
    moves equally far in all of them. The elements of an orthogonal matrix have a root mean
    square of 1 / √max(I, O), so the factor makes that of the update 0.2 (Liu et al., 2025,
    "Muon is scalable for LLM training", equation 4). Weights that are not matrices, which
    are those without weight decay, take AdamW's step with the same learning rate. betas,
    eps, average: as for AdamW.
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
        check_number("momentum", momentum, least=0, below=1)
        self.momentum = momentum
        matrices = [(name, p.size, p.shape) for name, p in params.params.items() if p.decay]
        for _, _, shape in matrices:
            if len(shape) != 2:
                raise UserError(
                    f"a weight with weight decay has shape {shape}: Muon needs all of them "
                    "to be matrices; use AdamW"
                )
        # The largest first, which keeps threads equally busy; equal shapes stand together.
        matrices.sort(key=lambda matrix: (-matrix[1], matrix[2]))
        self.matrices = [name for name, _, _ in matrices]

    def update(self, params: Buffer, grads: Buffer, numbers: Any, scale: Any, map: Map) -> None:
        """As AdamW.update. For the matrices m holds the momentum, and v is not used."""
        lr, _, _, average_factor = numbers

        def update_matrix(name: str) -> None:
            w, m = params[name], self.m[name]
            # Threads do not inherit the trainer's errstate; overflow shows in the loss.
            with np.errstate(over="ignore", invalid="ignore"):
                g = scale * grads[name]
                m *= self.momentum
                m += g
                g += self.momentum * m  # Nesterov's form
                w *= 1 - lr * self.weight_decay
                w -= (lr * UPDATE_RMS * math.sqrt(max(w.shape))) * orthogonalise(g)

        if on_host(params.flat):
            map(update_matrix, self.matrices)
        else:
            self.update_matrices_together(params, grads, lr, scale)
        for at, decay in blocks(params):
            if not decay:
                self.update_slice(at, params, grads, numbers, scale, 0.0)
            else:
                self.follow(at, params, average_factor)

    def update_matrices_together(self, params: Buffer, grads: Buffer, lr: Any, scale: Any) -> None:
        """update_matrix for all matrices at once: fewer and larger operations for a GPU."""
        xp = get_xp(params.flat)
        updates = grads.copy()
        matrices = slice(params.decayed)
        w, m, g = (buffer.flat[matrices] for buffer in (params, self.m, updates))
        g *= scale
        m *= self.momentum
        m += g
        g += self.momentum * m
        for shape, group in groupby(self.matrices, lambda name: updates[name].shape):
            equal = [updates[name] for name in group]
            stacked = xp.empty((len(equal), *shape), g.dtype)
            for i, update in enumerate(equal):  # xp.stack would upload an index first
                stacked[i] = update
            found = orthogonalise(stacked, COEFFICIENTS, ITERATIONS)  # the kernel has no defaults
            for orthogonal, update in zip(found, equal, strict=True):
                xp.multiply(orthogonal, UPDATE_RMS * math.sqrt(max(shape)), out=update)
        w *= 1 - lr * self.weight_decay
        g *= lr
        w -= g

    def check_moments(self, state: dict[str, Array]) -> None:
        """Raise UserError for the state of AdamW, which has second moments of matrices."""
        if state["v"][: self.v.decayed].any():
            raise UserError("there are second moments of matrices: this state belongs to AdamW")
