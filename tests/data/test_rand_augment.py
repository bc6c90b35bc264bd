"""RandAugment's operations on colour against Pillow's, its maps against the plain meaning, and the whole by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from numpyvit.data import rand_augment as ra
from numpyvit.data import randaugment
from numpyvit.data.augment import warp
from numpyvit.testing import seeds


def photographs(seed, B=4, H=33, W=31, C=3):
    """Some with few values, some with a narrow range, one of one colour: where tables go wrong. Each has more than 255
    pixels, without which equalize leaves it as it is."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (B, H, W, C), np.uint8)
    images[1] = rng.integers(100, 140, (H, W, C))
    images[2] = 50 * rng.integers(0, 2, (H, W, C))
    images[3] = rng.integers(0, 256)
    return images


def pillow(name, image, s):
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    factor = 1 + 0.9 * s
    done = {
        "autocontrast": lambda: ImageOps.autocontrast(picture),
        "equalize": lambda: ImageOps.equalize(picture),
        "posterize": lambda: ImageOps.posterize(picture, 8 - round(4 * abs(s))),
        "solarize": lambda: ImageOps.solarize(picture, 256 * (1 - abs(s))),
        "brightness": lambda: ImageEnhance.Brightness(picture).enhance(factor),
        "contrast": lambda: ImageEnhance.Contrast(picture).enhance(factor),
        "colour": lambda: ImageEnhance.Color(picture).enhance(factor),
        "sharpness": lambda: ImageEnhance.Sharpness(picture).enhance(factor),
    }[name]()
    return np.asarray(done).reshape(image.shape)


@given(st.sampled_from(ra.COLOUR), st.sampled_from([1, 3]), seeds)
def test_colours_as_pillow_has_them(operation, C, seed):
    images = photographs(seed, C=C)
    strength = np.random.default_rng(seed).uniform(-1, 1, len(images))
    result = operation(images, strength)
    for image, found, s in zip(images, result, strength, strict=True):
        off = found.astype(int) - pillow(operation.__name__, image, s)
        # A product that is a whole number but for its last bit may be cut off to either side of it
        assert np.abs(off).max() <= 1
        assert np.mean(off != 0) <= 0.01


@pytest.mark.parametrize(
    ("kind", "meaning"),
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
)
@given(s=st.floats(-1, 1))
def test_what_the_maps_mean(kind, meaning, s):
    matrix = ra.maps(np.array([kind]), np.array([s]), (1, 20, 10, 3))[0]
    for y, x in ((0.0, 0.0), (3.0, -2.0), (-9.5, 4.5)):
        assert np.allclose(matrix @ (y, x, 1), meaning(y, x, s, 20, 10))


@given(st.integers(1, 3), st.floats(0, 10), seeds)
def test_image_by_image(operations, magnitude, seed):
    """The batch at once is what one image after the other is, with the same draws."""
    images = photographs(seed, B=30)
    result = randaugment(operations, magnitude)(images, np.random.default_rng(seed))
    rng, wanted = np.random.default_rng(seed), images.copy()
    for _ in range(operations):
        kinds, signs = rng.integers(0, 14, 30), rng.integers(0, 2, 30) * 2.0 - 1
        for b in range(30):
            one, s = wanted[b : b + 1], signs[b : b + 1] * (magnitude / 10)
            if kinds[b] < 8:
                wanted[b : b + 1] = ra.COLOUR[kinds[b]](one, s)
            elif kinds[b] > 8:
                wanted[b : b + 1] = warp(one, ra.maps(kinds[b : b + 1] - 9, s, one.shape))
    assert np.array_equal(result, wanted)


@given(st.sampled_from([2, 4]), seeds)
def test_other_channels_keep_their_own_values(C, seed):
    images = photographs(seed, C=C)
    assert np.array_equal(ra.colour(images, -np.ones(4)), images)
    faded = ra.contrast(images, np.full(4, -1.0)).astype(int)  # nearly to the mean of all channels
    assert np.abs(faded - images.mean((1, 2, 3), keepdims=True)).max() < 28


def test_every_operation_comes_and_magnitude_is_strength():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (500, 8, 8, 3), np.uint8)
    change = [
        np.abs(randaugment(2, m)(images, np.random.default_rng(1)).astype(int) - images).mean()
        for m in (1, 5, 10)
    ]
    assert change[0] < change[1] < change[2]
