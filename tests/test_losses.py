import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit import UserError, accuracy, cross_entropy
from numpyvit.gradcheck import SHARP
from numpyvit.losses import cross_entropy_backward, cross_entropy_forward
from numpyvit.testing import assert_gradients, normal, seeds

sizes = st.integers(1, 5)
smoothings = st.sampled_from([0.0, 0.1])


def draw_targets(B, K, soft, seed):
    if not soft:
        return np.random.default_rng(seed).integers(0, K, B)
    t = np.exp(normal((B, K), seed))
    return t / t.sum(1, keepdims=True)


@given(sizes, sizes, st.booleans(), smoothings, seeds)
def test_gradient_and_plain_formula(B, K, soft, smoothing, seed):
    logits, targets = normal((B, K), seed), draw_targets(B, K, soft, seed + 1)

    def forward(x):
        loss, cache = cross_entropy_forward(x, targets, smoothing=smoothing)
        return np.asarray(loss), cache

    assert_gradients(
        forward, cross_entropy_backward, logits, zero=["input 0"] if K == 1 else [], tolerance=SHARP
    )
    t = targets if soft else np.eye(K)[targets]
    t = (1 - smoothing) * t + smoothing / K
    wanted = -(t * np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))).sum() / B
    assert forward(logits)[0] == pytest.approx(wanted, abs=1e-12)


@given(sizes, sizes, st.integers(0, 5), seeds)
def test_parts_of_a_batch_add_up(B, K, cut, seed):
    logits, targets = normal((B, K), seed), draw_targets(B, K, False, seed)
    whole, d_whole = cross_entropy(logits, targets)
    parts = [
        cross_entropy(logits[s], targets[s], count=B) for s in (slice(None, cut), slice(cut, None))
    ]
    assert parts[0][0] + parts[1][0] == pytest.approx(whole, abs=1e-12)
    assert np.allclose(np.concatenate([d for _, d in parts]), d_whole, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_stable_at_extreme_logits(dtype):
    logits = np.array([[1e4, -1e4, 0], [-1e4, 1e4, 1e4]], dtype)
    loss, dlogits = cross_entropy(logits, np.array([0, 0]))
    assert loss == pytest.approx((0 + 2e4 + np.log(2)) / 2, rel=1e-6)
    assert np.allclose(dlogits, [[0, 0, 0], [-0.5, 0.25, 0.25]])
    assert loss.dtype == dlogits.dtype == dtype


@given(sizes, st.integers(2, 9), seeds)
def test_gradient_of_each_row_sums_to_zero(B, K, seed):
    _, dlogits = cross_entropy(normal((B, K), seed), draw_targets(B, K, False, seed))
    assert np.allclose(dlogits.sum(1), 0, atol=1e-14)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.array([0, 3]), "labels go from 0 to 3, the model has 3 classes: 0 to 2"),
        (np.array([-1, 0]), "labels go from -1 to 0"),
        (np.array([0.0, 1.0]), "wanted 2 whole numbers, or floats"),
        (np.array([0, 1, 2]), "wanted 2 whole numbers"),
        (np.eye(4)[:2], r"floats of shape \(2, 3\)"),
    ],
)
def test_wrong_targets_are_refused(targets, message):
    with pytest.raises(UserError, match=message):
        cross_entropy(np.zeros((2, 3)), targets)


def test_empty_batch_and_accuracy():
    loss, dlogits = cross_entropy(np.zeros((0, 3)), np.zeros(0, int))
    assert loss == 0
    assert dlogits.shape == (0, 3)
    assert accuracy(np.array([[1, 2], [3, 0]]), np.array([1, 1])) == 0.5
    assert accuracy(np.zeros((0, 2)), np.zeros(0, int)) == 0
    assert accuracy(np.array([[np.nan, 0], [1, 0]]), np.array([0, 0])) == 0.5
    with pytest.raises(UserError, match="wanted"):
        accuracy(np.zeros((3, 2)), np.zeros((3, 1), int))
