"""Is a backward right? Its gradients against numerical differences of its forward.

The gradients are float64; the differences are taken in the widest float that the machine has (`longdouble`: 80 or 128 bits,
on some machines 64), are central and of fourth order: with f at four points around x,

    f'(x) = (f(x - 2h) - 8 f(x - h) + 8 f(x + h) - f(x + 2h)) / 12h,   wrong by about h^4 f'''''/30 + eps f / h

The step h balances the two for functions that vary over lengths of about 1, and for models, where a small token before a
layernorm makes it 0.1. The error of a tensor is

    norm(analytic - numeric) / (norm(numeric) + 1e-3 * norm(all gradients))

so that a tensor whose true gradient is zero (the bias of attention's keys) is judged by the scale of its neighbours.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .backend import Array
from .errors import UserError
from .params import Buffer, init

Forward = Callable[..., tuple[Array, Any]]
Backward = Callable[[Array, Any], Any]
WIDE = np.longdouble
MODEL_STEP = 1e-4
STEP = MODEL_STEP if np.finfo(WIDE).eps < 1e-18 else 5e-4


@dataclass(frozen=True)
class Row:
    """One input or weight: the error by the measure above, the norm of its numerical gradient, and the verdict."""

    name: str
    error: float
    norm: float
    verdict: str                                      # "ok", "wrong", "zero" (everywhere, and not declared so)


@dataclass(frozen=True)
class Report:
    """True when every row is ok; prints as a table."""

    rows: tuple[Row, ...]
    tolerance: float

    def __bool__(self) -> bool:
        return all(row.verdict == "ok" for row in self.rows)

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows) + 2
        lines = [f"{'gradient of':{width}}{'norm':>12}{'error':>12}  verdict (tolerance {self.tolerance:.0e})"]
        lines += [f"{row.name:{width}}{row.norm:12.3e}{row.error:12.1e}  {row.verdict}" for row in self.rows]
        return "\n".join(lines)


def make_report(names: Sequence[str], analytic: Sequence[Array], numeric: Sequence[Array], tolerance: float,
                zero: Sequence[str] = ()) -> Report:
    """Compare pairs of arrays by the measure above. zero: names whose gradient is known to vanish."""
    scale = 1e-3 * float(np.sqrt(sum(np.sum(n**2) for n in numeric)))
    rows = []
    for name, a, wide in zip(names, analytic, numeric, strict=True):
        n = wide.astype(np.float64)
        norm = float(np.linalg.norm(n))
        error = float(np.linalg.norm(a - n)) / (norm + scale) if norm + scale else float(np.linalg.norm(a))
        verdict = "ok" if error <= tolerance else "wrong"                # a NaN is wrong
        if verdict == "ok" and n.size and name not in zero and norm <= tolerance * scale * 1e3:
            verdict = "zero"
        rows.append(Row(name, error, norm, verdict))
    return Report(tuple(rows), tolerance)


def difference(f: Callable[[Array], Array], x: Array, direction: Array, h: float = STEP) -> Array:
    """The derivative of f at x along `direction`, by the formula above."""
    x, step = x.astype(WIDE), WIDE(h) * direction
    at = [f(x + k * step) for k in (-2, -1, 1, 2)]
    return (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * WIDE(h))


def as_tuple(gradients: Any) -> tuple:
    return gradients if isinstance(gradients, tuple) else (gradients,)


def check_function(forward: Forward, backward: Backward, *inputs: Array, names: Sequence[str] | None = None,
                   tolerance: float = 1e-9, zero: Sequence[str] = ()) -> Report:
    """Full Jacobian of a pair `forward(*inputs) -> y, cache`, `backward(dy, cache) -> a gradient for each input`.

    For small shapes: 4 forwards an input element, a backward an output element. Inputs are promoted to float64.
    Raises UserError where backward returns another number of gradients, or gradients of other shapes.
    """
    args = [np.asarray(x, np.float64) for x in inputs]
    names = names or [f"input {i}" for i in range(len(args))]
    y, cache = forward(*args)
    by_output = []                                                       # the Jacobian's rows, one dy = 1 at a time
    for o in range(y.size):
        dy = np.zeros(y.size)
        dy[o] = 1
        by_output.append(as_tuple(backward(dy.reshape(y.shape), cache)))
        found, wanted = [getattr(g, "shape", None) for g in by_output[-1]], [x.shape for x in args]
        if found != wanted:
            raise UserError(f"backward returned gradients of shapes {found}, wanted {wanted}: one for each input, like it")
    analytic = [np.array([grads[i] for grads in by_output]).reshape(y.size, x.size) for i, x in enumerate(args)]
    wide, numeric = [x.astype(WIDE) for x in args], []
    for i, x in enumerate(args):

        def f(v: Array, i: int = i) -> Array:
            return forward(*wide[:i], v, *wide[i + 1:])[0]

        jacobian = np.empty((y.size, x.size), WIDE)
        for e in range(x.size):
            unit = np.zeros(x.size)
            unit[e] = 1
            jacobian[:, e] = difference(f, x, unit.reshape(x.shape)).ravel()
        numeric.append(jacobian)
    return make_report(names, analytic, numeric, tolerance, zero)


def layer_pair(layer: Any, params: Buffer, **options: Any) -> tuple[Forward, Backward, list[str]]:
    """A layer as a pure pair over (x, every weight), and the names ["x", ...].

    options go to the layer's forward; a function among them is called each time (`rng=lambda: default_rng(3)`: the same
    dropout at every call).
    """
    def forward(x: Array, *weights: Array) -> tuple[Array, Any]:
        flat = np.empty(params.flat.shape, x.dtype)
        values = Buffer(params.params, flat)
        for name, w in zip(params.names(), weights, strict=True):
            values[name] = w
        flat.flags.writeable = False                                     # a layer that writes to its weights shows
        values = Buffer(params.params, flat)
        now = {key: value() if callable(value) else value for key, value in options.items()}
        return layer.forward(values, x, **now)

    def backward(dy: Array, cache: Any) -> tuple[Array, ...]:
        grads = Buffer(params.params, np.zeros(params.flat.shape, dy.dtype))
        dx = layer.backward(dy, cache, grads)
        return (dx, *(grads[name] for name in grads.names()))

    return forward, backward, ["x", *params.names()]


def noisy(layer: Any, seed: int, dtype: Any = np.float64) -> Buffer:
    """A layer's first weights, moved by noise: biases that are not zero, norms that are not one."""
    params = init(layer, seed, dtype)
    params.flat += np.random.default_rng((seed, 1)).normal(0, 0.3, params.flat.shape)
    return params


def noisy_pair(layer: Any, seed: int, **options: Any) -> tuple[Forward, Backward, list[str], list[Array]]:
    """layer_pair at noisy weights: forward, backward, the names ["x", ...], and the weights to call forward with."""
    params = noisy(layer, seed)
    return (*layer_pair(layer, params, **options), [params[name] for name in params.names()])


def check_layer(layer: Any, x: Array, seed: int = 0, tolerance: float = 1e-9, zero: Sequence[str] = (),
                **options: Any) -> Report:
    """check_function for a layer with weights, at noisy weights: x and every weight, full Jacobian. options: to forward."""
    forward, backward, names, weights = noisy_pair(layer, seed, **options)
    return check_function(forward, backward, x, *weights, names=names, tolerance=tolerance, zero=zero)


def check_model(model: Any, images: Array, seed: int = 0, directions: int = 4, tolerance: float = 1e-8,
                zero: Sequence[str] = (), **options: Any) -> Report:
    """A whole model at noisy weights: the derivatives of a random `dy` . logits along `directions` random directions in the
    images, in each weight, and in everything together, where errors of one kind cannot hide behind another."""
    rng = np.random.default_rng((seed, 2))
    params, images = noisy(model, seed), np.asarray(images, np.float64)

    def logits(values: Buffer, x: Array) -> tuple[Array, Any]:
        return model.forward(values, x, **{key: v() if callable(v) else v for key, v in options.items()})

    y, cache = logits(params, images)
    dy = rng.normal(size=y.shape)
    grads = params.zeros_like()
    dimages = model.backward(dy, cache, grads, need_dx=True)

    names = ["images", *params.names(), "all together"]
    analytic, numeric = np.zeros((2, len(names), directions), WIDE)
    wide, wide_images = params.astype(WIDE), images.astype(WIDE)
    for i, name in enumerate(names):
        for k in range(directions):
            u_images, u = np.zeros_like(images), params.zeros_like()
            if name in ("images", "all together"):
                u_images += rng.normal(size=images.shape)
            if name == "all together":
                u.flat += rng.normal(size=u.flat.shape)
            elif name != "images":
                u[name] = rng.normal(size=u[name].shape)
            length = np.sqrt(np.sum(u_images**2) + u.flat @ u.flat)
            u_images, u_flat = u_images / length, u.flat / length
            analytic[i, k] = np.sum(dimages * u_images) + grads.flat @ u_flat

            def f(t: Array, u_images: Array = u_images, u_flat: Array = u_flat) -> Array:
                moved = Buffer(params.params, wide.flat + t * u_flat)
                return np.asarray(np.sum(dy * logits(moved, wide_images + t * u_images)[0]))

            numeric[i, k] = difference(f, np.array(0.0), np.array(1.0), MODEL_STEP)
    return make_report(names, list(analytic), list(numeric), tolerance, zero)
