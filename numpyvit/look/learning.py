"""Steps of plain SGD on one image, and what they do to the loss and the weights."""

from typing import Any

import numpy as np

from ..backend.arrays import Array
from ..errors import UserError
from ..losses import cross_entropy
from ..params import Buffer
from ..vit import ViT
from .broken import BACKWARD


def descend(
    model: ViT, weights: Buffer, image: Array, label: int, lr: float, steps: int
) -> tuple[list[float], Array]:
    """Change the weights by steps of SGD on one image (H, W, C), normalised.

    Returns the losses and the logits (steps + 1, K) before the first step and after
    each. Raises UserError if the weights become infinite.
    """
    losses = []
    all_logits = []
    with np.errstate(all="ignore"):
        for n in range(steps + 1):
            grads = weights.zeros_like()
            with BACKWARD:
                logits, cache = model.forward(weights, image[None])
                loss, dlogits = cross_entropy(logits, np.array([label]))
                model.backward(dlogits, cache, grads)
            losses.append(float(loss))
            all_logits.append(logits)
            if n < steps:
                weights.flat -= weights.flat.dtype.type(lr) * grads.flat
    if not (np.isfinite(losses).all() and np.isfinite(weights.flat).all()):
        raise UserError("the weights have become infinite: choose a smaller learning rate")
    return losses, np.concatenate(all_logits)


def most_moved(before: Buffer, after: Buffer, count: int) -> list[dict[str, Any]]:
    """Return the weights that differ most, the largest difference first."""
    moved = []
    for name in before:
        a, b = before[name].ravel(), after[name].ravel()
        change = abs(b - a)
        for i in change.argsort()[::-1][:count].tolist():
            fields = {"weight": name, "index": i, "from": float(a[i]), "to": float(b[i])}
            moved.append((float(change[i]), fields))
    moved.sort(key=lambda pair: -pair[0])
    return [fields for _, fields in moved[:count]]
