"""The checks: of a pair of functions, and of a layer or model with weights."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..backend.arrays import Array
from ..errors import UserError
from ..watch import Call, watch
from .comparison import Comparison
from .contract import layouts, linearity, purity, reentrancy
from .differences import WIDE
from .directions import compare_directions
from .jacobian import compare_jacobian
from .layer import noisy_pair, overwriting
from .pair import Backward, Forward, Pair
from .report import Report, Row
from .values import describe, first_bad, host, is_cupy

# A tolerance for functions that lose no digits, such as all layers of this package.
SHARP = 1e-12 if WIDE is not np.float64 else 1e-9
# By default the whole Jacobian is compared if it is no larger than this:
SMALL = 128  # elements of the inputs
SMALL_OUT = 256  # elements of y
DIRECTIONS = 3  # otherwise, along this many random directions
LARGEST = 10_000_000  # derivatives in a Jacobian, if it is asked for by directions=0


class NotFiniteError(UserError):
    """A forward that gives NaN or infinity at finite inputs."""


def check_function(
    forward: Forward,
    backward: Backward,
    *inputs: Any,
    names: Sequence[str] | None = None,
    seed: int = 0,
    zero: Sequence[str] = (),
    tolerance: float | None = None,
    directions: int | None = None,
) -> Report:
    """Check that `backward` computes the gradients of `forward`, and return a Report.

    forward(*inputs) returns y and a cache; backward(dy, cache) returns a gradient for
    each input. Before the gradients are compared, the contract of the pair is checked
    (see contract.py).

    inputs: arrays of finite floats, promoted to float64 if they are not. The two
    functions are given arrays of NumPy (of CuPy, if the first input is one), and may
    return any arrays that NumPy can convert.
    names: a name for each input, for the report; "input 0", ... by default.
    seed: decides everything that is random.
    zero: the names of inputs whose gradient may be zero everywhere.
    tolerance: how exactly the check must work out: a gradient passes only if its error
    is known to this fraction of its size. It is not an error that is allowed (what is
    allowed follows from the estimates, see the package's docstring); a larger tolerance
    only has fewer verdicts "unclear". By default 1e-9 where differences are taken in
    longdouble, otherwise 1e-7.
    directions: the number of random directions to compare along, 0 for the whole
    Jacobian. By default that is compared up to 128 x 256 derivatives, and 3 directions
    otherwise.

    Raises UserError, in one line, where nothing can be checked: inputs that are not
    arrays of finite floats, a forward that returns no cache or values that are not
    finite, a backward that returns too few gradients, shapes that do not fit.
    """
    with np.errstate(all="ignore"):  # what it would warn of shows in the values
        pair = Pair(forward, backward, inputs, names)
        check_options(pair, seed, zero, tolerance, directions)
        copies = [x.copy() for x in pair.inputs]  # forward may write to them: see purity
        y, _ = pair.forward(copies)
        if bad := first_bad(y):
            raise NotFiniteError(f"forward gives {bad}, of finite inputs: check where it is finite")
        faults = purity(pair, seed)
        faults = faults or linearity(pair, seed) + reentrancy(pair, seed) + layouts(pair, seed)
        if faults:
            return Report((), tuple(faults), tuple(pair.promoted))
        comparison = Comparison(pair, seed, tolerance, zero)
        directions = choose_directions(comparison, directions)
        rows = compare(comparison, directions)
        if comparison.dtype is not np.float64:
            rows = confirm_in_float64(comparison, directions, rows)
    n, m = comparison.x.size, comparison.y.size
    how = f"all {n:,} x {m:,} derivatives"
    if directions:
        elements = "elements of the inputs and weights" if len(rows) > 2 else "elements"
        how = f"{directions} random directions in {n:,} {elements}"
    return Report(tuple(rows), (), (f"{how}, by differences in {comparison.why}", *pair.promoted))


def check_options(pair: Pair, seed: Any, zero: Any, tolerance: Any, directions: Any) -> None:
    """Raise UserError for options that have no meaning."""
    if not isinstance(zero, list | tuple) or not set(zero) <= set(pair.names):
        raise UserError(f"zero is {zero!r}: wanted a list of names out of {', '.join(pair.names)}")
    if tolerance is not None and not (isinstance(tolerance, float) and 0 < tolerance < 1):
        raise UserError(f"tolerance is {tolerance!r}: wanted a number between 0 and 1, or None")
    check_count("seed", seed)
    check_count("directions", 0 if directions is None else directions)


def check_count(name: str, value: Any) -> None:
    """Raise UserError unless `value` is an integer of at least 0."""
    if type(value) is not int or value < 0:
        raise UserError(f"{name} is {value!r}: wanted an integer, 0 or more")


def choose_directions(comparison: Comparison, directions: int | None) -> int:
    """Return the number of random directions, 0 for the whole Jacobian.

    Raises UserError if the whole Jacobian is asked for and is too large.
    """
    n, m = comparison.x.size, comparison.y.size
    if directions is None:
        directions = 0 if n <= SMALL and m <= SMALL_OUT else DIRECTIONS
    if not (n and m):
        directions = 0
    if not directions and n * m > LARGEST:
        raise UserError(
            f"a Jacobian of {n:,} x {m:,} is too large to be compared as a whole: use directions=3"
        )
    return directions


def compare(comparison: Comparison, directions: int) -> list[Row]:
    """Return the rows of the report, by random directions or by the whole Jacobian."""
    if directions:
        return compare_directions(comparison, directions)
    return compare_jacobian(comparison)


def confirm_in_float64(comparison: Comparison, directions: int, rows: list[Row]) -> list[Row]:
    """Return the rows, after checking those that fail in longdouble again in float64.

    A forward that computes some of its values with fewer digits than it returns looks
    wrong or unclear to sharp differences. A row that is unclear in longdouble is then
    replaced by that in float64. One that is wrong becomes unclear, since the fault may
    be real.
    """
    failed = ("wrong", "unclear")
    if not any(row.verdict in failed for row in rows):
        return rows
    comparison.dtype = np.float64
    found = list(rows)
    for i, other in enumerate(compare(comparison, directions)):
        if other.verdict in ("ok", "zero") and rows[i].verdict in failed:
            is_wrong = rows[i].verdict == "wrong"
            found[i] = replace(rows[i], verdict="unclear") if is_wrong else other
    return found


def check_layer(
    layer: Any,
    x: Any,
    seed: int = 0,
    zero: Sequence[str] = (),
    tolerance: float | None = None,
    directions: int | None = None,
    **options: Any,
) -> Report:
    """Check a layer or model with weights: the gradients of x and of every weight.

    layer: an object with `forward(params, x) -> y, cache` and
    `backward(dy, cache, grads) -> dx`. It is checked at its initial weights plus noise.
    seed, zero, tolerance, directions: as for `check_function`; the input is named "x",
    and the weights as in `Buffer.names()`. options are passed to forward, as by
    `layer_pair`.

    Raises UserError as `check_function` does. Where the output is not finite, the error
    names the first layer inside whose output is not.
    """
    for method in ("forward", "backward"):
        if isinstance(layer, type) or not callable(getattr(layer, method, None)):
            raise UserError(
                f"the layer is {describe(layer)}, wanted an object with forward and backward, and "
                "then x"
            )
    check_count("seed", seed)
    forward, backward, names, weights = noisy_pair(layer, seed, **options)
    try:
        report = check_function(
            forward,
            backward,
            x,
            *weights,
            names=names,
            seed=seed,
            zero=zero,
            tolerance=tolerance,
            directions=directions,
        )
    except NotFiniteError as error:
        first = first_layer_not_finite(layer, forward, x, weights)
        if not first:
            raise
        raise NotFiniteError(f"{first}, of finite inputs: check where it is finite") from error
    if not report.faults:
        faults = overwriting(layer, x, seed, **options)
        report = replace(report, faults=tuple(faults))
    return with_hint(report, names)


check_model = check_layer  # another name: a model has the methods of a layer


def with_hint(report: Report, names: Sequence[str]) -> Report:
    """Return the report, with a hint where to begin if several gradients are wrong.

    names: of the input and the weights, in the order of the forward pass. A mistake in
    one layer spoils the gradients of everything before it, so the last wrong one is the
    nearest to its cause.
    """
    wrong_weights = [
        row.name for row in report.rows[1:] if row.verdict == "wrong" and row.name in names
    ]
    x_is_wrong = bool(report.rows) and report.rows[0].verdict == "wrong"
    if not wrong_weights or (len(wrong_weights) == 1 and not x_is_wrong):
        return report
    hint = (
        f"backward runs from the output to the input: begin with {wrong_weights[-1]}, the last "
        "that is wrong, and the operations after it"
    )
    return replace(report, remarks=(hint, *report.remarks))


def first_layer_not_finite(
    layer: Any, forward: Forward, x: Any, weights: Sequence[Array]
) -> str | None:
    """Return the name of the first inner layer whose output is not finite, and where.

    As "blocks.0.mlp gives NaN, first at [0, 1]"; None if there is no such layer.
    """
    found: list[str] = []

    def look(call: Call) -> Any:
        result = call()
        y = result[0] if isinstance(result, tuple) else result
        is_inner = call.name != "" and (isinstance(y, np.ndarray) or is_cupy(y))
        if is_inner and not found and (bad := first_bad(host(y))):
            found.append(f"{call.name} gives {bad}")
        return result

    with watch(layer, look), np.errstate(all="ignore"):
        forward(np.asarray(host(x), np.float64), *map(host, weights))
    return found[0] if found else None
