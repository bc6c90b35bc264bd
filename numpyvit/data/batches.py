"""Batches as a function of seed and step, so that a run can resume at any step."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backend.arrays import Array, check_dtype, get_xp
from ..errors import check_function, check_int, check_type
from ..seeds import AUGMENT, ORDER
from .augment import Augment
from .dataset import Dataset, normalise
from .mix import Mix


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Return the number of batches that contain every image once.

    The last batch may be smaller than the others.
    """
    images = check_int("images", images)
    batch_size = check_int("batch_size", batch_size, least=1)
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
    """Return an iterator over batches of normalised images and their labels.

    The images have a new order in each epoch. A batch is (images (B, H, W, C) in dtype,
    labels (B,)), or with `mix` (images, targets (B, K)). The first is that of step
    `start_step`.

    The order depends on (seed, epoch) and the augmentation on (seed, step). The batch
    of a step is therefore the same whether or not the iteration started at step 0.
    Raises UserError at once for arguments that make no sense, such as a batch size of 0.
    """
    check_type("data", data, Dataset, "a Dataset, such as data.digits() and make_dataset return")
    batch_size = check_int("batch_size", batch_size, least=1)
    epochs = check_int("epochs", epochs)
    seed = check_int("seed", seed, most=2**128)
    if augment is not None:
        check_function("augment", augment, "an augmentation, such as flip()")
    if mix is not None:
        check_function("mix", mix, "a mix, such as mixup(0.2)")
    start_step = check_int("start_step", start_step)
    check_dtype("dtype", dtype)
    return make_batches(data, batch_size, epochs, seed, augment, mix, start_step, dtype)


def make_batches(
    data: Dataset,
    batch_size: int,
    epochs: int,
    seed: int,
    augment: Augment | None,
    mix: Mix | None,
    start_step: int,
    dtype: Any,
) -> Iterator[tuple[Array, Array]]:
    """Yield the batches that `batches` describes."""
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
