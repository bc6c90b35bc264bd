"""Is a backward right? Its gradients against differences of its forward, as sharply as can be known.

The gradients are float64; the differences are taken in the widest float of the machine (`longdouble`, of 80 or 128 bits;
where there is none, or forward does not take it, float64), by differences.py, which says how exact each of them is. An
element of a gradient is wrong where it is further off than

    1e-12 scale + 8 (the estimate of the difference's error + the gradient's rounding)

with `scale` the norm of its tensor's gradient and a thousandth of the norm of all gradients (see Comparison.scales): so a
tensor whose true gradient is zero, such as the bias of attention's keys, is judged by the scale of its neighbours. The
rounding is measured: by how much the gradient moves when last digits do. What cannot be known to `tolerance` of the scale
is not passed but called "unclear", a point without a derivative a "kink", and a gradient that is zero everywhere "zero",
unless declared.

Before anything is compared, conduct.py looks at how the pair behaves.
"""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..backend.arrays import Array, get_xp
from ..errors import UserError
from ..params import Buffer, init
from .comparison import Comparison
from .contract import Backward, Forward, Pair, first_bad, host, kind, linearity, purity, reentrancy
from .differences import WIDE
from .report import Report, Row

__all__ = [
    "SHARP",
    "Backward",
    "Forward",
    "Report",
    "Row",
    "check_function",
    "check_layer",
    "check_model",
    "layer_pair",
    "noisy",
    "noisy_pair",
]
SHARP = (
    1e-12 if WIDE is not np.float64 else 1e-9
)  # tolerance for functions that lose no digits, such as all layers here
SMALL = 128  # elements of inputs, and
SMALL_OUT = 256  # of y, up to which the whole Jacobian is compared
LARGEST = 10_000_000  # derivatives in a Jacobian that somebody asks for


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
    """Check a pair `forward(*inputs) -> y, cache`, `backward(dy, cache) -> a gradient for each input`.

    inputs: arrays of floats, NumPy's or CuPy's. names: for the report. zero: names whose gradient may vanish.
    tolerance: what must be known, as a part of a gradient's scale; by default 1e-9 where there is a wide float, else 1e-7.
    directions: compare along so many random directions; 0: the whole Jacobian; by default that up to SMALL, else 3.
    The seed decides all that is random. Raises UserError, in one line, where nothing can be checked: inputs that are not
    finite floats, a forward that returns no cache or is not finite, a backward that returns too few gradients, shapes that
    do not fit.
    """
    with np.errstate(all="ignore"):  # what it would warn of shows in the values
        pair = Pair(forward, backward, inputs, names)
        check_options(pair, seed, zero, tolerance, directions)
        y, _ = pair.forward([x.copy() for x in pair.inputs])  # it may write to them: see purity
        if bad := first_bad(y):
            raise UserError(f"forward gives {bad}, of finite inputs: check where it is finite")
        faults = purity(pair, seed) or linearity(pair, seed) + reentrancy(pair, seed)
        if faults:
            return Report((), tuple(faults), tuple(pair.promoted))
        comparison = Comparison(pair, seed, tolerance, zero)
        n, m = comparison.x.size, y.size
        if directions is None:
            directions = 0 if n <= SMALL and m <= SMALL_OUT else 3
        if not (n and m):
            directions = 0
        if not directions and n * m > LARGEST:
            raise UserError(
                f"a Jacobian of {n:,} x {m:,} is too large to be compared as a whole: directions=3"
            )
        how = (
            f"{directions} random directions in {n:,} inputs"
            if directions
            else f"all {n:,} x {m:,} derivatives"
        )
        rows = comparison.rows(directions)
        if comparison.dtype is not np.float64 and any(
            row.verdict in ("wrong", "unclear") for row in rows
        ):
            # Where float64 sees no fault, forward may compute a part of its values with fewer digits than it shows.
            comparison.dtype = np.float64
            for i, other in enumerate(comparison.rows(directions)):
                if other.verdict in ("ok", "zero") and rows[i].verdict in ("wrong", "unclear"):
                    rows[i] = (
                        other
                        if rows[i].verdict == "unclear"
                        else replace(rows[i], verdict="unclear")
                    )
    return Report(tuple(rows), (), (f"{how}, by differences in {comparison.why}", *pair.promoted))


def check_options(pair: Pair, seed: Any, zero: Any, tolerance: Any, directions: Any) -> None:
    """Raise UserError for options that mean nothing."""
    if not isinstance(zero, list | tuple) or not set(zero) <= set(pair.names):
        raise UserError(f"zero is {zero!r}: wanted a list of names out of {', '.join(pair.names)}")
    if tolerance is not None and not (isinstance(tolerance, float) and 0 < tolerance < 1):
        raise UserError(f"tolerance is {tolerance!r}: wanted a number between 0 and 1, or None")
    check_count("seed", seed)
    check_count("directions", 0 if directions is None else directions)


def check_count(name: str, value: Any) -> None:
    if type(value) is not int or value < 0:
        raise UserError(f"{name} is {value!r}: wanted a whole number, 0 or more")


def check_layer(
    layer: Any,
    x: Any,
    seed: int = 0,
    zero: Sequence[str] = (),
    tolerance: float | None = None,
    directions: int | None = None,
    **options: Any,
) -> Report:
    """check_function for a layer with weights, `forward(params, x) -> y, cache` and `backward(dy, cache, grads) -> dx`: x
    and every weight, at weights moved off their first values by noise. options: to forward, as for layer_pair."""
    for method in ("forward", "backward"):
        if isinstance(layer, type) or not callable(getattr(layer, method, None)):
            raise UserError(
                f"the layer is {kind(layer)}, wanted an object with forward and backward, and then x"
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
    except UserError as error:
        if str(error).startswith("forward gives") and (
            first := first_layer_not_finite(layer, forward, x, weights)
        ):
            raise UserError(f"{first}, of finite inputs: check where it is finite") from error
        raise
    wrong = [row.name for row in report.rows[1:] if row.verdict == "wrong" and row.name in names]
    if len(wrong) > 1 or (wrong and report.rows[0].verdict == "wrong"):
        hint = f"backward comes from the output: begin with {wrong[-1]}, the last that is wrong, and what follows it"
        report = replace(report, remarks=(hint, *report.remarks))
    return report


check_model = check_layer  # a model has the form of a layer, and is only larger


def first_layer_not_finite(
    layer: Any, forward: Forward, x: Any, weights: Sequence[Array]
) -> str | None:
    """The first of the layer's parts whose output is not finite, as "blocks.0.mlp gives NaN, first at [0, 1]"."""
    found: list[str] = []

    def watched(name: str, original: Any) -> Any:
        def run(*args: Any, **options: Any) -> Any:
            y, cache = original(*args, **options)
            if not found and (bad := first_bad(host(y))):
                found.append(f"{name} gives {bad}")
            return y, cache

        return run

    parts = {id(part): (name, part, dict(vars(part))) for name, part in sublayers(layer)}
    try:
        for name, part, _ in parts.values():
            part.forward = watched(name, part.forward)
        with np.errstate(all="ignore"):
            forward(np.asarray(host(x), np.float64), *map(host, weights))
    finally:
        for _, part, attributes in parts.values():
            vars(part).clear()
            vars(part).update(attributes)
    return found[0] if found else None


def sublayers(layer: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("blocks.0.attention", the object) for every layer inside one, the innermost first."""
    items = (
        enumerate(layer)
        if isinstance(layer, list | tuple)
        else vars(layer).items()
        if hasattr(layer, "forward")
        else ()
    )
    for name, item in items:
        if isinstance(item, list | tuple) or hasattr(item, "forward"):
            inner = f"{prefix}.{name}" if prefix else str(name)
            yield from sublayers(item, inner)
            if hasattr(item, "forward"):
                yield inner, item


def layer_pair(layer: Any, params: Buffer, **options: Any) -> tuple[Forward, Backward, list[str]]:
    """A layer as a pure pair over (x, every weight), and the names ["x", ...].

    options go to the layer's forward; a function among them is called each time (`rng=lambda: default_rng(3)`: the same
    dropout at every call). A backward that takes need_dx is asked for dx.
    """
    asked = {"need_dx": True} if "need_dx" in inspect.signature(layer.backward).parameters else {}

    def forward(x: Array, *weights: Array) -> tuple[Array, Any]:
        flat = get_xp(x).empty(params.flat.shape, x.dtype)
        values = Buffer(params.params, flat)
        for name, w in zip(params.names(), weights, strict=True):
            values[name] = w
        if get_xp(x) is np:
            flat.flags.writeable = False  # a layer that writes to its weights shows
        now = {key: value() if callable(value) else value for key, value in options.items()}
        return layer.forward(Buffer(params.params, flat), x, **now)

    def backward(dy: Array, cache: Any) -> tuple[Array, ...]:
        grads = Buffer(params.params, get_xp(dy).zeros(params.flat.shape, dy.dtype))
        dx = layer.backward(dy, cache, grads, **asked)
        return (dx, *(grads[name] for name in grads.names()))

    return forward, backward, ["x", *params.names()]


def noisy(layer: Any, seed: int, dtype: Any = np.float64) -> Buffer:
    """A layer's first weights, moved by noise: biases that are not zero, norms that are not one."""
    params = init(layer, seed, dtype)
    params.flat += np.random.default_rng((seed, 1)).normal(0, 0.3, params.flat.shape)
    return params


def noisy_pair(
    layer: Any, seed: int, **options: Any
) -> tuple[Forward, Backward, list[str], list[Array]]:
    """layer_pair at noisy weights: forward, backward, the names ["x", ...], and the weights to call forward with."""
    params = noisy(layer, seed)
    return (*layer_pair(layer, params, **options), [params[name] for name in params.names()])
