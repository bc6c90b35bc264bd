"""Gradients that are zero at one point, and whether they are zero at others too."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..backend.arrays import Array
from ..errors import UserError
from .check import check_function
from .pair import Pair
from .report import Report

# A gradient that is zero in so many examples is taken to be zero in all.
EXAMPLES = 20
TRIED = 3  # in how many of them the gradient is looked at for other inputs as well
# What the examples of a property test have shown about the gradient of each name: that it
# is not always zero, or in how many examples it has been.
_not_zero: set[tuple[str, str]] = set()
_zero: Counter[tuple[str, str]] = Counter()


def without_zeros(report: Report) -> Report:
    """Return the report, with the verdict "ok" for gradients that are rightly zero."""
    rows = [replace(row, verdict="ok") if row.verdict == "zero" else row for row in report.rows]
    return replace(report, rows=tuple(rows))


def zero_so_far(
    pair: Pair, report: Report, subject: str, seed: int, tolerance: float | None
) -> dict[str, int]:
    """Return the gradients that have been zero in all calls for this subject.

    For each of them the number of the calls is given. A zero in `report` is right if
    the gradient is not zero at other inputs, or was not zero in another call. subject:
    as by `subject_of`.
    """
    zeros = [row.name for row in report.rows if row.verdict == "zero"]
    _not_zero.update((subject, row.name) for row in report.rows if row.name not in zeros)
    unknown = [name for name in zeros if (subject, name) not in _not_zero]
    # Other inputs have helped in the first examples, or they do not help.
    tried = [name for name in unknown if _zero[subject, name] < TRIED]
    left = [name for name in unknown if name not in tried]
    left += zero_everywhere(pair, tried, seed, tolerance)
    _not_zero.update((subject, name) for name in unknown if name not in left)
    _zero.update((subject, name) for name in left)
    return {name: _zero[subject, name] for name in left}


def subject_of(function: Any) -> str:
    """Return a name for a function or class that is tested, and for the running test."""
    inner = function.func if isinstance(function, partial) else function
    code = getattr(inner, "__code__", None)
    line = code.co_firstlineno if code else 0  # tells lambdas apart
    names = getattr(inner, "__module__", ""), getattr(inner, "__qualname__", type(inner).__name__)
    return f"{os.environ.get('PYTEST_CURRENT_TEST')} {names} {line}"


def zero_everywhere(
    pair: Pair, names: Sequence[str], seed: int, tolerance: float | None
) -> list[str]:
    """Return those of the names whose gradient is zero at other inputs as well.

    A ReLU of one negative number has no gradient, but it has one elsewhere. Other
    values are tried, and larger shapes, where forward is defined. A mistake that is
    found there does not count, since the other inputs may be none that forward is
    meant for.
    """
    left = list(names)
    for inputs in other_points(pair, seed):
        if not left:
            break
        try:
            report = check_function(
                pair.to_forward,
                pair.to_backward,
                *inputs,
                names=pair.names,
                seed=seed,
                tolerance=tolerance,
            )
        except UserError:  # forward is not defined there
            continue
        right = {row.name for row in report.rows if row.verdict == "ok"}
        left = [name for name in left if name not in right]
    return left


def other_points(pair: Pair, seed: int) -> Iterator[list[Array]]:
    """Yield other inputs: the negative, and random ones, some with a larger first input.

    The last axis of the first input keeps its length, which is most often the width
    that a layer was made for.
    """
    x, *weights = pair.inputs
    rng = np.random.default_rng((seed, 12))
    yield [-x, *weights]
    larger = [x.shape]
    if x.ndim > 1:
        larger.append((x.shape[0] + 2, *x.shape[1:]))
    if x.ndim > 2:
        larger.append((*(n + 2 for n in x.shape[:-1]), x.shape[-1]))
    for _ in range(3):
        for shape in reversed(larger):
            yield [rng.normal(size=shape), *(rng.normal(size=w.shape) for w in weights)]
