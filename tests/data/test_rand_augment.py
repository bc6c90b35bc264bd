"""RandAugment, compared with Pillow, with formulas and with a plain loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from numpyvit.data import rand_augment as ra
from numpyvit.data import randaugment
from numpyvit.data.augment import warp
from numpyvit.testing import seeds


def varied_images(seed, B=4, H=33, W=31, C=3):
    """Return random images, some with a narrow range, two values or a single colour.

    Each has more than 255 pixels; equalize does not change smaller images.
    """
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (B, H, W, C), np.uint8)
    images[1] = rng.integers(100, 140, (H, W, C))
    images[2] = 50 * rng.integers(0, 2, (H, W, C))
    images[3] = rng.integers(0, 256)
    return images


def pillow(name, image, s):
    """Return the result of Pillow's operation on one image."""
    original = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    factor = 1 + 0.9 * s
    result = {
        "autocontrast": lambda: ImageOps.autocontrast(original),
        "equalize": lambda: ImageOps.equalize(original),
        "posterize": lambda: ImageOps.posterize(original, 8 - round(4 * abs(s))),
        "solarize": lambda: ImageOps.solarize(original, 256 * (1 - abs(s))),
        "brightness": lambda: ImageEnhance.Brightness(original).enhance(factor),
        "contrast": lambda: ImageEnhance.Contrast(original).enhance(factor),
        "colour": lambda: ImageEnhance.Color(original).enhance(factor),
        "sharpness": lambda: ImageEnhance.Sharpness(original).enhance(factor),
    }[name]()
    return np.asarray(result).reshape(image.shape)


@given(st.sampled_from(ra.COLOUR), st.sampled_from([1, 3]), seeds)
def test_colour_operations_equal_those_of_pillow(operation, C, seed):
    images = varied_images(seed, C=C)
    strength = np.random.default_rng(seed).uniform(-1, 1, len(images))
    results = operation(images, strength)
    for image, result, s in zip(images, results, strength, strict=True):
        difference = result.astype(int) - pillow(operation.__name__, image, s)
        # A product that is nearly an integer may be truncated to either side of it.
        assert np.abs(difference).max() <= 1
        assert np.mean(difference != 0) <= 0.01


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        (
            0,
            lambda y, x, s, H, W: (
                np.cos(np.radians(30 * s)) * y - np.sin(np.radians(30 * s)) * x,
                np.sin(np.radians(30 * s)) * y + np.cos(np.radians(30 * s)) * x,
            ),
        ),
        (1, lambda y, x, s, H, W: (y, x + 0.3 * s * y)),
        (2, lambda y, x, s, H, W: (y + 0.3 * s * x, x)),
        (3, lambda y, x, s, H, W: (y, x + 0.45 * W * s)),
        (4, lambda y, x, s, H, W: (y + 0.45 * H * s, x)),
    ],
    ids=["rotate", "shear x", "shear y", "translate x", "translate y"],
)
@given(s=st.floats(-1, 1))
def test_matrices_equal_the_formulas(kind, formula, s):
    matrix = ra.warp_matrices(np.array([kind]), np.array([s]), (1, 20, 10, 3))[0]
    for y, x in ((0.0, 0.0), (3.0, -2.0), (-9.5, 4.5)):
        assert np.allclose(matrix @ (y, x, 1), formula(y, x, s, 20, 10))


@given(st.integers(1, 3), st.floats(0, 10), seeds)
def test_a_batch_equals_its_images_one_by_one(operations, magnitude, seed):
    images = varied_images(seed, B=30)
    result = randaugment(operations, magnitude)(images, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    expected = images.copy()
    for _ in range(operations):
        kinds = rng.integers(0, 14, 30)
        signs = rng.integers(0, 2, 30) * 2.0 - 1
        for b in range(30):
            image = expected[b : b + 1]
            s = signs[b : b + 1] * (magnitude / 10)
            if kinds[b] < 8:
                expected[b : b + 1] = ra.COLOUR[kinds[b]](image, s)
            elif kinds[b] > 8:
                matrices = ra.warp_matrices(kinds[b : b + 1] - 9, s, image.shape)
                expected[b : b + 1] = warp(image, matrices)
    assert np.array_equal(result, expected)


@given(st.sampled_from([2, 4]), seeds)
def test_images_that_are_neither_grey_nor_rgb(C, seed):
    images = varied_images(seed, C=C)
    assert np.array_equal(ra.colour(images, -np.ones(4)), images)
    faded = ra.contrast(images, np.full(4, -1.0)).astype(int)  # close to the image's mean
    assert np.abs(faded - images.mean((1, 2, 3), keepdims=True)).max() < 28


def test_a_larger_magnitude_changes_images_more():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (500, 8, 8, 3), np.uint8)
    changes = []
    for magnitude in (1, 5, 10):
        result = randaugment(2, magnitude)(images, np.random.default_rng(1))
        changes.append(np.abs(result.astype(int) - images).mean())
    assert changes[0] < changes[1] < changes[2]
