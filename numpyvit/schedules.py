"""Learning rates as functions of the step."""

import math
from collections.abc import Callable


def warmup_cosine(peak: float, warmup: int, steps: int, final: float = 0.0) -> Callable[[int], float]:
    """The rate at step 0 .. steps-1: linearly up to `peak` over `warmup` steps, then half a cosine down to `final`.

    Warm-up, since AdamW's second moment means little in the first steps; the cosine of Loshchilov and Hutter (2017).
    """
    def rate(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / warmup
        done = min((step - warmup) / max(steps - warmup, 1), 1.0)
        return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * done))
    return rate
