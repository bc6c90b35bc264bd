import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit.gradcheck import SHARP
from numpyvit.layers.dropout import (
    add_branch_backward,
    add_branch_forward,
    draw_mask,
    drop_path_backward,
    drop_path_forward,
    dropout_backward,
    dropout_forward,
)
from numpyvit.testing import (
    assert_dtype_kept,
    assert_gradients,
    assert_linear_backward,
    assert_pure,
    assert_reentrant,
    normal,
    seeds,
    shapes_BND,
)


def add_branch(a, p, rng):
    """What is added to a stream of zeros."""
    return add_branch_forward(np.zeros_like(a), a, p, p / 2, rng, a.shape)


PAIRS = {
    "dropout": (dropout_forward, dropout_backward),
    "drop path": (drop_path_forward, drop_path_backward),
    "add branch": (add_branch, add_branch_backward),
}


@given(shapes_BND(), st.sampled_from(list(PAIRS)), st.sampled_from([0.1, 0.5]), seeds)
def test_contract(shape, name, p, seed):
    f, backward = PAIRS[name]

    def forward(x):
        return f(x, p, np.random.default_rng(seed))

    x = normal(shape, seed)
    assert_gradients(forward, backward, x, zero=["input 0"], tolerance=SHARP)  # all may be dropped
    assert_linear_backward(forward, backward, x, seed=seed)
    assert_pure(forward, backward, x, seed=seed)
    assert_dtype_kept(forward, backward, x, seed=seed)
    assert_reentrant(forward, backward, x, seed=seed)


@given(shapes_BND(), seeds)
def test_the_mask_is_the_same_for_every_dtype_and_number_of_rows(shape, seed):
    x = normal(shape, seed)
    y, mask = dropout_forward(x, 0.3, np.random.default_rng(seed))
    _, mask32 = dropout_forward(x.astype(np.float32), 0.3, np.random.default_rng(seed))
    assert np.array_equal(mask == 0, mask32 == 0)
    y1, mask1 = dropout_forward(x[:, :1], 0.3, np.random.default_rng(seed), x.shape)
    assert np.array_equal(y1, y[:, :1])
    assert np.array_equal(mask1, mask[:, :1])


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_keeps_the_mean_and_drops_as_often_as_asked(p):
    mask = draw_mask(np.random.default_rng(0), (1000, 1000), p, np.zeros(1))
    assert np.mean(mask == 0) == pytest.approx(p, abs=2e-3)
    assert mask.mean() == pytest.approx(1, abs=2e-2)
    assert np.unique(mask).tolist() == pytest.approx([0, 1 / (1 - p)], rel=2e-4)


def test_drop_path_drops_whole_images():
    y, _ = drop_path_forward(np.ones((200, 3, 2)), 0.5, np.random.default_rng(0))
    assert {tuple(row) for row in y.reshape(200, 6).tolist()} == {(0.0,) * 6, (2.0,) * 6}


@pytest.mark.parametrize(
    "pair", [PAIRS["dropout"], PAIRS["drop path"]], ids=["dropout", "drop path"]
)
@pytest.mark.parametrize(("p", "rng"), [(0.0, np.random.default_rng(0)), (0.5, None)])
def test_off_in_evaluation_and_at_zero(pair, p, rng):
    x = normal((2, 3, 4), 0)
    y, cache = pair[0](x, p, rng)
    assert y is x
    assert pair[1](x, cache) is x
