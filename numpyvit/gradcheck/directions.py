"""Compare along random directions, for pairs whose Jacobian would be too large.

The derivative of dy · y along a direction u is u · gradient. Random directions u in all
inputs together, with random dys, test all gradients at the cost of a few differences.
Only where they fail is there more to do: directions within one input tell which inputs
are wrong, and halving one of these finds an element.
"""

from dataclasses import replace

import numpy as np

from ..backend.arrays import Array
from .comparison import EPS, FLOOR, SAFETY, TARGET, Comparison, Found
from .differences import first_step
from .report import Row
from .rounding import rounding
from .values import format_index, norm

SEARCHED = 3  # in how many of the wrong inputs an element is searched for


class Directions:
    """Random directions in the inputs of a comparison, and the gradients along them.

    dys (q, m): random dys. grads (q, n): their gradients. moved (q, n): how much
    rounding moves these. norms, sizes (inputs,): the norm of each input's gradient, and
    the scale of its errors. weight (n,): the length of a direction in each element, 1 /
    size, such that every input weighs the same.
    """

    def __init__(self, comparison: Comparison, count: int) -> None:
        self.comparison = comparison
        self.count = count
        self.rng = np.random.default_rng((comparison.seed, 5))
        self.dys, moved = rounding(comparison.pair, comparison.seed)
        self.moved = np.concatenate(moved, axis=1)
        self.grads = comparison.gradients(self.dys)
        total_norms = np.array([norm(self.grads[:, part]) for part in comparison.parts])
        self.norms = total_norms / len(self.dys) ** 0.5
        self.sizes = comparison.scales(np.where(np.isfinite(self.norms), self.norms, 0))
        noise = max(norm(row) for row in self.moved) + 4 * EPS * comparison.natural
        if not norm(self.norms) > SAFETY * noise:  # all are zero up to rounding, or NaN
            self.sizes[:] = comparison.natural
        self.weight = 1 / comparison.per_element(self.sizes)

    def derivatives(self, at: Array, count: int) -> tuple[Array, Array, Found]:
        """Return `count` directions in the elements `at` of x, and both derivatives.

        Returns the directions u (count, n), the derivatives along them by the gradients
        (count, q), and the same by differences, with their estimates and kinks.
        """
        x, seed = self.comparison.x, self.comparison.seed
        u = np.zeros((count, x.size))
        u[:, at] = self.rng.normal(size=(count, len(at))) * self.weight[at]

        def move(x: Array, i: int, t: Array) -> None:
            x += t * u[i]

        # No element moves by more than its own first step.
        start = (first_step(x, seed) / abs(u)).min(1, initial=1e300)
        target = np.full(count, TARGET)
        found = self.comparison.slopes(move, start, target, self.dys)
        return u, u[:, at] @ self.grads[:, at].T, found

    def judge(self, name: str, at: Array) -> Row:
        """Return a row that compares the gradients of the elements `at` of x."""
        u, analytic, found = self.derivatives(at, self.count)
        moved = abs(u[:, at] @ self.moved[:, at].T).max(initial=0)
        uncertainty = np.array([moved + 4 * EPS])
        scale = analytic.size**0.5  # each derivative is of the size 1, by the weights
        return self.comparison.judge(name, analytic, found, scale, uncertainty, lambda worst: "")

    def is_zero(self, i: int) -> bool:
        """Return whether input i has a zero gradient that was not declared."""
        part, size = self.comparison.parts[i], self.sizes[i]
        allowed = FLOOR * size + SAFETY * (norm(self.moved[:, part]) + 4 * EPS * size)
        declared = self.comparison.pair.names[i] in self.comparison.zero
        return part.stop > part.start and self.norms[i] <= allowed and not declared

    def look(self, at: Array) -> tuple[Array, Array, Array]:
        """Compare along one direction in the elements `at`.

        Returns the badness, and the derivatives by the gradients and by differences,
        each (q,).

        The badness is the difference of the two derivatives, plus the estimate at a
        kink. If `at` is a single element, the derivatives are those by this element.
        """
        u, analytic, (slopes, estimates, kinks) = self.derivatives(at, 1)
        length = u[0, at].max() if len(at) == 1 else 1.0
        difference = np.nan_to_num(abs(analytic - slopes)[0], nan=np.inf)
        badness = difference + np.where(kinks, estimates, 0)[0]
        return badness, analytic[0] / length, slopes[0] / length

    def search(self, row: Row, i: int) -> Row:
        """Return the row of input i with an element that is wrong or at a kink.

        The elements are halved, and the worse half is kept, until one is left. analytic
        and numeric are the derivatives of dy · y by it, for the worst of the dys.
        """
        part = self.comparison.parts[i]
        at = np.arange(part.start, part.stop)
        while len(at) > 1:
            middle = len(at) // 2
            halves = at[:middle], at[middle:]
            at = max(halves, key=lambda half: self.look(half)[0].max())
        badness, analytic, slopes = self.look(at)
        worst = int(badness.argmax())
        shape = self.comparison.pair.inputs[i].shape
        return replace(
            row,
            where=format_index(np.unravel_index(at[0] - part.start, shape)),
            analytic=float(analytic[worst]),
            numeric=float(slopes[worst]),
        )


def compare_directions(comparison: Comparison, count: int) -> list[Row]:
    """Return a row for each input, and one for all together, by `count` directions."""
    directions = Directions(comparison, count)
    everything = np.arange(comparison.x.size)
    together = directions.judge("all together", everything)
    if together.verdict == "zero":  # then each input is, and its own row says so
        together = replace(together, verdict="ok")

    rows = []
    for i, (name, part) in enumerate(zip(comparison.pair.names, comparison.parts, strict=True)):
        row = Row(name, "", None, None, None, None, "zero" if directions.is_zero(i) else "ok")
        if together.verdict != "ok" and part.stop > part.start:
            found = directions.judge(name, everything[part])
            row = row if found.verdict in ("ok", "zero") else found
        rows.append(row)

    bad = [i for i, row in enumerate(rows) if row.verdict in ("wrong", "kink")]
    for i in bad[-SEARCHED:]:  # of a layer's weights, the last are the nearest to the output
        rows[i] = directions.search(rows[i], i)
    return [*rows, together]
