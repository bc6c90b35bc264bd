"""Loss scaling for matrix products in float16, whose smallest positive number is 6e-8.

Source: Micikevicius et al., 2018, "Mixed Precision Training", section 3.2.
"""

from typing import Any

from ..backend.device import to_float
from ..params import Buffer

FIRST = 2.0**16
MOST = 2.0**24
PATIENCE = 2000  # good steps until the scale is doubled


class LossScale:
    """Multiplies the loss by `value` so that small gradients do not vanish in float16.

    The gradients are divided by the same value in the end. If one of them is infinite
    or NaN, the step counts as one whose gradients are zero and the value is halved;
    after PATIENCE good steps in a row it is doubled. All of this is computed on the
    GPU, without waiting for it.
    """

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self.load(None)

    def state(self) -> list[float]:
        """Return what a checkpoint stores."""
        return [to_float(self.value), to_float(self.good)]

    def load(self, state: list[float] | None) -> None:
        """Restore what `state` returned; None starts from the beginning."""
        value, good = state or (FIRST, 0.0)
        self.value = self.xp.asarray(float(value), "f4")
        self.good = self.xp.asarray(float(good), "f4")

    def unscale(self, grads: Buffer) -> None:
        """Divide the gradients by the scale, in place, and choose the next scale."""
        xp = self.xp
        g = grads.flat
        fine = xp.isfinite(g).all()
        g[...] = xp.where(fine, g / self.value, 0)
        good = xp.where(fine, self.good + 1, 0)
        grow = good >= PATIENCE
        after_good = xp.minimum(xp.where(grow, 2 * self.value, self.value), MOST)
        self.value[...] = xp.where(fine, after_good, self.value / 2)
        self.good[...] = xp.where(grow, 0, good)
