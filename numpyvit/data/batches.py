"""Batches as a function of seed and step, so that a run can resume at any step."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backend.arrays import Array, get_xp
from ..errors import UserError
from ..seeds import AUGMENT, ORDER
from .augment import Augment
from .dataset import Dataset, normalise
from .mix import Mix


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Return the number of batches that contain every image once.

    The last batch may be smaller than the others.
    """
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
    """Yield batches of normalised images and their labels, in a new order in each epoch.

    A batch is (images (B, H, W, C) in dtype, labels (B,)), or with `mix`
    (images, targets (B, K)). The first is that of step `start_step`.

    The order depends on (seed, epoch) and the augmentation on (seed, step). The batch
    of a step is therefore the same whether or not the iteration started at step 0.
    Raises UserError for a batch size below 1.
    """
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}: it must be 1 or more")
    xp = get_xp(data.images)
    steps = steps_per_epoch(len(data), batch_size)
    order: Array = np.empty(0)
    for step in range(start_step, epochs * steps):
        epoch, i = divmod(step, steps)
        if i == 0 or step == start_step:
            order = np.random.default_rng((seed, ORDER, epoch)).permutation(len(data))
        index = xp.asarray(order[i * batch_size : (i + 1) * batch_size])
        images = data.images[index]
        labels = data.labels[index]
        rng = np.random.default_rng((seed, AUGMENT, step))
        if augment:
            images = augment(images, rng)
        if mix:
            targets = xp.zeros((len(index), len(data.classes)), np.float32)
            targets[xp.arange(len(index)), labels] = 1
            images, labels = mix(images, targets, rng)
        yield normalise(images, data.mean, data.std, dtype), labels
