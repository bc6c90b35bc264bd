"""Gradients, their numerical counterparts, and the verdict on the difference.

This file holds what the two ways of comparing share: the whole Jacobian (jacobian.py)
and random directions (directions.py).
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backend.arrays import Array
from ..errors import UserError
from .differences import WIDE, differentiate, noise_of
from .pair import Pair
from .report import Row
from .values import host, natural_size, norm, same

FLOOR = 1e-12  # an error that is always allowed, as a fraction of the scale
SAFETY = 8  # how many times the estimated errors are allowed
KINK_MARGIN = 1.001  # at a kink every value between the slopes of the two sides is allowed
TARGET = 1e-14  # an error of a difference that is small enough, as a fraction of the scale
EPS = float(np.finfo(np.float64).eps)

# Slopes, estimates of their errors, and kinks, as `differentiate` returns them.
Found = tuple[Array, Array, Array]


class Comparison:
    """A pair at its inputs, as one function from a vector x (n,) to a vector y (m,).

    parts: the slice of x for each input. widths: the largest absolute value of each
    input, or 1. natural: the size of a gradient if y changed by all of itself
    (`natural_size`).
    dtype: the float in which differences are taken. why: that dtype in words, with the
    reason where it is not longdouble.
    """

    def __init__(self, pair: Pair, seed: int, tolerance: float | None, zero: Sequence[str]) -> None:
        self.pair = pair
        self.seed = seed
        self.zero = zero
        self.asked_tolerance = tolerance
        self.sizes = [x.size for x in pair.inputs]
        ends = np.cumsum(self.sizes)
        self.parts = [slice(end - size, end) for size, end in zip(self.sizes, ends, strict=True)]
        self.x = np.concatenate([x.ravel() for x in pair.inputs])
        self.y, self.cache = pair.forward(pair.inputs)
        self.natural = natural_size(self.y, pair.inputs)
        self.widths = np.array([abs(x).max(initial=0) or 1.0 for x in pair.inputs])
        self.dtype, self.why = self.widest()

    @property
    def tolerance(self) -> float:
        """The error that may be left uncertain, as a fraction of a gradient's scale."""
        return self.asked_tolerance or (1e-7 if self.dtype is np.float64 else 1e-9)

    def widest(self) -> tuple[Any, str]:
        """Return the widest float that forward computes with, and a text that says so.

        A forward may fail for longdouble, return float64 for it, or return longdouble
        after computing in float64. The last shows in y: its values are those of
        float64, a change of the inputs below float64's precision does not move them,
        and a larger one does.
        """
        if self.pair.xp is not np or WIDE is np.float64:
            return np.float64, "float64, as there is none wider"
        rng = np.random.default_rng((self.seed, 7))
        wide = self.x.astype(WIDE)

        def moved(exponent: int) -> Array:
            factors = 1 + WIDE(2) ** exponent * rng.uniform(1, 2, wide.size)
            return self.value(wide * factors)

        try:
            y = self.value(wide)
        except UserError as error:
            return np.float64, f"float64, since for longdouble {error}"
        if y.dtype != WIDE:
            return np.float64, f"float64, since y is {y.dtype} for longdouble inputs"
        if (
            same(y, y.astype(np.float64))
            and all(same(y, moved(-55)) for _ in range(4))
            and not same(y, moved(-48))
        ):
            return np.float64, "float64, since forward ignores the further digits of longdouble"
        return WIDE, "longdouble"

    def value(self, x: Array) -> Array:
        """Return y (m,) at x (n,)."""
        inputs = [
            x[part].reshape(given.shape)
            for part, given in zip(self.parts, self.pair.inputs, strict=True)
        ]
        return self.pair.forward(inputs)[0].ravel()

    def per_element(self, values: Array) -> Array:
        """Repeat one value for each input (inputs,) for each of its elements: (n,)."""
        return np.repeat(values, self.sizes)

    def scales(self, norms: Array) -> Array:
        """Return the scale that the errors of each input's gradient are measured by.

        norms: the norm of the gradient of each input. The scale is that norm, plus a
        thousandth of the norm of all gradients: an input whose true gradient is zero is
        then judged by its neighbours. Gradients by inputs of 1e6 and of 1e-6 do not
        compare directly. The norm of all is therefore replaced, where that is less, by
        the gradient with which this input, changing by its size, moves y as much as all
        inputs do.
        """
        of_all = norm(norms)
        by_size = norm(norms * self.widths) / self.widths
        return norms + 1e-3 * np.minimum(of_all, by_size)

    def gradients(self, dys: Array) -> Array:
        """Return the gradients of dy · y for each of dys (q, m): (q, n)."""
        grads = np.empty((len(dys), self.x.size))
        for row, dy in zip(grads, dys, strict=True):
            found = self.pair.backward(dy.reshape(self.y.shape).copy(), self.cache)
            row[:] = np.concatenate([host(g).ravel() for g in found])
        return grads

    def slopes(
        self,
        move: Callable[[Array, int, Array], None],
        start: Array,
        target: Array,
        dys: Array | None = None,
    ) -> Found:
        """Return the slopes along given paths of y, or of dy · y for dys (q, m).

        move(x, i, t) moves x in place by t along path i. start, target (paths,): as for
        `differentiate`. Returns slopes, estimates and kinks, each of the shape
        (paths, m) or (paths, q).
        """
        wide = self.x.astype(self.dtype)
        eps = np.finfo(self.dtype).eps

        def value(x: Array) -> Array:
            y = np.full(self.y.size, np.nan, self.dtype)  # where forward is not defined
            with contextlib.suppress(UserError):
                found = self.value(x)
                y = found if found.shape == y.shape else y
            return y if dys is None else dys @ y

        def along(i: int, t: Array) -> Array:
            x = wide.copy()
            move(x, i, t)
            return value(x)

        at_zero = value(wide)
        noise = noise_of(lambda r: value(wide * (1 + eps * r)), wide.size, self.seed)
        return differentiate(along, at_zero, start, noise, target)

    def judge(
        self,
        name: str,
        analytic: Array,
        found: Found,
        scale: float,
        rounding: Array,
        where: Callable[[Any], str],
        total: float = 0.0,
    ) -> Row:
        """Compare a gradient with its slopes and return one row of the report.

        analytic: the gradient, of the shape of the slopes. scale: what errors are
        allowed in proportion to. rounding: the uncertainty of the gradient.
        where(index) names an element. total: the norm of all gradients; if given, the
        error and the estimate in the row are fractions of the norm of these slopes plus
        a thousandth of total.
        """
        slopes, estimates, kinks = found
        if not slopes.size:
            return Row(name, "", None, None, 0.0, 0.0, "ok")
        rounding = np.where(np.isfinite(rounding), rounding, 0.0)  # if the gradient has a NaN
        known = np.isfinite(estimates)
        difference = np.where(known, abs(analytic - slopes), 0).astype(float)
        allowed = allowed_difference(found, scale, rounding)
        wrong = ~(difference <= allowed)  # also where the difference is NaN
        is_zero = norm(slopes) <= norm(allowed) < np.inf

        if total:
            scale = max(scale, norm(slopes) + 1e-3 * total)
        if is_zero:  # otherwise any rounding would be large in proportion
            scale = max(scale, self.natural)
        error = norm(difference) / (scale or 1)
        estimate = (norm(estimates) + norm(rounding)) / (scale or 1)

        verdict = "ok"
        if wrong.any():
            verdict = "wrong"
        elif kinks.any():
            verdict = "kink"
        elif not max(error, estimate) <= self.tolerance:
            verdict = "unclear"
        elif is_zero and name not in self.zero:
            verdict = "zero"

        worst = worst_element(analytic, difference, allowed, wrong, kinks)
        return Row(
            name,
            where(worst),
            float(analytic[worst]),
            float(slopes[worst]),
            error,
            estimate,
            verdict,
        )


def allowed_difference(found: Found, scale: float, rounding: Array) -> Array:
    """Return how far a gradient may be from each of its slopes, as an array like them.

    That is 1e-12 of the scale, plus 8 times the estimated error of the slope and the
    rounding of the gradient. Where an estimate or a rounding is small by chance, the
    median of all of them counts. At a kink, the estimate is half of the jump of the
    slope.
    """
    _, estimates, kinks = found
    plain = estimates[np.isfinite(estimates) & ~kinks]
    typical = np.median(plain) if plain.size else 0.0
    at_kinks = KINK_MARGIN * estimates
    elsewhere = SAFETY * np.maximum(estimates, typical)
    of_slopes = np.where(kinks, at_kinks, elsewhere).astype(float)
    of_gradient = FLOOR * scale + SAFETY * np.maximum(rounding, np.median(rounding))
    return of_slopes + of_gradient


def worst_element(
    analytic: Array, difference: Array, allowed: Array, wrong: Array, kinks: Array
) -> tuple[Any, ...]:
    """Return the index of the worst element.

    A wrong one is worse than one at a kink, and that is worse than any other; among
    equals the one whose difference is largest in proportion to what is allowed.
    """
    proportion = np.nan_to_num(difference / (difference + allowed))  # from 0 to 1
    proportion = np.where(np.isfinite(analytic), proportion, 1.0)
    badness = np.where(wrong, 2, kinks) + proportion
    return np.unravel_index(int(badness.argmax()), difference.shape)
