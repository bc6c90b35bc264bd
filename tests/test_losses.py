"""Cross-entropy against its formula, and accuracy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit import UserError, accuracy, cross_entropy
from numpyvit.gradcheck import SHARP
from numpyvit.losses import as_probabilities, cross_entropy_backward, cross_entropy_forward
from numpyvit.testing import assert_gradients, normal, seeds

sizes = st.integers(1, 5)
smoothings = st.sampled_from([0.0, 0.1])


def draw_labels(B, K, seed):
    return np.random.default_rng(seed).integers(0, K, B)


def draw_targets(B, K, soft, seed):
    """Draw probabilities (B, K) if soft, otherwise labels (B,)."""
    if not soft:
        return draw_labels(B, K, seed)
    t = np.exp(normal((B, K), seed))
    return t / t.sum(1, keepdims=True)


@given(sizes, sizes, st.booleans(), smoothings, seeds)
def test_the_loss_and_its_gradient(B, K, soft, smoothing, seed):
    logits, targets = normal((B, K), seed), draw_targets(B, K, soft, seed + 1)
    t = as_probabilities(logits, targets)

    def forward(x):
        loss, cache = cross_entropy_forward(x, t.astype(x.dtype), smoothing=smoothing)
        return np.asarray(loss), cache

    zero = ["input 0"] if K == 1 else []
    assert_gradients(forward, cross_entropy_backward, logits, zero=zero, tolerance=SHARP)
    smooth = (1 - smoothing) * t + smoothing / K
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wanted = -(smooth * np.log(probabilities)).sum() / B
    assert forward(logits)[0] == pytest.approx(wanted, abs=1e-12)


@given(sizes, sizes, st.booleans(), smoothings, st.sampled_from([None, 20]), seeds)
def test_cross_entropy_is_the_pair_of_functions_in_one_call(B, K, soft, smoothing, count, seed):
    logits, targets = normal((B, K), seed), draw_targets(B, K, soft, seed + 1)
    options = {"smoothing": smoothing, "count": count}
    loss, dlogits = cross_entropy(logits, targets, **options)
    t = as_probabilities(logits, targets)
    loss_of_pair, cache = cross_entropy_forward(logits, t, **options)
    assert loss == loss_of_pair
    assert np.array_equal(dlogits, cross_entropy_backward(1.0, cache))


@given(sizes, sizes, st.booleans(), seeds)
def test_inputs_and_cache_are_not_changed(B, K, soft, seed):
    logits, targets = normal((B, K), seed), draw_targets(B, K, soft, seed + 1)
    t = as_probabilities(logits, targets)
    before = logits.copy(), targets.copy(), t.copy()
    cross_entropy(logits, targets, smoothing=0.5)
    _, cache = cross_entropy_forward(logits, t, smoothing=0.5)
    first = cross_entropy_backward(1.0, cache)
    assert np.array_equal(cross_entropy_backward(1.0, cache), first)
    for array, copy in zip((logits, targets, t), before, strict=True):
        assert np.array_equal(array, copy)


@given(sizes, sizes, seeds)
def test_as_probabilities(B, K, seed):
    logits, labels = normal((B, K), seed, np.float32), draw_labels(B, K, seed)
    t = as_probabilities(logits, labels)
    assert np.array_equal(t, np.eye(K)[labels])
    assert t.dtype == np.float32
    soft = draw_targets(B, K, True, seed)
    copy = as_probabilities(logits, soft)
    assert np.array_equal(copy, soft.astype(np.float32))
    assert not np.shares_memory(as_probabilities(logits, copy), copy)


@given(sizes, sizes, st.integers(0, 5), seeds)
def test_the_losses_and_gradients_of_parts_of_a_batch_add_up(B, K, cut, seed):
    logits, labels = normal((B, K), seed), draw_labels(B, K, seed)
    loss, dlogits = cross_entropy(logits, labels)
    loss1, dlogits1 = cross_entropy(logits[:cut], labels[:cut], count=B)
    loss2, dlogits2 = cross_entropy(logits[cut:], labels[cut:], count=B)
    assert loss1 + loss2 == pytest.approx(loss, abs=1e-12)
    assert np.allclose(np.concatenate([dlogits1, dlogits2]), dlogits, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_extreme_logits_are_no_problem(dtype):
    logits = np.array([[1e4, -1e4, 0], [-1e4, 1e4, 1e4]], dtype)
    loss, dlogits = cross_entropy(logits, np.array([0, 0]))
    assert loss == pytest.approx((0 + 2e4 + np.log(2)) / 2, rel=1e-6)
    assert np.allclose(dlogits, [[0, 0, 0], [-0.5, 0.25, 0.25]])
    assert loss.dtype == dlogits.dtype == dtype


@given(sizes, st.integers(2, 9), seeds)
def test_the_gradient_of_each_row_sums_to_zero(B, K, seed):
    _, dlogits = cross_entropy(normal((B, K), seed), draw_labels(B, K, seed))
    assert np.allclose(dlogits.sum(1), 0, atol=1e-14)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (
            np.array([0, 3]),
            "labels go from 0 to 3, but the model has 3 classes: use labels from 0 to 2",
        ),
        (np.array([-1, 0]), "labels go from -1 to 0"),
        (np.array([0.0, 1.0]), "use 2 integers, or floats"),
        (np.array([0, 1, 2]), "use 2 integers"),
        (np.eye(4)[:2], r"floats of shape \(2, 3\)"),
    ],
)
def test_targets_that_do_not_fit_are_refused(targets, message):
    with pytest.raises(UserError, match=message):
        cross_entropy(np.zeros((2, 3)), targets)


def test_an_empty_batch_has_no_loss():
    loss, dlogits = cross_entropy(np.zeros((0, 3)), np.zeros(0, int))
    assert loss == 0
    assert dlogits.shape == (0, 3)


def test_accuracy():
    assert accuracy(np.array([[1, 2], [3, 0]]), np.array([1, 1])) == 0.5
    assert accuracy(np.zeros((0, 2)), np.zeros(0, int)) == 0
    assert accuracy(np.array([[np.nan, 0], [1, 0]]), np.array([0, 0])) == 0.5
    with pytest.raises(UserError, match="labels must be 3 integers"):
        accuracy(np.zeros((3, 2)), np.zeros((3, 1), int))
    assert accuracy(np.array([[1, 2], [3, 0]]), [1, 1]) == 0.5
    for labels in (["1", "1"], np.array(["1", "1"]), [1.0, 1.0], [[1], [1, 2]], None, "11"):
        with pytest.raises(UserError, match="labels"):
            accuracy(np.array([[1, 2], [3, 0]]), labels)


@pytest.mark.parametrize("smoothing", [-0.5, 1, 2, np.nan, "0.1", None])
def test_smoothing_is_a_fraction(smoothing):
    with pytest.raises(UserError, match=r"smoothing is .*: it must be a number from 0 below 1"):
        cross_entropy(np.zeros((2, 3)), np.array([0, 1]), smoothing=smoothing)


@pytest.mark.parametrize("count", [0, -1, 1.5, "2"])
def test_count_is_a_positive_integer(count):
    with pytest.raises(UserError, match=r"count is .*: it must be an integer, 1 or more"):
        cross_entropy(np.zeros((2, 3)), np.array([0, 1]), count=count)


@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf])
def test_soft_targets_are_probabilities(value):
    targets = np.full((2, 3), 0.2)
    targets[1, 1] = value
    with pytest.raises(UserError, match="they must be probabilities"):
        cross_entropy(np.zeros((2, 3)), targets)


@pytest.mark.parametrize("K", [3, 40])
def test_a_logit_of_minus_infinity_counts_only_if_it_is_the_label(K):
    logits = np.zeros((1, K), np.float32)
    logits[0, -1] = -np.inf
    loss, dlogits = cross_entropy(logits, np.array([0]))
    wanted, dwanted = cross_entropy(logits[:, :-1], np.array([0]))
    assert loss == pytest.approx(wanted)
    assert np.allclose(dlogits, np.append(dwanted, [[0]], 1))
    loss, dlogits = cross_entropy(logits, np.array([K - 1]))
    assert loss == np.inf
    assert np.isfinite(dlogits).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logits_near_the_largest_float(dtype):
    largest = np.finfo(dtype).max
    logits = np.array([[largest, -largest, 0]], dtype)
    assert cross_entropy(logits, np.array([0]))[0] == 0
    loss, dlogits = cross_entropy(logits, np.array([1]))
    assert loss == np.inf
    assert dlogits.tolist() == [[1, -1, 0]]
    logits = np.array([[largest / 2, 0, 0]] * 4, dtype)
    loss, _ = cross_entropy(logits, np.array([1] * 4))
    assert loss == pytest.approx(largest / 2)
