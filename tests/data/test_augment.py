import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit import UserError
from numpyvit.data import affine, compose, erase, flip, randaugment, shift
from numpyvit.data.augment import box, warp
from numpyvit.testing import seeds

STEPS = {
    "shift": shift(2),
    "flip": flip(),
    "affine": affine(20, 0.2, 1.5, 0.3),
    "erase": erase(0.5),
    "randaugment": randaugment(2, 9),
    "all": compose(flip(), shift(1), affine(5), randaugment(1, 5), erase(0.3)),
}


def random_images(seed, B=6, H=5, W=4, C=2):
    return np.random.default_rng(seed).integers(0, 256, (B, H, W, C), np.uint8)


@given(
    st.sampled_from(list(STEPS)),
    st.integers(0, 4),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(1, 4),
    seeds,
)
def test_an_augmentation_depends_on_the_seed_only_and_changes_no_input(name, B, H, W, C, seed):
    images = random_images(seed, B, H, W, C)
    images.flags.writeable = False
    first, second = (STEPS[name](images, np.random.default_rng(seed)) for _ in range(2))
    assert first.shape == images.shape
    assert first.dtype == np.uint8
    assert np.array_equal(first, second)
    assert not np.shares_memory(first, images)


@given(seeds)
def test_shift_equals_a_loop_over_pixels(seed):
    images = random_images(seed)
    shifted = shift(2)(images, np.random.default_rng(seed))
    tops, lefts = np.random.default_rng(seed).integers(0, 5, (2, len(images)))
    for image, result, top, left in zip(images, shifted, tops, lefts, strict=True):
        for i in range(5):
            for j in range(4):
                y, x = i + top - 2, j + left - 2
                expected = image[y, x] if 0 <= y < 5 and 0 <= x < 4 else 0
                assert np.array_equal(result[i, j], np.broadcast_to(expected, 2))


@given(seeds)
def test_flip_flips_about_half_of_the_images(seed):
    images = random_images(seed, B=40)
    results = flip()(images, np.random.default_rng(seed))
    pairs = list(zip(results, images, strict=True))
    flipped = [np.array_equal(result, image[:, ::-1]) for result, image in pairs]
    unchanged = [np.array_equal(result, image) for result, image in pairs]
    assert all(f or u for f, u in zip(flipped, unchanged, strict=True))
    assert 5 < sum(flipped) < 35


def interpolate(image, y, x):
    """Return the value at (y, x) of an image (H, W), by bilinear interpolation."""
    H, W = image.shape

    def at(i, j):
        return float(image[i, j]) if 0 <= i < H and 0 <= j < W else 0.0

    i, j = int(np.floor(y)), int(np.floor(x))
    fy, fx = y - i, x - j
    upper = at(i, j) * (1 - fx) + at(i, j + 1) * fx
    lower = at(i + 1, j) * (1 - fx) + at(i + 1, j + 1) * fx
    return upper * (1 - fy) + lower * fy


@given(seeds)
def test_affine_equals_a_loop_over_pixels(seed):
    """A new pixel's position is rotated and scaled, then sheared, then translated."""
    rotate, scale, translate, shear = 30, 0.3, 1.0, 0.4
    images = random_images(seed, B=3, C=1)
    B, H, W, _ = images.shape
    result = affine(rotate, scale, translate, shear)(images, np.random.default_rng(seed))
    drawn = np.random.default_rng(seed).uniform(-1, 1, (5, B))
    for b in range(B):
        angle = np.radians(rotate * drawn[0, b])
        factor = 1 + scale * drawn[1, b]
        for i in range(H):
            for j in range(W):
                y = i - (H - 1) / 2
                x = j - (W - 1) / 2
                old_y = (np.cos(angle) * y - np.sin(angle) * x) / factor
                old_x = (np.sin(angle) * y + np.cos(angle) * x) / factor
                old_x += shear * drawn[4, b] * old_y
                old_y += translate * drawn[2, b] + (H - 1) / 2
                old_x += translate * drawn[3, b] + (W - 1) / 2
                expected = interpolate(images[b, ..., 0], old_y, old_x)
                assert abs(float(result[b, i, j, 0]) - expected) <= 0.51


@given(seeds)
def test_warp_by_an_integer_translation_copies_pixels(seed):
    images = random_images(seed, H=6, W=5, C=3)
    matrices = np.array([[[1, 0, 2], [0, 1, -1]]] * len(images))
    expected = np.zeros_like(images)
    expected[:, :4, 1:] = images[:, 2:, :-1]
    assert np.array_equal(warp(images, matrices), expected)


def test_an_augmentation_of_amount_zero_changes_nothing():
    images = random_images(0)
    for step in (affine(), shift(0), compose(), erase(0), randaugment(0)):
        assert np.array_equal(step(images, np.random.default_rng(0)), images)


def test_a_rotation_by_90_degrees():
    class FullRotation(np.random.Generator):
        """Draws 1 for the rotation and 0 for everything else."""

        def uniform(self, low, high, shape):
            drawn = np.zeros(shape)
            drawn[0] = 1
            return drawn

    images = random_images(0, H=4, W=4)
    rotated = affine(rotate=90.0)(images, FullRotation(np.random.PCG64()))
    assert np.array_equal(rotated, np.rot90(images, -1, axes=(1, 2)))


@given(seeds)
def test_box_equals_a_loop_over_pixels(seed):
    top, left, height, width = np.random.default_rng(seed).integers(-3, 9, (4, 20))
    inside = box(top, left, height, width, 7, 6)
    for b in range(20):
        for y in range(7):
            for x in range(6):
                assert inside[b, y, x] == (
                    top[b] <= y < top[b] + height[b] and left[b] <= x < left[b] + width[b]
                )


@given(seeds)
def test_erase_fills_one_rectangle_with_noise(seed):
    images = np.full((200, 32, 24, 3), 77, np.uint8)
    erased = erase(0.4)(images, np.random.default_rng(seed))
    changed = [(image != 77).any(-1) for image in erased]
    changed = [c for c in changed if c.any()]
    assert 50 < len(changed) < 110
    for c in changed:
        rows = np.flatnonzero(c.any(1))
        columns = np.flatnonzero(c.any(0))
        area = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        assert 0.005 * c.size < area <= 0.42 * c.size
        inside = c[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert inside.mean() > 0.9  # the noise is rarely 77 in all three channels
    assert max(c.sum() for c in changed) > 0.2 * 32 * 24


UINT8_ONLY = [
    shift(2),
    flip(),
    affine(rotate=10, scale=0.1),
    erase(0.5),
    randaugment(),
    compose(flip(), shift(1)),
]


@pytest.mark.parametrize("augment", UINT8_ONLY)
@pytest.mark.parametrize(
    "images",
    [
        np.full((3, 8, 8, 1), 0.3, np.float32),
        np.zeros((3, 8, 8, 1), np.int64),
        np.zeros((3, 8, 8), np.uint8),
        [[[[1]]]],
    ],
)
def test_only_images_of_uint8_are_augmented(augment, images):
    """Rounding would turn floats from 0 to 1 into another picture."""
    with pytest.raises(UserError, match=r"images must be an array of uint8 of shape .*, not "):
        augment(images, np.random.default_rng(0))
