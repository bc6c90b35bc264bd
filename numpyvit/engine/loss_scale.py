"""Loss scaling, for products in float16, which knows no number between 0 and 6e-8 (Micikevicius et al., 2018, "Mixed
Precision Training", section 3.2)."""

from typing import Any

from ..backend.device import number
from ..params import Buffer

FIRST, MOST, PATIENCE = 2.0**16, 2.0**24, 2000


class LossScale:
    """The loss counts `value` times, so that its small gradients are not lost, and the gradients are divided by it in the
    end. Where one is infinite or NaN, the step counts as one of no gradient at all, and the value is halved from then on;
    after PATIENCE steps that went well it is doubled. All of it happens on the GPU."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self.load(None)

    def state(self) -> list[float]:
        """What a checkpoint keeps."""
        return [number(self.value), number(self.good)]

    def load(self, state: list[float] | None) -> None:
        """The inverse of state(); None: of a run that had none."""
        value, good = state or (FIRST, 0.0)
        self.value, self.good = (
            self.xp.asarray(float(value), "f4"),
            self.xp.asarray(float(good), "f4"),
        )

    def unscale(self, grads: Buffer) -> None:
        """The gradients of the loss itself, in place, and the next value."""
        xp, g = self.xp, grads.flat
        fine = xp.isfinite(g).all()
        g[...] = xp.where(fine, g / self.value, 0)
        good = xp.where(fine, self.good + 1, 0)
        grow = good >= PATIENCE
        self.value[...] = xp.where(
            fine, xp.minimum(xp.where(grow, 2 * self.value, self.value), MOST), self.value / 2
        )
        self.good[...] = xp.where(grow, 0, good)
