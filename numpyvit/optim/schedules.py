"""Learning rates as functions of the step."""

import math
from collections.abc import Callable

from ..errors import check_choice, check_int, check_number

# The factor of the peak rate, from 1 to 0, by the fraction of the run that is done.
SHAPES: dict[str, Callable[[float], float]] = {
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),  # Loshchilov and Hutter (2017)
    "linear": lambda done: 1 - done,
    "constant": lambda done: 1.0,
}


def schedule(
    shape: str, peak: float, warmup: int, steps: int, final: float = 0.0
) -> Callable[[int], float]:
    """Return the learning rate as a function of the step, 0 to steps - 1.

    It rises linearly to `peak` over `warmup` steps and then falls to `final` along one of
    SHAPES. The warm-up is needed because AdamW's second moment is unreliable in the first
    steps. Raises UserError for an unknown shape and for negative numbers.
    """
    check_choice("schedule", shape, SHAPES)
    check_number("peak", peak, least=0)
    check_number("final", final, least=0)
    check_number("warmup", warmup, least=0)
    check_int("steps", steps)

    def rate(step: int) -> float:
        check_number("step", step, least=0)
        if step < warmup:
            return peak * (step + 1) / warmup
        done = min((step - warmup) / max(steps - warmup, 1), 1.0)
        return final + (peak - final) * SHAPES[shape](done)

    return rate


def warmup_cosine(
    peak: float, warmup: int, steps: int, final: float = 0.0
) -> Callable[[int], float]:
    """Return schedule("cosine", ...), the usual schedule."""
    return schedule("cosine", peak, warmup, steps, final)
