"""Compare the whole Jacobian: the derivative of every element of y by every input."""

from typing import Any

import numpy as np

from ..backend.arrays import Array
from .comparison import EPS, TARGET, Comparison
from .differences import first_step
from .report import Row
from .rounding import rounding
from .values import format_index, norm


def compare_jacobian(comparison: Comparison) -> list[Row]:
    """Return a row for each input, with the worst of the derivatives by its elements.

    It takes a series of differences for each of the n elements of the inputs, and a
    backward for each of the m elements of y.
    """
    pair = comparison.pair
    y = comparison.y
    # With signs, a backward that cuts off negative values of dy shows here, too.
    signs = np.random.default_rng((comparison.seed, 2)).choice([-1.0, 1.0], y.size)
    analytic = signs * comparison.gradients(np.diag(signs)).T  # (n, m)
    _, moved = rounding(pair, comparison.seed)
    analytic_norms = np.array([norm(analytic[part]) for part in comparison.parts])
    sizes = comparison.scales(analytic_norms)
    target = TARGET * comparison.per_element(np.where(np.isfinite(sizes), sizes, 0))

    def move(x: Array, i: int, t: Array) -> None:
        x[i] += t

    found = comparison.slopes(move, first_step(comparison.x, comparison.seed), target)
    slopes, estimates, kinks = found
    scales = comparison.scales(np.array([norm(slopes[part]) for part in comparison.parts]))
    total = norm(slopes)

    rows = []
    for i, (name, x, part) in enumerate(
        zip(pair.names, pair.inputs, comparison.parts, strict=True)
    ):

        def where(index: Any, x: Array = x) -> str:
            element = format_index(np.unravel_index(index[0], x.shape))
            of_y = format_index(np.unravel_index(index[1], y.shape))
            return element + (f" of y{of_y}" if of_y else "")

        of_part = slopes[part], estimates[part], kinks[part]
        uncertainty = abs(moved[i]).max(0)[:, None] + 4 * EPS * comparison.natural
        rows.append(
            comparison.judge(
                name, analytic[part], of_part, float(scales[i]), uncertainty, where, total
            )
        )
    return rows
