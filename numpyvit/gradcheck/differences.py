"""Derivatives by differences, as exactly as can be, and how exactly that is.

A central difference D(h) = (f(h) - f(-h)) / 2h of a smooth function is wrong by c2 h^2 + c4 h^4 + ... So from two steps a
combination can be made in which c2 cancels, from three one in which c4 cancels too (Richardson, 1911). How far a combination
lies from those that it was made of says how exact it is (Ridders, 1982, "Accurate computation of F'(x)"). The steps start
large and shrink until that is small enough: so each element finds a step of its own, and f may be steep or flat, its scale
1e-8 or 1e8. (They are no simple fractions of each other, through all of which a fast wave would look like a slow one.)

What f itself is uncertain by counts as noise / h. And f(h) + f(-h) - 2 f(0), which of a smooth function falls with h^2, but
of one with a kink with h, says whether there is a derivative.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import Array

WIDE: Any = np.longdouble if 1e-40 < np.finfo(np.longdouble).eps < 1e-18 else np.float64   # the widest of the machine
FIRST_STEP = 0.07               # of x
LEVELS = 47                     # steps, down to 1e-13 of x
SHRINK = 0.55 ** np.arange(LEVELS)
ORDERS = 8                      # c2 to c16 can cancel


def first_step(x: Array) -> Array:
    """For each element of x (...) the largest step to be tried: some hundredths of it, or of 1 where it is small."""
    exponent: Array = np.frexp(np.maximum(abs(x), 1))[1] - 1
    return np.ldexp(FIRST_STEP, exponent)


def noise_of(f: Callable[[Array], Array], size: int, seed: int, samples: int = 6) -> Array:
    """How uncertain f (m,) is: its eps, and what its values move by when its `size` inputs are rounded otherwise.

    f(r) evaluates it at inputs x (1 + eps r), r (size,). Returns (m,).
    """
    rng = np.random.default_rng((seed, 1))
    y = f(np.zeros(size))
    moved = [f(rng.uniform(-2, 2, size)) - y for _ in range(samples)]
    return 4 * (np.finfo(y.dtype).eps * abs(y) + np.sqrt(np.mean(np.square(moved), 0)))


def differentiate(f: Callable[[int, Array], Array], at_zero: Array, start: Array, noise: Array,
                  target: Array) -> tuple[Array, Array, Array]:
    """Slopes at t = 0 of f(i, t) -> (m,), for i = 0..n-1, by Richardson's extrapolation with a step for each.

    at_zero (m,): f(i, 0), the same for all i; start (n,): their first steps; noise (m,): what the values are uncertain by;
    target (n,): an error small enough. Returns slopes (n, m), estimates of their errors (n, m), kinks (n, m): True where f
    is not smooth however small the step; the slope is then the mean of those on the left and on the right, and the estimate
    half of what they differ by. An estimate is infinite where f was not finite at any step.
    """
    n, m, wide = len(start), len(at_zero), at_zero.dtype
    slopes, errors, kinks = np.zeros((n, m), wide), np.full((n, m), np.inf), np.zeros((n, m), bool)
    left = np.arange(n)                                                  # those that are not done
    table: list[Array] = []                                              # of them: the extrapolations at the level before
    bend = np.zeros((n, m), wide)
    for level, shrink in enumerate(SHRINK):
        h = start[left, None].astype(wide) * shrink
        up = np.array([f(int(i), t) for i, t in zip(left, h[:, 0], strict=True)]).reshape(len(left), m)
        down = np.array([f(int(i), -t) for i, t in zip(left, h[:, 0], strict=True)]).reshape(len(left), m)
        unsure = noise + np.finfo(wide).eps * (abs(up) + abs(down))
        before, bend = bend, up + down - 2 * at_zero
        smooth = (abs(bend) <= 8 * unsure) | (abs(before) > abs(bend) * (SHRINK[level - 1] / shrink) ** 1.5)
        row = [(up - down) / (2 * h)]
        value, error = row[0], np.full(row[0].shape, np.inf)
        for j, above in enumerate(table[:ORDERS]):
            ratio = SHRINK[level - 1 - j] / shrink
            row.append(row[j] + (row[j] - above) / (ratio**2 - 1))       # the h^(2j+2) of the error cancels
            apart = np.maximum(abs(row[j + 1] - row[j]), abs(row[j + 1] - above))
            if j:
                apart = np.maximum(apart, abs(row[j] - table[j - 1]) / 64)            # lest one agreement be chance
            value, error = np.where(apart < error, row[j + 1], value), np.fmin(apart, error)
        error = error + unsure / h
        # A smaller estimate is better; and where two contradict each other, the larger steps saw too little of f.
        better = smooth & ((error < errors[left]) | (abs(value - slopes[left]) > 16 * (error + errors[left])))
        slopes[left] = np.where(better, value, slopes[left])
        errors[left] = np.where(better, error, errors[left])
        noisy = (unsure / h > errors[left]) & smooth & (error < 100 * unsure / h)     # smaller steps can but be worse
        done = (errors[left] <= target[left, None]) | noisy
        if level == LEVELS - 1:
            never = np.isinf(errors[left]) & np.isfinite(row[0])
            slopes[left] = np.where(never, row[0], slopes[left])
            errors[left] = np.where(never, abs(bend) / (2 * h) + unsure / h, errors[left])
            kinks[left] = never
        keep = ~done.all(1)
        left, table, bend = left[keep], [r[keep] for r in row], bend[keep]
        if not len(left):
            break
    return slopes, errors, kinks
