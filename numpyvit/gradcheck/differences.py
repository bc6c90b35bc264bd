"""Derivatives by differences, as exactly as can be, and how exactly that is.

A central difference D(h) = (f(h) - f(-h)) / 2h of a smooth function is wrong by c2 h^2 + c4 h^4 + ... So from two steps a
combination can be made in which c2 cancels, from three one in which c4 cancels too (Richardson, 1911). How far a combination
lies from those that it was made of says how exact it is (Ridders, 1982, "Accurate computation of F'(x)"). The steps start
large and shrink until that is small enough: so each element finds a step of its own, and f may be steep or flat, its scale
1e-8 or 1e8. (They are no simple fractions of each other: through such steps a fast wave would look like a slow one.)

What f itself is uncertain by counts as noise / h. And the bend f(h) + f(-h) - 2 f(0), which of a smooth function falls with
h^2, but of one with a kink with h, says whether there is a derivative.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend.arrays import Array

WIDE: Any = (
    np.longdouble if 1e-40 < np.finfo(np.longdouble).eps < 1e-18 else np.float64
)  # the widest of the machine
FIRST_STEP = 0.07  # of x
RATIO = math.exp(
    -0.6
)  # of a step to the one before: 0.549, and none of its powers is a simple fraction
LEVELS = 80  # steps, down to 1e-22 of x
ORDERS = 8  # c2 to c16 can cancel


def first_step(x: Array, seed: int) -> Array:
    """For each element of x (...) the largest step to be tried: some hundredths of it, or of 1 where it is small. By the
    seed, so that no function has just these for a period."""
    return (
        FIRST_STEP
        * np.maximum(abs(x), 1)
        * np.random.default_rng((seed, 8)).uniform(0.7, 1.0, x.shape)
    )


def noise_of(f: Callable[[Array], Array], size: int, seed: int) -> Array:
    """How uncertain f (m,) is: its eps, and what its values move by when its `size` inputs are rounded otherwise.

    f(r) evaluates it at inputs x (1 + eps r), r (size,). Returns (m,).
    """
    rng = np.random.default_rng((seed, 1))
    y = f(np.zeros(size))
    moved = [f(rng.uniform(-2, 2, size)) - y for _ in range(6)]
    return 4 * (np.finfo(y.dtype).eps * abs(y) + np.sqrt(np.mean(np.square(moved), 0)))


def extrapolate(
    slope: Array, table: list[Array], steps_before: list[Array]
) -> tuple[Array, Array, list, list]:
    """A level of Richardson's scheme: from the central differences and the level before, the best of the combinations, how
    far it lies from those that it was made of, all of them, and how far each lies from the one before."""
    row, steps = [slope], []
    value, error = slope, np.full(slope.shape, np.inf)
    for j, above in enumerate(table[:ORDERS]):
        steps.append(abs(row[j] - above))
        row.append(
            row[j] + (row[j] - above) / (RATIO ** (-2 * j - 2) - 1)
        )  # the h^(2j+2) of the error cancels
        apart = np.maximum(abs(row[j + 1] - row[j]), abs(row[j + 1] - above))
        if j:  # one agreement may be chance: look further back
            apart = np.maximum(apart, steps[j - 1] / 64)
        if j < len(steps_before):
            apart = np.maximum(apart, steps_before[j] * RATIO ** (2 * j + 2) / 8)
        value, error = np.where(apart < error, row[j + 1], value), np.fmin(apart, error)
    return value, error, row, steps


def differentiate(
    f: Callable[[int, Array], Array], at_zero: Array, start: Array, noise: Array, target: Array
) -> tuple[Array, Array, Array]:
    """Slopes at t = 0 of f(i, t) -> (m,), for i = 0..n-1, by Richardson's extrapolation with a step for each.

    at_zero (m,): f(i, 0), the same for all i; start (n,): their first steps; noise (m,): what the values are uncertain by;
    target (n,): an error small enough. Returns slopes (n, m), estimates of their errors (n, m), kinks (n, m): True where f
    bends however small the step; the slope is then the mean of those on the left and on the right, and the estimate
    half of what they differ by. An estimate is infinite where nothing can be said.
    """
    n, m, wide = len(start), len(at_zero), at_zero.dtype
    slopes, errors = np.zeros((n, m), wide), np.full((n, m), np.inf)
    means, gaps = np.zeros((n, m), wide), np.zeros((n, m))  # at a kink
    agreed = np.zeros((n, m), int)  # how many steps came to the same slope,
    contested = np.zeros((n, m), bool)  # whether smaller steps came to another,
    straight = np.zeros((n, m), int)  # and over how many the bend fell as at a kink
    left = np.arange(n)  # those that are not done
    table: list[Array] = []  # of them: the extrapolations at the level before,
    steps: list[Array] = []  # how far they were from those before,
    bend, smooth = np.zeros((n, m), wide), np.zeros((n, m), bool)  # and how f bent
    for level in range(LEVELS):
        h = start[left, None].astype(wide) * RATIO**level
        up = np.array([f(int(i), t) for i, t in zip(left, h[:, 0], strict=True)]).reshape(
            len(left), m
        )
        down = np.array([f(int(i), -t) for i, t in zip(left, h[:, 0], strict=True)]).reshape(
            len(left), m
        )
        unsure = noise + np.finfo(wide).eps * (abs(up) + abs(down))
        value, error, table, steps = extrapolate((up - down) / (2 * h), table, steps)
        error = error + unsure / h
        before, bend, smooth_before = bend, up + down - 2 * at_zero, smooth
        smooth = (abs(bend) <= 8 * unsure) | (abs(before) > abs(bend) / RATIO**1.5)
        expected = abs(before) * RATIO  # at a kink
        clear = expected > 100 * unsure
        kinked = clear & (abs(abs(bend) - expected) < 0.1 * expected)
        straight[left] = np.where(kinked, straight[left] + 1, np.where(clear, 0, straight[left]))
        means[left] = np.where(kinked, table[0], means[left])
        gaps[left] = np.where(kinked, abs(bend) / (2 * h) + unsure / h, gaps[left])

        # A smaller estimate is better. Where two contradict each other the larger steps saw too little of f; unless many
        # of those had come to the same: then f may be different on a small scale, by its rounding, and nobody can say.
        contrary = abs(value - slopes[left]) > 16 * (error + errors[left])
        trusted = smooth & smooth_before & ~contested[left]
        better = trusted & np.where(contrary, agreed[left] < 6, error < errors[left])
        contest = trusted & contrary & ~better & (error < 0.01 * abs(value))
        contested[left] |= contest
        anew = better & (contrary | (error < errors[left] / 100))
        as_exact = (error < 100 * errors[left]) & (error < 0.01 * abs(value))
        agreed[left] = np.where(anew, 0, agreed[left] + (smooth & as_exact & ~contrary))
        slopes[left] = np.where(better, value, slopes[left])
        errors[left] = np.where(
            better, error, np.where(contest, abs(value - slopes[left]), errors[left])
        )

        exact = errors[left] <= np.maximum(
            0.01 * abs(slopes[left]), 2 * unsure / h
        )  # the target may be far above both
        done = contested[left] | (exact & (errors[left] <= target[left, None]))
        done |= unsure / h > np.where(straight[left] > 4, 1e-6 * gaps[left], np.inf)
        done |= (
            (unsure / h > errors[left]) & smooth & (error < 100 * unsure / h)
        )  # smaller steps can but be worse
        keep = ~done.all(1)
        left, table, steps = left[keep], [t[keep] for t in table], [s[keep] for s in steps]
        bend, smooth = bend[keep], smooth[keep]
        if not len(left):
            break
    kinks = (straight > 4) & (errors > target[:, None])
    return np.where(kinks, means, slopes), np.where(kinks, gaps, errors), kinks
