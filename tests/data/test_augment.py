import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit.data import affine, compose, cutmix, erase, flip, mixup, one_of, randaugment, shift
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


def draw(seed, B=6, H=5, W=4, C=2):
    return np.random.default_rng(seed).integers(0, 256, (B, H, W, C), np.uint8)


@given(
    st.sampled_from(list(STEPS)),
    st.integers(0, 4),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(1, 4),
    seeds,
)
def test_seeded_and_pure(name, B, H, W, C, seed):
    images = draw(seed, B, H, W, C)
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


def interpolated(image, y, x):
    """The plain formula: what is at (y, x) of one image (H, W), by bilinear interpolation with black around."""
    H, W = image.shape

    def at(i, j):
        return float(image[i, j]) if 0 <= i < H and 0 <= j < W else 0.0

    i, j = int(np.floor(y)), int(np.floor(x))
    fy, fx = y - i, x - j
    return (at(i, j) * (1 - fx) + at(i, j + 1) * fx) * (1 - fy) + (
        at(i + 1, j) * (1 - fx) + at(i + 1, j + 1) * fx
    ) * fy


@given(seeds)
def test_affine_image_by_image(seed):
    """Pixel by pixel: first slanted, then turned and resized, then moved; where does each pixel come from?"""
    images = draw(seed, B=3, C=1)
    (B, H, W, _), (degrees, scale, pixels, shear) = images.shape, (30, 0.3, 1.0, 0.4)
    result = affine(degrees, scale, pixels, shear)(images, np.random.default_rng(seed))
    drawn = np.random.default_rng(seed).uniform(-1, 1, (5, B))
    for b in range(B):
        turn, factor, up, left, slant = drawn[:, b]
        angle, factor = np.radians(degrees * turn), 1 + scale * factor
        for i in range(H):
            for j in range(W):
                y, x = i - (H - 1) / 2, j - (W - 1) / 2
                sy, sx = (
                    (np.cos(angle) * y - np.sin(angle) * x) / factor,
                    (np.sin(angle) * y + np.cos(angle) * x) / factor,
                )
                sx += shear * slant * sy
                wanted = interpolated(
                    images[b, ..., 0],
                    sy + pixels * up + (H - 1) / 2,
                    sx + pixels * left + (W - 1) / 2,
                )
                assert abs(float(result[b, i, j, 0]) - wanted) <= 0.51


@given(seeds)
def test_warp_by_whole_pixels_copies(seed):
    images = draw(seed, H=6, W=5, C=3)
    moves = np.array([[[1, 0, 2], [0, 1, -1]]] * len(images))
    wanted = np.zeros_like(images)
    wanted[:, :4, 1:] = images[:, 2:, :-1]
    assert np.array_equal(warp(images, moves), wanted)


def test_nothing_asked_nothing_done():
    images = draw(0)
    for step in (affine(), shift(0), compose(), erase(0), randaugment(0)):
        assert np.array_equal(step(images, np.random.default_rng(0)), images)


def test_a_quarter_turn():
    class Always:
        def uniform(self, low, high, shape):
            draws = np.zeros(shape)
            draws[0] = 1
            return draws

    images = draw(0, H=4, W=4)
    assert np.array_equal(affine(90.0)(images, Always()), np.rot90(images, -1, axes=(1, 2)))


@given(seeds)
def test_box_image_by_image(seed):
    top, left, height, width = np.random.default_rng(seed).integers(-3, 9, (4, 20))
    inside = box(top, left, height, width, 7, 6)
    for b in range(20):
        for y in range(7):
            for x in range(6):
                assert inside[b, y, x] == (
                    top[b] <= y < top[b] + height[b] and left[b] <= x < left[b] + width[b]
                )


@given(seeds)
def test_erase_puts_noise_in_one_rectangle_of_the_promised_size(seed):
    images = np.full((200, 32, 24, 3), 77, np.uint8)
    erased = erase(0.4)(images, np.random.default_rng(seed))
    touched = [(image != 77).any(-1) for image in erased]
    hit = [t for t in touched if t.any()]
    assert 50 < len(hit) < 110
    for t in hit:
        rows, columns = np.flatnonzero(t.any(1)), np.flatnonzero(t.any(0))
        area = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        assert 0.005 * t.size < area <= 0.42 * t.size
        inside = t[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert inside.mean() > 0.9  # some noise is 77 in all three channels, hardly any
    assert max(t.sum() for t in hit) > 0.2 * 32 * 24


# Mixing


def one_hot(labels, K=4):
    return np.eye(K, dtype=np.float32)[labels]


@given(st.sampled_from(["mixup", "cutmix", "one of"]), st.floats(0.1, 2), st.integers(1, 6), seeds)
def test_mixed_targets_sum_to_one_and_nothing_is_written_to(name, alpha, B, seed):
    mix = {
        "mixup": mixup(alpha),
        "cutmix": cutmix(alpha),
        "one of": one_of(mixup(alpha), cutmix(alpha)),
    }[name]
    images, targets = draw(seed, B), one_hot(np.arange(B) % 4)
    images.flags.writeable = targets.flags.writeable = False
    (a, t), (b, u) = (mix(images, targets, np.random.default_rng(seed)) for _ in range(2))
    assert np.array_equal(a, b)
    assert np.array_equal(t, u)
    assert a.shape == images.shape
    assert (a.dtype, t.dtype) == (np.uint8, np.float32)
    assert np.allclose(t.sum(1), 1, atol=1e-6)
    assert (t >= 0).all()


@given(seeds)
def test_mixup_image_by_image(seed):
    images, targets = draw(seed), one_hot(np.arange(6) % 4)
    mixed, t = mixup(0.7)(images, targets, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    partner, share = rng.permutation(6), rng.beta(0.7, 0.7, 6)
    for b in range(6):
        wanted = share[b] * images[b] + (1 - share[b]) * images[partner[b]]
        assert np.abs(mixed[b] - wanted).max() <= 0.51
        assert np.allclose(
            t[b], share[b] * targets[b] + (1 - share[b]) * targets[partner[b]], atol=1e-6
        )


@given(seeds)
def test_cutmix_weighs_the_targets_by_the_areas(seed):
    images = np.broadcast_to(np.arange(8, dtype=np.uint8)[:, None, None, None], (8, 12, 10, 3))
    mixed, t = cutmix(1.0)(images, one_hot(np.arange(8), 8), np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    partner, share = rng.permutation(8), rng.beta(1.0, 1.0, 8)
    y, x = rng.random((2, 8))
    for b in range(8):
        other = mixed[b, ..., 0] == partner[b]
        if partner[b] == b:
            continue
        assert set(np.unique(mixed[b])) <= {b, partner[b]}
        assert t[b, partner[b]] == pytest.approx(other.mean(), abs=1e-6)
        if other.any():  # one rectangle around the place that was drawn
            rows, columns = np.flatnonzero(other.any(1)), np.flatnonzero(other.any(0))
            assert other[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            assert len(rows) <= 12 * np.sqrt(1 - share[b]) + 1
            assert rows[0] - 1 <= 12 * y[b] <= rows[-1] + 2
            assert columns[0] - 1 <= 10 * x[b] <= columns[-1] + 2


def test_one_of_uses_each():
    images, targets = draw(0), one_hot(np.arange(6) % 4)
    marks = [lambda i, t, rng, m=m: (i, t + m) for m in (1, 2)]
    seen = {
        float(one_of(*marks)(images, targets, np.random.default_rng(seed))[1].min())
        for seed in range(20)
    }
    assert seen == {1.0, 2.0}
