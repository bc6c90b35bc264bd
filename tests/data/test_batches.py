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


def draw(n):
    """n images that are told apart by their first pixel."""
    images = np.zeros((n, 3, 3, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(n)
    return make_dataset("some", images, np.arange(n) % 3, ("a", "b", "c"))


@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 3), seeds)
def test_every_image_once_an_epoch_with_its_label(n, size, epochs, seed):
    data = draw(n)
    key = {
        float(v): i for i, v in enumerate(normalise(data.images, data.mean, data.std)[:, 0, 0, 0])
    }
    seen = []
    for images, labels in batches(data, size, epochs, seed):
        index = [key[float(v)] for v in images[:, 0, 0, 0]]
        assert data.labels[index].tolist() == labels.tolist()
        assert images.dtype == np.float32
        seen.append(index)
    assert len(seen) == epochs * steps_per_epoch(n, size)
    for e in range(epochs):
        epoch = [
            i
            for index in seen[e * len(seen) // epochs : (e + 1) * len(seen) // epochs]
            for i in index
        ]
        assert sorted(epoch) == list(range(n))


@given(st.integers(1, 20), st.integers(1, 8), st.integers(0, 30), seeds)
def test_batch_number_n_is_the_same_however_one_got_there(n, size, start, seed):
    data = draw(n)
    how = {
        "augment": compose(shift(1), randaugment(2), erase(0.5)),
        "mix": one_of(mixup(0.5), cutmix(1.0)),
    }
    whole = list(batches(data, size, 3, seed, **how))
    rest = list(batches(data, size, 3, seed, **how, start_step=start))
    assert len(rest) == max(len(whole) - start, 0)
    for (a, la), (b, lb) in zip(whole[start:], rest, strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(la, lb)


def test_epochs_differ_and_seeds_differ():
    data = draw(40)
    orders = {
        tuple(images[:, 0, 0, 0].tolist())
        for seed in (0, 1)
        for images, _ in batches(data, 40, 2, seed)
    }
    assert len(orders) == 4


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(UserError, match="batch_size is 0"):
        next(batches(draw(3), 0))


def test_mixing_comes_after_augmentation_and_makes_targets_of_labels():
    data = draw(10)
    ((images, targets),) = batches(
        data, 10, seed=3, mix=lambda images, targets, rng: (images[::-1], 0.5 * targets)
    )
    ((plain, labels),) = batches(data, 10, seed=3)
    assert np.array_equal(images, plain[::-1])
    assert np.array_equal(targets, 0.5 * np.eye(3)[labels])
    assert targets.dtype == np.float32
