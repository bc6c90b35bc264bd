import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit.gradcheck import SHARP
from numpyvit.layers.dropout import (
    draw_mask,
    drop_path_backward,
    drop_path_forward,
    dropout_backward,
    dropout_forward,
)
from numpyvit.testing import check_pair_contract, normal, seeds, shapes_BND

PAIRS = {
    "dropout": (dropout_forward, dropout_backward),
    "drop path": (drop_path_forward, drop_path_backward),
}


@given(shapes_BND(), st.sampled_from(list(PAIRS)), st.sampled_from([0.1, 0.5]), seeds)
def test_pair(shape, name, p, seed):
    forward, backward = PAIRS[name]
    check_pair_contract(
        lambda x: forward(x, p, np.random.default_rng(seed)),
        backward,
        normal(shape, seed),
        seed=seed,
        zero=["input 0"],  # everything may be dropped
        splits=False,
        tolerance=SHARP,
    )


@given(shapes_BND(), seeds)
def test_the_mask_is_the_same_for_every_dtype(shape, seed):
    x = normal(shape, seed)
    _, mask = dropout_forward(x, 0.3, np.random.default_rng(seed))
    _, mask32 = dropout_forward(x.astype(np.float32), 0.3, np.random.default_rng(seed))
    assert np.array_equal(mask == 0, mask32 == 0)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_keeps_the_mean_and_drops_as_often_as_asked(p):
    mask = draw_mask(np.random.default_rng(0), (1000, 1000), p, np.zeros(1))
    assert np.mean(mask == 0) == pytest.approx(p, abs=2e-3)
    assert mask.mean() == pytest.approx(1, abs=2e-2)
    assert np.unique(mask).tolist() == pytest.approx([0, 1 / (1 - p)], rel=2e-4)


def test_drop_path_drops_whole_images():
    y, _ = drop_path_forward(np.ones((200, 3, 2)), 0.5, np.random.default_rng(0))
    assert {tuple(row) for row in y.reshape(200, 6).tolist()} == {(0.0,) * 6, (2.0,) * 6}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(("p", "rng"), [(0.0, np.random.default_rng(0)), (0.5, None)])
def test_off_in_evaluation_and_at_zero(name, p, rng):
    forward, backward = PAIRS[name]
    x = normal((2, 3, 4), 0)
    y, cache = forward(x, p, rng)
    assert y is x
    assert backward(x, cache) is x
