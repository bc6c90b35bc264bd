"""Batches as a function of the seed and the step, so that a run can be taken up at any step."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backend.arrays import Array, get_xp
from ..errors import UserError
from ..params import AUGMENT, ORDER
from .augment import Augment
from .dataset import Dataset, normalise
from .mix import Mix


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Every image once; the last batch may be smaller."""
    return -(-images // batch_size)


def batches(
    data: Dataset,
    batch_size: int,
    epochs: int = 1,
    seed: int = 0,
    augment: Augment | None = None,
    mix: Mix | None = None,
    start_step: int = 0,
    dtype: Any = np.float32,
) -> Iterator[tuple[Array, Array]]:
    """Yield (images (B, H, W, C) normalised, labels (B,), or targets (B, K) where they are mixed), each epoch in a new
    order, from step `start_step` on.

    The order is drawn from (seed, epoch), augmentation and mixing from (seed, step): batch number `step` is the same
    however one got there.
    """
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}: it must be 1 or more")
    xp, steps = get_xp(data.images), steps_per_epoch(len(data), batch_size)
    order: Array = np.empty(0)
    for step in range(start_step, epochs * steps):
        epoch, i = divmod(step, steps)
        if i == 0 or step == start_step:
            order = np.random.default_rng((seed, ORDER, epoch)).permutation(len(data))
        index = xp.asarray(order[i * batch_size : (i + 1) * batch_size])
        images, labels = data.images[index], data.labels[index]
        rng = np.random.default_rng((seed, AUGMENT, step))
        if augment:
            images = augment(images, rng)
        if mix:
            targets = xp.zeros((len(index), len(data.classes)), np.float32)
            targets[xp.arange(len(index)), labels] = 1
            images, labels = mix(images, targets, rng)
        yield normalise(images, data.mean, data.std, dtype), labels
