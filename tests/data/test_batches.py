import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit import UserError
from numpyvit.data import (
    batches,
    compose,
    cutmix,
    erase,
    mixup,
    normalise,
    one_of,
    randaugment,
    shift,
    steps_per_epoch,
)
from numpyvit.data.dataset import make_dataset
from numpyvit.testing import seeds


def numbered(n):
    """Return a data set of n images whose first pixel is their number."""
    images = np.zeros((n, 3, 3, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(n)
    return make_dataset("some", images, np.arange(n) % 3, ("a", "b", "c"))


@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 3), seeds)
def test_each_epoch_has_every_image_once_with_its_label(n, size, epochs, seed):
    data = numbered(n)
    first_pixels = normalise(data.images, data.mean, data.std)[:, 0, 0, 0]
    number = {float(pixel): i for i, pixel in enumerate(first_pixels)}
    seen = []
    for images, labels in batches(data, size, epochs, seed):
        index = [number[float(pixel)] for pixel in images[:, 0, 0, 0]]
        assert data.labels[index].tolist() == labels.tolist()
        assert images.dtype == np.float32
        seen.append(index)
    assert len(seen) == epochs * steps_per_epoch(n, size)
    for e in range(epochs):
        of_epoch = seen[e * len(seen) // epochs : (e + 1) * len(seen) // epochs]
        assert sorted(i for index in of_epoch for i in index) == list(range(n))


@given(st.integers(1, 20), st.integers(1, 8), st.integers(0, 30), seeds)
def test_a_batch_is_the_same_from_any_start_step(n, size, start, seed):
    data = numbered(n)
    options = {
        "augment": compose(shift(1), randaugment(2), erase(0.5)),
        "mix": one_of(mixup(0.5), cutmix(1.0)),
    }
    every = list(batches(data, size, 3, seed, **options))
    rest = list(batches(data, size, 3, seed, **options, start_step=start))
    assert len(rest) == max(len(every) - start, 0)
    for (images, targets), (images2, targets2) in zip(every[start:], rest, strict=True):
        assert np.array_equal(images, images2)
        assert np.array_equal(targets, targets2)


def test_the_order_depends_on_the_epoch_and_the_seed():
    data = numbered(40)
    orders = {
        tuple(images[:, 0, 0, 0].tolist())
        for seed in (0, 1)
        for images, _ in batches(data, 40, 2, seed)
    }
    assert len(orders) == 4


def test_a_batch_size_of_zero_is_refused():
    with pytest.raises(UserError, match="batch_size is 0"):
        next(batches(numbered(3), 0))


def test_a_mix_receives_one_hot_targets():
    data = numbered(10)

    def mix(images, targets, rng):
        return images[::-1], 0.5 * targets

    ((images, targets),) = batches(data, 10, seed=3, mix=mix)
    ((plain, labels),) = batches(data, 10, seed=3)
    assert np.array_equal(images, plain[::-1])
    assert np.array_equal(targets, 0.5 * np.eye(3)[labels])
    assert targets.dtype == np.float32
