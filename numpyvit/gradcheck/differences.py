"""Derivatives by finite differences, as exact as possible, with estimates of the error.

The central difference D(h) = (f(h) - f(-h)) / 2h of a smooth function differs from the
derivative by c2 h² + c4 h⁴ + ... Two steps can therefore be combined such that the term
with c2 cancels, three steps such that the term with c4 cancels too, and so on. This is
Richardson's extrapolation (L. F. Richardson, 1911).

How much a combination differs from the two values that it combines tells how exact it
is (C. J. F. Ridders, 1982, "Accurate computation of F'(x) and F'(x) F''(x)"). The steps
start large and shrink until that estimate is small enough. Each element thus gets its
own step, and f may be steep or flat, with values near 1e-8 or 1e8.

Two more things limit what can be known:

- The values of f are rounded. If they are uncertain by u, D(h) is uncertain by u / h,
  so steps that are too small are useless. See `noise_of`.
- f may have a kink, such as that of |t| at 0. The second difference, which is
  f(h) + f(-h) - 2 f(0), shrinks with h² if f is smooth, but only with h at a kink. See
  `Kinks`.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend.arrays import Array

# The widest float of this machine: longdouble if it has 80 or 128 bits, else float64.
WIDE: Any = np.longdouble if 1e-40 < np.finfo(np.longdouble).eps < 1e-18 else np.float64

FIRST_STEP = 0.07  # as a fraction of x
# Each step over the one before it: 0.549. No power of it is a simple fraction: with
# steps that are, a wave whose period fits them would look like a slower wave.
RATIO = math.exp(-0.6)
LEVELS = 80  # the largest number of steps, down to 1e-22 of x
ORDERS = 8  # the largest number of error terms that are cancelled: c2 to c16

KINK_LEVELS = 4  # f has a kink if its second difference shrinks with h over more levels than this
ESTABLISHED = 6  # a slope that so many levels agree on is not replaced by a contrary one


def first_step(x: Array, seed: int) -> Array:
    """Return the largest step to try for each element of x (...), as an array like x.

    It is about 0.06 |x|, or 0.06 where |x| is below 1. It depends on the seed too, so
    that no function can have a period that fits the steps for every seed.
    """
    jitter = np.random.default_rng((seed, 8)).uniform(0.7, 1.0, x.shape)
    return FIRST_STEP * np.maximum(abs(x), 1) * jitter


def noise_of(f: Callable[[Array], Array], size: int, seed: int) -> Array:
    """Return the uncertainty (m,) of the values of f that comes from rounding.

    f(r) evaluates the function at x (1 + eps r) for r (size,), where size is the number
    of inputs; it returns (m,). The uncertainty is the rounding of the values
    themselves, plus how far they move when the last digits of the inputs change at
    random.
    """
    rng = np.random.default_rng((seed, 1))
    y = f(np.zeros(size))
    moved = [f(rng.uniform(-2, 2, size)) - y for _ in range(6)]
    own_rounding = np.finfo(y.dtype).eps * abs(y)
    return 4 * (own_rounding + np.sqrt(np.mean(np.square(moved), 0)))


def extrapolate(
    slope: Array, table: list[Array], changes_before: list[Array]
) -> tuple[Array, Array, list[Array], list[Array]]:
    """Add one level to Richardson's table and return its best entry.

    slope: the central differences D(h) of this level. table: the row of the level
    before; its entry j is a combination in which the error terms up to h^(2j) cancel.
    changes_before: how much each entry of that row differed from the one above it.

    Returns the best entry of the new row, an estimate of its error, the row, and how
    much each of its entries differs from the one above it.
    """
    row = [slope]
    changes: list[Array] = []
    value = slope
    error = np.full(slope.shape, np.inf)
    for j, above in enumerate(table[:ORDERS]):
        changes.append(abs(row[j] - above))
        h_power = RATIO ** (-2 * j - 2)  # (the step before / this step)^(2j+2)
        row.append(row[j] + (row[j] - above) / (h_power - 1))  # the term with h^(2j+2) cancels

        # The closer row[j] and above are to the new entry, the more exact it is.
        apart = np.maximum(abs(row[j + 1] - row[j]), abs(row[j + 1] - above))
        # The two may have agreed by chance. Earlier changes, scaled by what they should
        # have shrunk to since then, are a lower bound.
        if j:
            apart = np.maximum(apart, changes[j - 1] / 64)
        if j < len(changes_before):
            apart = np.maximum(apart, changes_before[j] * RATIO ** (2 * j + 2) / 8)

        value = np.where(apart < error, row[j + 1], value)
        error = np.fmin(apart, error)
    return value, error, row, changes


class Best:
    """The best slope so far of each element, as arrays (n, m).

    slopes, errors: the slopes and estimates of their errors. agreements: the number of
    levels that came to the same slope. contested: True where smaller steps came to
    another slope, so that no slope can be trusted.
    """

    def __init__(self, n: int, m: int, dtype: Any) -> None:
        self.slopes = np.zeros((n, m), dtype)
        self.errors = np.full((n, m), np.inf)
        self.agreements = np.zeros((n, m), int)
        self.contested = np.zeros((n, m), bool)

    def update(
        self, active: Array, value: Array, error: Array, smooth: Array, smooth_before: Array
    ) -> None:
        """Take over the new slopes, for the rows `active`, where they are better.

        value, error: the slopes of this level and estimates of their errors. smooth,
        smooth_before: whether f looked smooth at this step and at the one before.

        A slope with a smaller estimate is better. Where the new slope contradicts the
        old one, the larger steps saw too little of f, and the new one is better. But if
        many larger steps agreed with each other, the new slope may be that of the
        rounding of f, which looks like another function on a small scale: the element
        is then contested.
        """
        slopes, errors = self.slopes[active], self.errors[active]
        agreements = self.agreements[active]
        trusted = smooth & smooth_before & ~self.contested[active]
        precise = error < 0.01 * abs(value)

        contrary = abs(value - slopes) > 16 * (error + errors)
        improves = np.where(contrary, agreements < ESTABLISHED, error < errors)
        better = trusted & improves
        contest = trusted & contrary & ~better & precise

        restart = better & (contrary | (error < errors / 100))
        agrees = smooth & (error < 100 * errors) & precise & ~contrary
        contested_errors = np.where(contest, abs(value - slopes), errors)

        self.contested[active] |= contest
        self.agreements[active] = np.where(restart, 0, agreements + agrees)
        self.slopes[active] = np.where(better, value, slopes)
        self.errors[active] = np.where(better, error, contested_errors)


class Kinks:
    """Where f has a kink, as arrays (n, m).

    levels: over how many steps in a row the second difference shrank with h and not
    with h². slopes: the mean of the slopes on the left and on the right. gaps: half of
    the difference of these two slopes.
    """

    def __init__(self, n: int, m: int, dtype: Any) -> None:
        self.levels = np.zeros((n, m), int)
        self.slopes = np.zeros((n, m), dtype)
        self.gaps = np.zeros((n, m))

    @property
    def found(self) -> Array:
        return self.levels > KINK_LEVELS

    def update(
        self,
        active: Array,
        bend: Array,
        bend_before: Array,
        uncertainty: Array,
        difference: Array,
        h: Array,
    ) -> None:
        """Look at the second differences of one more step, for the rows `active`.

        bend, bend_before: the second differences at this step and at the one before.
        uncertainty: of the values of f. difference: the central differences. h: the
        steps.
        """
        expected = abs(bend_before) * RATIO  # at a kink
        clear = expected > 100 * uncertainty
        kinked = clear & (abs(abs(bend) - expected) < 0.1 * expected)
        gap = abs(bend) / (2 * h) + uncertainty / h

        levels = self.levels[active]
        reset = np.where(clear, 0, levels)
        self.levels[active] = np.where(kinked, levels + 1, reset)
        self.slopes[active] = np.where(kinked, difference, self.slopes[active])
        self.gaps[active] = np.where(kinked, gap, self.gaps[active])


def looks_smooth(bend: Array, bend_before: Array, uncertainty: Array) -> Array:
    """Return where the second difference is only rounding or shrinks faster than h."""
    rounding_only = abs(bend) <= 8 * uncertainty
    shrinks = abs(bend_before) > abs(bend) / RATIO**1.5
    return rounding_only | shrinks


def is_done(
    active: Array,
    best: Best,
    kinks: Kinks,
    error: Array,
    uncertainty: Array,
    h: Array,
    target: Array,
    smooth: Array,
) -> Array:
    """Return where smaller steps cannot, or need not, tell more: (active, m)."""
    slopes, errors = best.slopes[active], best.errors[active]
    rounding = uncertainty / h  # the uncertainty of a slope at this step

    # The target may be far above the slope: at least two digits of the slope are
    # wanted, unless it is rounding only.
    enough_digits = errors <= np.maximum(0.01 * abs(slopes), 2 * uncertainty / h)
    reached = enough_digits & (errors <= target[active, None])

    gap_is_known = rounding > np.where(kinks.found[active], 1e-6 * kinks.gaps[active], np.inf)
    can_only_get_worse = (rounding > errors) & smooth & (error < 100 * uncertainty / h)
    return best.contested[active] | reached | gap_is_known | can_only_get_worse


def differentiate(
    f: Callable[[int, Array], Array], at_zero: Array, start: Array, noise: Array, target: Array
) -> tuple[Array, Array, Array]:
    """Return the derivatives at t = 0 of f(i, t) -> (m,) for i = 0..n-1.

    at_zero (m,): f(i, 0), which is the same for all i. start (n,): the first steps.
    noise (m,): the uncertainty of the values of f. target (n,): the error to be
    reached.

    Returns slopes (n, m), estimates of their errors (n, m) and kinks (n, m). kinks is
    True where f bends however small the step is; the slope is then the mean of the
    slopes on the left and on the right, and the estimate is half of their difference.
    An estimate is infinite where nothing can be said.

    All i take the same number of steps until they are done; those that are done are
    dropped from `active` and are not evaluated any more.
    """
    n, m, wide = len(start), len(at_zero), at_zero.dtype
    best = Best(n, m, wide)
    kinks = Kinks(n, m, wide)
    active = np.arange(n)  # the i that are not done; the arrays below have a row for each
    table: list[Array] = []
    changes: list[Array] = []
    bend = np.zeros((n, m), wide)
    smooth = np.zeros((n, m), bool)

    for level in range(LEVELS):
        h = start[active, None].astype(wide) * RATIO**level
        steps = list(zip(active, h[:, 0], strict=True))
        up = np.array([f(int(i), t) for i, t in steps]).reshape(len(active), m)
        down = np.array([f(int(i), -t) for i, t in steps]).reshape(len(active), m)
        uncertainty = noise + np.finfo(wide).eps * (abs(up) + abs(down))

        difference = (up - down) / (2 * h)
        value, error, table, changes = extrapolate(difference, table, changes)
        error = error + uncertainty / h

        bend_before, smooth_before = bend, smooth
        bend = up + down - 2 * at_zero
        smooth = looks_smooth(bend, bend_before, uncertainty)

        kinks.update(active, bend, bend_before, uncertainty, difference, h)
        best.update(active, value, error, smooth, smooth_before)

        done = is_done(active, best, kinks, error, uncertainty, h, target, smooth)
        keep = ~done.all(1)
        active = active[keep]
        table = [entry[keep] for entry in table]
        changes = [change[keep] for change in changes]
        bend = bend[keep]
        smooth = smooth[keep]
        if not len(active):
            break

    is_kink = kinks.found & (best.errors > target[:, None])
    slopes = np.where(is_kink, kinks.slopes, best.slopes)
    errors = np.where(is_kink, kinks.gaps, best.errors)
    return slopes, errors, is_kink
