import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit import UserError
from numpyvit.data import cutmix, mixup, one_of
from numpyvit.testing import seeds


def random_images(seed, B=6, H=5, W=4, C=2):
    return np.random.default_rng(seed).integers(0, 256, (B, H, W, C), np.uint8)


def one_hot(labels, K=4):
    return np.eye(K, dtype=np.float32)[labels]


@given(st.sampled_from(["mixup", "cutmix", "one of"]), st.floats(0.1, 2), st.integers(1, 6), seeds)
def test_mixed_targets_sum_to_one_and_no_input_changes(name, alpha, B, seed):
    mix = {
        "mixup": mixup(alpha),
        "cutmix": cutmix(alpha),
        "one of": one_of(mixup(alpha), cutmix(alpha)),
    }[name]
    images = random_images(seed, B)
    targets = one_hot(np.arange(B) % 4)
    images.flags.writeable = False
    targets.flags.writeable = False
    mixed, t = mix(images, targets, np.random.default_rng(seed))
    mixed_again, t_again = mix(images, targets, np.random.default_rng(seed))
    assert np.array_equal(mixed, mixed_again)
    assert np.array_equal(t, t_again)
    assert mixed.shape == images.shape
    assert (mixed.dtype, t.dtype) == (np.uint8, np.float32)
    assert np.allclose(t.sum(1), 1, atol=1e-6)
    assert (t >= 0).all()


@given(seeds)
def test_mixup_image_by_image(seed):
    images = random_images(seed)
    targets = one_hot(np.arange(6) % 4)
    mixed, t = mixup(0.7)(images, targets, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    partner = rng.permutation(6)
    weight = rng.beta(0.7, 0.7, 6)
    for b in range(6):
        w = weight[b]
        expected = w * images[b] + (1 - w) * images[partner[b]]
        expected_t = w * targets[b] + (1 - w) * targets[partner[b]]
        assert np.abs(mixed[b] - expected).max() <= 0.51
        assert np.allclose(t[b], expected_t, atol=1e-6)


@given(seeds)
def test_cutmix_weights_the_targets_by_the_areas(seed):
    images = np.broadcast_to(np.arange(8, dtype=np.uint8)[:, None, None, None], (8, 12, 10, 3))
    mixed, t = cutmix(1.0)(images, one_hot(np.arange(8), 8), np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    partner = rng.permutation(8)
    weight = rng.beta(1.0, 1.0, 8)
    y, x = rng.random((2, 8))
    for b in range(8):
        is_partner = mixed[b, ..., 0] == partner[b]
        if partner[b] == b:
            continue
        assert set(np.unique(mixed[b])) <= {b, partner[b]}
        assert t[b, partner[b]] == pytest.approx(is_partner.mean(), abs=1e-6)
        if is_partner.any():  # one rectangle around the centre that was drawn
            rows = np.flatnonzero(is_partner.any(1))
            columns = np.flatnonzero(is_partner.any(0))
            assert is_partner[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            assert len(rows) <= 12 * np.sqrt(1 - weight[b]) + 1
            assert rows[0] - 1 <= 12 * y[b] <= rows[-1] + 2
            assert columns[0] - 1 <= 10 * x[b] <= columns[-1] + 2


def test_one_of_uses_each_mix():
    images = random_images(0)
    targets = one_hot(np.arange(6) % 4)
    mixes = [lambda i, t, rng, n=n: (i, t + n) for n in (1, 2)]
    used = set()
    for seed in range(20):
        _, t = one_of(*mixes)(images, targets, np.random.default_rng(seed))
        used.add(float(t.min()))
    assert used == {1.0, 2.0}


@pytest.mark.parametrize("mix", [mixup(0.2), cutmix(1.0), one_of(mixup(0.2), cutmix(1.0))])
def test_only_images_of_uint8_with_targets_for_each_are_mixed(mix):
    rng = np.random.default_rng(0)
    images, targets = np.zeros((3, 8, 8, 1), np.uint8), np.eye(3, dtype=np.float32)
    with pytest.raises(UserError, match=r"images must be .*, not an array of float32"):
        mix(images.astype(np.float32), targets, rng)
    with pytest.raises(UserError, match=r"targets must be .*, not an array of int64"):
        mix(images, np.arange(3), rng)
    with pytest.raises(UserError, match=r"targets must be .*, not an array of float32"):
        mix(images, targets[:2], rng)
