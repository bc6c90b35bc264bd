import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit import UserError
from numpyvit.data import hold_out, normalise
from numpyvit.data.dataset import make_dataset
from numpyvit.testing import seeds


def random_set(n, seed, channels=2, classes=3):
    rng = np.random.default_rng(seed)
    return make_dataset(
        "some",
        rng.integers(0, 256, (n, 4, 3, channels), np.uint8),
        rng.integers(0, classes, n),
        tuple(map(str, range(classes))),
    )


@given(st.integers(2, 50), st.integers(1, 3), seeds)
def test_normalised_pixels_have_mean_0_and_standard_deviation_1(n, channels, seed):
    data = random_set(n, seed, channels)
    x = normalise(data.images, data.mean, data.std, np.float64)
    assert np.allclose(x.mean((0, 1, 2)), 0, atol=1e-9)
    assert np.allclose(x.std((0, 1, 2)), 1)
    assert normalise(data.images, data.mean, data.std).dtype == np.float32
    assert np.allclose(x, (data.images / 255 - data.mean) / data.std)


def test_a_constant_channel_does_not_divide_by_zero():
    data = make_dataset("flat", np.full((3, 2, 2, 1), 7, np.uint8), np.zeros(3, int), ("a", "b"))
    assert not normalise(data.images, data.mean, data.std, np.float64).round(9).any()


@given(st.integers(20, 60), st.floats(0.1, 0.9), seeds)
def test_hold_out_takes_the_fraction_of_each_class(n, fraction, seed):
    data = random_set(n, seed)
    rest, held_out = hold_out(data, fraction, seed)
    assert len(rest) + len(held_out) == n
    for k in range(3):
        of_class = np.sum(data.labels == k)
        expected = min(round(fraction * of_class), of_class - 1)  # at least one stays
        assert np.sum(held_out.labels == k) == expected
    both = np.concatenate([rest.images, held_out.images]).reshape(n, -1)
    assert sorted(map(bytes, both)) == sorted(map(bytes, data.images.reshape(n, -1)))
    again = hold_out(data, fraction, seed)[1]
    assert np.array_equal(again.images, held_out.images)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 1e-9])
def test_impossible_fractions_are_refused(fraction):
    with pytest.raises(UserError, match=r"between 0 and 1|leaves one part empty"):
        hold_out(random_set(20, 0), fraction)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((3, 2, 2, 1), np.uint8), [0, 1], "3 images but 2 labels"),
        (np.zeros((0, 2, 2, 1), np.uint8), [], "there are no images"),
        (np.zeros((2, 2, 2, 1), np.uint8), [0, 5], "labels go from 0 to 5, wanted 0 to 1"),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused(images, labels, message):
    with pytest.raises(UserError, match=message):
        make_dataset("some", images, np.array(labels, int), ("a", "b"))


def test_floats_are_not_normalised_twice():
    with pytest.raises(UserError, match="wanted uint8"):
        normalise(np.zeros((1, 2, 2, 1), np.float32), np.zeros(1), np.ones(1))


def test_hints_for_images_of_other_dtypes():
    labels = np.arange(4) % 2
    for dtype, hint in (("u2", "images / 257"), ("f4", "255 \\* images"), ("i8", "astype")):
        with pytest.raises(UserError, match=hint):
            make_dataset("mine", np.zeros((4, 8, 8), dtype), labels)
    with pytest.raises(UserError, match="masked"):
        make_dataset("mine", np.ma.masked_array(np.zeros((4, 8, 8), np.uint8)), labels)
