import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit.data import affine, compose, flip, shift
from numpyvit.testing import seeds

STEPS = {"shift": shift(2), "flip": flip(), "affine": affine(20, 0.2, 1.5), "all": compose(flip(), shift(1), affine(5))}


def draw(seed, B=6, H=5, W=4, C=2):
    return np.random.default_rng(seed).integers(0, 256, (B, H, W, C), np.uint8)


@given(st.sampled_from(list(STEPS)), st.integers(0, 4), seeds)
def test_seeded_and_pure(name, B, seed):
    images = draw(seed, B)
    images.flags.writeable = False
    a, b = (STEPS[name](images, np.random.default_rng(seed)) for _ in range(2))
    assert a.shape == images.shape
    assert a.dtype == np.uint8
    assert np.array_equal(a, b)
    assert not np.shares_memory(a, images)


@given(seeds)
def test_shift_image_by_image(seed):
    images = draw(seed)
    moved = shift(2)(images, np.random.default_rng(seed))
    tops, lefts = np.random.default_rng(seed).integers(0, 5, (2, len(images)))
    for image, result, top, left in zip(images, moved, tops, lefts, strict=True):
        for i in range(5):
            for j in range(4):
                y, x = i + top - 2, j + left - 2
                wanted = image[y, x] if 0 <= y < 5 and 0 <= x < 4 else 0
                assert np.array_equal(result[i, j], np.broadcast_to(wanted, 2))


@given(seeds)
def test_flip_image_by_image(seed):
    images = draw(seed, B=40)
    flipped = flip()(images, np.random.default_rng(seed))
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(flipped, images, strict=True)]
    same = [np.array_equal(a, b) for a, b in zip(flipped, images, strict=True)]
    assert all(m or s for m, s in zip(mirrored, same, strict=True))
    assert 5 < sum(mirrored) < 35


@given(seeds)
def test_affine_image_by_image(seed):
    """Against the plain formula, pixel by pixel: where does it come from, and what is there by bilinear interpolation."""
    images = draw(seed, B=3, C=1)
    (B, H, W, _), (degrees, scale, pixels) = images.shape, (30, 0.3, 1.0)
    result = affine(degrees, scale, pixels)(images, np.random.default_rng(seed))
    drawn = np.random.default_rng(seed).uniform(-1, 1, (4, B))

    def at(image, i, j):
        return float(image[i, j, 0]) if 0 <= i < H and 0 <= j < W else 0.0

    for b in range(B):
        turn, factor, up, left = drawn[:, b]
        angle, factor = np.radians(degrees * turn), 1 + scale * factor
        for i in range(H):
            for j in range(W):
                y, x = i - (H - 1) / 2, j - (W - 1) / 2
                sy = (np.cos(angle) * y - np.sin(angle) * x) / factor + pixels * up + (H - 1) / 2
                sx = (np.sin(angle) * y + np.cos(angle) * x) / factor + pixels * left + (W - 1) / 2
                i0, j0 = int(np.floor(sy)), int(np.floor(sx))
                fy, fx = sy - i0, sx - j0
                wanted = ((at(images[b], i0, j0) * (1 - fx) + at(images[b], i0, j0 + 1) * fx) * (1 - fy)
                          + (at(images[b], i0 + 1, j0) * (1 - fx) + at(images[b], i0 + 1, j0 + 1) * fx) * fy)
                assert abs(float(result[b, i, j, 0]) - wanted) <= 0.51


def test_nothing_asked_nothing_done():
    images = draw(0)
    assert np.array_equal(affine()(images, np.random.default_rng(0)), images)
    assert np.array_equal(shift(0)(images, np.random.default_rng(0)), images)
    assert np.array_equal(compose()(images, np.random.default_rng(0)), images)


@pytest.mark.parametrize("angle", [90.0])
def test_a_quarter_turn(angle):
    class Always:
        def uniform(self, low, high, shape):
            draws = np.zeros(shape)
            draws[0] = 1
            return draws

    images = draw(0, H=4, W=4)
    assert np.array_equal(affine(angle)(images, Always()), np.rot90(images, -1, axes=(1, 2)))
