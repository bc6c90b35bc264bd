"""Learning rates as functions of the step."""

import math
from collections.abc import Callable

SHAPES: dict[
    str, Callable[[float], float]
] = {  # from 1 to 0, over the share of the run that is done
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),  # Loshchilov and Hutter (2017)
    "linear": lambda done: 1 - done,
    "constant": lambda done: 1.0,
}


def schedule(
    shape: str, peak: float, warmup: int, steps: int, final: float = 0.0
) -> Callable[[int], float]:
    """The rate at step 0 .. steps-1: linearly up to `peak` over `warmup` steps, then down to `final` along one of SHAPES.

    Warm-up, since AdamW's second moment means little in the first steps.
    """

    def rate(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / warmup
        done = min((step - warmup) / max(steps - warmup, 1), 1.0)
        return final + (peak - final) * SHAPES[shape](done)

    return rate


def warmup_cosine(
    peak: float, warmup: int, steps: int, final: float = 0.0
) -> Callable[[int], float]:
    """schedule("cosine", ...), the usual one."""
    return schedule("cosine", peak, warmup, steps, final)
