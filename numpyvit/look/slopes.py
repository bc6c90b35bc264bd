"""Prove the gradients of a trace: nudge numbers, and compare with the backward pass.

How much the loss changes for a small nudge of a number is the derivative of the loss
with respect to it. The backward pass computes the same derivative if the array that the
number belongs to has a gradient. Everything here is computed in float64 (probe.py).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend.arrays import Array
from ..backend.ops import textbook
from ..errors import UserError
from ..gradcheck.differences import differentiate, first_step, noise_of
from ..params import Buffer
from ..vit import ViT
from .broken import broken
from .probe import Place, Probe
from .recorder import Recorder
from .trace import Trace, backward_pass, forward_pass

PROVEN = 1e-6  # the largest relative error with which a gradient counts as proven
PRECISION = 1e-10  # the error of a slope that is aimed at, as a fraction of the slope


def gradient_steps(
    model: ViT, params: Buffer, image: Array, label: int, seed: int = 0
) -> dict[int, int]:
    """Return, for steps of the forward pass, the backward step that is its gradient.

    Each of them is proven: the array of the backward step, multiplied by a random
    direction, equals the slope of the loss along that direction to PROVEN of its value.
    A step is left out if no array of the backward pass is its gradient, as for the
    variance in a layer norm, if it is a constant, or if the loss does not depend on it
    measurably. Of several arrays with the right values, one in the same layer is
    chosen, or in the innermost layer around it; of these, one that was computed there
    rather than passed on, and the last of them.
    """
    probe = Probe(model, params, image, label)
    recorded = probe.trace()
    same = first_of_each_array(probe, recorded)
    rng = np.random.default_rng(seed)
    matches: list[list[int]] = []
    for n in range(recorded.forward):
        matches.append(matches[same[n]] if same[n] < n else proven(probe, recorded, n, rng))

    def rank(n: int, found: int) -> tuple[int, bool, int]:
        layer, other = (recorded.steps[i].layer for i in (n, found))
        return common_parts(layer, other), same[found] == found, found

    return {n: max(found, key=lambda i: rank(n, i)) for n, found in enumerate(matches) if found}


def first_of_each_array(probe: Probe, recorded: Trace) -> list[int]:
    """Return, for each step, the first step that is the same array.

    Steps are the same array if they have the same memory and nothing has changed there.
    """
    arrays: list[Array] = []  # they are kept, so that no memory is used twice
    with textbook(), Recorder(lambda number, x: arrays.append(x)).recording():
        _, _, cache = forward_pass(probe.model, probe.weights, probe.image, probe.label)
        backward_pass(probe.model, cache, probe.weights.zeros_like())
    latest: dict[tuple, int] = {}
    first: list[int] = []
    for n, x in enumerate(arrays):
        memory = (x.__array_interface__["data"][0], x.shape, x.strides)
        before = latest.get(memory, n)
        is_same = np.array_equal(recorded.steps[before].value, recorded.steps[n].value)
        latest[memory] = n
        first.append(first[before] if before < n and is_same else n)
    return first


def proven(probe: Probe, recorded: Trace, n: int, rng: np.random.Generator) -> list[int]:
    """Return the backward steps that are proven to be the gradient of step n."""
    x = recorded.steps[n].value
    backward = range(recorded.forward, len(recorded.steps))
    candidates = [i for i in backward if recorded.steps[i].value.shape == x.shape]
    direction = rng.normal(size=x.shape) * (math.sqrt(np.mean(np.square(x))) or 1.0)
    products = {i: float(np.vdot(direction, recorded.steps[i].value)) for i in candidates}
    if not any(products.values()):
        return []

    def f(t: float) -> float:
        return probe.loss(n, t * direction)

    def found(slope: float, error: float) -> list[int]:
        return [i for i, p in products.items() if abs(p - slope) <= error * abs(slope)]

    try:
        h = 1e-5
        slope = (f(h) - f(-h)) / (2 * h)
        if slope and found(slope, 1e-2) and not found(slope, PROVEN):
            h = 2e-3  # a larger step, with a formula whose error shrinks with its fourth power
            slope = (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)
    except UserError:  # a constant
        return []
    return found(slope, PROVEN) if slope else []


def common_parts(layer: str, other: str) -> int:
    """Return how many parts of a layer's name another one shares, if it is around it.

    "blocks.0" is around "blocks.0.norm1" and shares two parts with it. For a layer that
    is not around the first one the result is -1.
    """
    if other and layer != other and not layer.startswith(f"{other}."):
        return -1
    return other.count(".") + 1 if other else 0


@dataclass(frozen=True)
class Slope:
    """The slope of the loss for one number, by differences and by the backward pass.

    value: the number itself. deltas, losses: what was added to it for a curve of five
    points, and the losses. numeric: the slope by extrapolated differences. analytic:
    the slope from the backward pass, None if it does not compute this one. digits: how
    many decimal digits of the two agree, None without an analytic slope.
    """

    value: float
    deltas: list[float]
    losses: list[float]
    numeric: float
    analytic: float | None
    digits: float | None


def slope_of(
    probe: Probe, place: Place, index: int, steps: dict[int, int], mistake: str | None = None
) -> Slope:
    """Return the slope of the loss for element `index`, in C order, of an array.

    steps: the result of gradient_steps. mistake: one that is made in the backward pass
    (broken.py), to show how it is found. Raises UserError for an array that is a
    constant, and for an index outside of it.
    """
    x = probe.array(place)
    if not 0 <= index < x.size:
        raise UserError(f"the index is {index}, but the array has {x.size} numbers")
    value = float(x.flat[index])
    size = math.sqrt(np.mean(np.square(x)))
    one = np.zeros(x.shape)
    one.flat[index] = 1

    def f(i: int, t: Any) -> Array:
        return np.array([probe.loss(place, t * one)])

    deltas = [float(k * 0.1 * (max(abs(value), size) or 1.0)) for k in (-2, -1, 0, 1, 2)]
    losses = [probe.loss(place, delta * one) for delta in deltas]
    numeric = numeric_slope(probe, f, value, losses[2])
    with broken(mistake):
        gradient = probe.gradient(place, steps)
    if gradient is None:
        return Slope(value, deltas, losses, numeric, None, None)
    analytic = float(gradient.flat[index])
    # A slope that is zero, such as that of a bias of attention's keys, agrees if it is
    # zero in comparison with the others of its array.
    scale = max(abs(numeric), abs(analytic), 1e-6 * float(np.linalg.norm(gradient)))
    return Slope(value, deltas, losses, numeric, analytic, digits(numeric - analytic, scale))


def numeric_slope(probe: Probe, f: Callable[[int, Any], Array], value: float, loss: float) -> float:
    """Return the derivative of f(0, t) at t = 0 by extrapolated differences."""
    image = probe.image.copy()

    def rounded(r: Array) -> Array:
        probe.image = image * (1 + np.finfo(np.float64).eps * r.reshape(image.shape))
        try:
            return np.array([probe.loss()])
        finally:
            probe.image = image

    noise = noise_of(rounded, image.size, 0)
    h = 1e-3 * max(abs(value), 1.0)
    rough = abs(float((f(0, h) - f(0, -h))[0])) / (2 * h)
    start = first_step(np.array([value]), 0)
    target = np.array([PRECISION * rough + noise[0]])
    slopes, _, _ = differentiate(f, np.array([loss]), start, noise, target)
    return float(slopes[0, 0])


def digits(difference: float, scale: float) -> float:
    """Return how many digits agree: -log10 of the relative difference, 0 to 16."""
    if not difference:
        return 16.0
    return min(16.0, max(0.0, -math.log10(abs(difference) / scale))) if scale else 0.0
