"""Analytic against numerical: all of the Jacobian, or random directions and a search where one fails."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..backend.arrays import Array
from ..errors import UserError
from .contract import Pair, host, natural_size, place, rounding, same
from .differences import WIDE, differentiate, first_step, noise_of
from .report import Row

FLOOR, SAFETY = 1e-12, 8
TARGET = 1e-14  # of the scale: an error of a difference that is small enough
SEARCHED = 3  # tensors, of those that are wrong, in which the element is searched for
EPS = float(np.finfo(np.float64).eps)


def norm(x: Array) -> float:
    """The root of the sum of squares, without overflow or underflow on the way."""
    most = float(abs(x).max(initial=0))
    return most * float(np.linalg.norm((x / most).astype(float))) if 0 < most < np.inf else most


Found = tuple[
    Array, Array, Array
]  # slopes, estimates of their errors, kinks; as differentiate gives them


class Comparison:
    """A pair at its inputs: the tensors as one vector x (n,), y as one vector (m,)."""

    def __init__(self, pair: Pair, seed: int, tolerance: float | None, zero: Sequence[str]) -> None:
        self.pair, self.seed, self.zero = pair, seed, zero
        ends = np.cumsum([x.size for x in pair.inputs])
        self.parts = [slice(end - x.size, end) for x, end in zip(pair.inputs, ends, strict=True)]
        self.x = np.concatenate([x.ravel() for x in pair.inputs])
        self.y, self.cache = pair.forward(pair.inputs)
        self.natural = natural_size(self.y, pair.inputs)
        self.widths = np.array([abs(x).max(initial=0) or 1.0 for x in pair.inputs])
        self.dtype, self.why = self.widest()
        self.asked_tolerance = tolerance

    @property
    def tolerance(self) -> float:
        return self.asked_tolerance or (1e-7 if self.dtype is np.float64 else 1e-9)

    def rows(self, directions: int) -> list[Row]:
        """Along so many random directions; 0: the whole Jacobian."""
        return self.random(directions) if directions else self.jacobian()

    def widest(self) -> tuple[Any, str]:
        """The dtype for differences, and in words."""
        if self.pair.xp is not np or WIDE is np.float64:
            return np.float64, "float64, as there is none wider"
        rng, wide = np.random.default_rng((self.seed, 7)), self.x.astype(WIDE)

        def moved(digit: int) -> Array:
            return self.value(wide * (1 + WIDE(2) ** digit * rng.uniform(1, 2, wide.size)))

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
            return (
                np.float64,
                "float64, since forward takes no notice of longdouble's further digits",
            )
        return WIDE, "longdouble"

    def value(self, x: Array) -> Array:
        """y (m,) at x (n,)."""
        inputs = [
            x[part].reshape(t.shape) for part, t in zip(self.parts, self.pair.inputs, strict=True)
        ]
        return self.pair.forward(inputs)[0].ravel()

    def scales(self, norms: Array) -> Array:
        """What each tensor's errors are held against: its gradient's norm, and a thousandth of all of them, or, where that
        is less, of what they are to y by the inputs' sizes: gradients for inputs of 1e6 and 1e-6 do not compare."""
        return norms + 1e-3 * np.minimum(norm(norms), norm(norms * self.widths) / self.widths)

    def gradients(self, dys: Array) -> Array:
        """dys (q, m)  ->  the gradients of dys . y, (q, n)."""
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
        """Slopes of y, or of dys . y, while move(x, i, t) moves x, in place, by t along the i-th way: (ways, m or q)."""
        wide, eps = self.x.astype(self.dtype), np.finfo(self.dtype).eps

        def value(x: Array) -> Array:
            y = np.full(self.y.size, np.nan, self.dtype)  # outside of where forward is defined
            with contextlib.suppress(UserError):
                found = self.value(x)
                y = found if found.shape == y.shape else y
            return y if dys is None else dys @ y

        def f(i: int, t: Array) -> Array:
            x = wide.copy()
            move(x, i, t)
            return value(x)

        at_zero = value(wide)
        noise = noise_of(lambda r: value(wide * (1 + eps * r)), wide.size, self.seed)
        return differentiate(f, at_zero, start, noise, target)

    def judge(
        self,
        name: str,
        analytic: Array,
        found: Found,
        scale: float,
        unsure: Array,
        where: Callable[[Any], str],
        total: float = 0.0,
    ) -> Row:
        """A gradient against its slopes: one row of the report. Its error is told by the norm of its slopes and a thousandth
        of total, that of all."""
        slopes, estimates, kinks = found
        if not slopes.size:
            return Row(name, "", None, None, 0.0, 0.0, "ok")
        known = np.isfinite(estimates)
        off = np.where(known, abs(analytic - slopes), 0).astype(float)
        unsure = np.where(np.isfinite(unsure), unsure, 0.0)  # a gradient that is NaN
        plain = estimates[known & ~kinks]
        typical = np.median(plain) if plain.size else 0.0  # one alone may be small by chance
        spare = FLOOR * scale + SAFETY * np.maximum(unsure, np.median(unsure))
        allowed = (
            np.where(kinks, 1.001 * estimates, SAFETY * np.maximum(estimates, typical)).astype(
                float
            )
            + spare
        )
        wrong = ~(off <= allowed)  # a NaN is wrong
        error, estimate = norm(off), norm(estimates) + norm(unsure)
        is_zero = norm(slopes) <= norm(allowed) < np.inf
        scale = max(scale, norm(slopes) + 1e-3 * total) if total else scale
        if is_zero:  # or all would be large beside it
            scale = max(scale, self.natural)
        error, estimate = error / (scale or 1), estimate / (scale or 1)
        verdict = "ok"
        if wrong.any():
            verdict = "wrong"
        elif kinks.any():
            verdict = "kink"
        elif not max(error, estimate) <= self.tolerance:
            verdict = "unclear"
        elif is_zero and name not in self.zero:
            verdict = "zero"
        badness = np.where(wrong, 2, kinks) + np.where(
            np.isfinite(analytic), np.nan_to_num(off / (off + allowed)), 1.0
        )
        worst = np.unravel_index(int(badness.argmax()), off.shape)
        return Row(
            name,
            where(worst),
            float(analytic[worst]),
            float(slopes[worst]),
            error,
            estimate,
            verdict,
        )

    def jacobian(self) -> list[Row]:
        """Each element of the inputs against each of y: n steps of its own, m backwards."""
        analytic = self.gradients(np.eye(self.y.size)).T  # (n, m)
        _, moved = rounding(self.pair, self.seed)
        sizes = self.scales(np.array([norm(analytic[part]) for part in self.parts]))
        target = TARGET * np.repeat(
            np.where(np.isfinite(sizes), sizes, 0), [x.size for x in self.pair.inputs]
        )

        def move(x: Array, i: int, t: Array) -> None:
            x[i] += t

        found = self.slopes(move, first_step(self.x, self.seed), target)
        scales, rows = self.scales(np.array([norm(found[0][part]) for part in self.parts])), []
        for name, x, part, move_of, scale in zip(
            self.pair.names, self.pair.inputs, self.parts, moved, scales, strict=True
        ):
            of_part: Any = tuple(a[part] for a in found)

            def where(at: Any, x: Array = x) -> str:
                of = place(np.unravel_index(at[1], self.y.shape))
                return place(np.unravel_index(at[0], x.shape)) + (of and f" of y{of}")

            unsure = abs(move_of).max(0)[:, None] + 4 * EPS * self.natural
            rows.append(
                self.judge(
                    name, analytic[part], of_part, float(scale), unsure, where, norm(found[0])
                )
            )
        return rows

    def random(self, directions: int) -> list[Row]:
        """Random directions in all inputs together, in which each tensor weighs the same by the measure of the errors.

        Where they fail, directions in each tensor say which, and in those halving finds an element.
        """
        rng = np.random.default_rng((self.seed, 5))
        dys, moved_parts = rounding(self.pair, self.seed)  # (q, m)
        moved = np.concatenate(moved_parts, axis=1)  # (q, n)
        grads = self.gradients(dys)
        norms = np.array([norm(grads[:, part]) for part in self.parts]) / len(dys) ** 0.5
        sizes = self.scales(np.where(np.isfinite(norms), norms, 0))
        noise = max(norm(move) for move in moved) + 4 * EPS * self.natural
        if not norm(norms) > SAFETY * noise:  # all zero but for rounding, or NaN
            sizes[:] = self.natural
        weight = 1 / np.repeat(sizes, [x.size for x in self.pair.inputs])

        def compare(at: Array, count: int) -> tuple[Array, Array, Found]:
            """Directions (count, n) in the elements `at` of x, the derivatives and the slopes along them (count, q)."""
            u = np.zeros((count, self.x.size))
            u[:, at] = rng.normal(size=(count, len(at))) * weight[at]

            def move(x: Array, i: int, t: Array) -> None:
                x += t * u[i]

            start = (first_step(self.x, self.seed) / abs(u)).min(
                1, initial=1e300
            )  # no element moves by more
            return (
                u,
                u[:, at] @ grads[:, at].T,
                self.slopes(move, start, np.full(count, TARGET), dys),
            )

        def judge(name: str, at: Array) -> Row:
            u, analytic, found = compare(at, directions)
            unsure = np.array([abs(u[:, at] @ moved[:, at].T).max(initial=0) + 4 * EPS])
            return self.judge(name, analytic, found, analytic.size**0.5, unsure, lambda worst: "")

        def search(row: Row, part: slice, shape: tuple[int, ...]) -> Row:
            """The row with an element that is wrong (or at a kink), and the derivatives of one dy . y there."""

            def look(at: Array) -> tuple[Array, Array, Array]:
                u, analytic, (slopes, estimates, kinks) = compare(at, 1)
                size = u[0, at].max() if len(at) == 1 else 1.0
                return (
                    np.nan_to_num(abs(analytic - slopes)[0], nan=np.inf)
                    + np.where(kinks, estimates, 0)[0],
                    analytic[0] / size,
                    slopes[0] / size,
                )

            at = np.arange(part.start, part.stop)
            while len(at) > 1:
                halves = at[: len(at) // 2], at[len(at) // 2 :]
                at = max(halves, key=lambda half: look(half)[0].max())
            badness, analytic, slopes = look(at)
            worst = int(badness.argmax())
            return replace(
                row,
                where=place(np.unravel_index(at[0] - part.start, shape)),
                analytic=float(analytic[worst]),
                numeric=float(slopes[worst]),
            )

        everything = np.arange(self.x.size)
        together = judge("all together", everything)
        if together.verdict == "zero":  # then each of its parts is, and says so
            together = replace(together, verdict="ok")
        rows = []
        for name, part, size_of, size in zip(
            self.pair.names, self.parts, norms, sizes, strict=True
        ):
            spare = FLOOR * size + SAFETY * (norm(moved[:, part]) + 4 * EPS * size)
            is_zero = part.stop > part.start and size_of <= spare and name not in self.zero
            row = Row(name, "", None, None, None, None, "zero" if is_zero else "ok")
            if together.verdict != "ok" and part.stop > part.start:
                found = judge(name, everything[part])
                row = row if found.verdict in ("ok", "zero") else found
            rows.append(row)
        bad = [i for i, row in enumerate(rows) if row.verdict in ("wrong", "kink")]
        for i in bad[-SEARCHED:]:  # for a layer's weights: the nearest to the output
            rows[i] = search(rows[i], self.parts[i], self.pair.inputs[i].shape)
        return [*rows, together]
