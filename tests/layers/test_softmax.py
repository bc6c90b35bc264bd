import numpy as np
from hypothesis import given

from numpyvit.gradcheck import SHARP
from numpyvit.layers.softmax import softmax_backward, softmax_forward
from numpyvit.testing import (
    assert_batch_splits,
    assert_dtype_kept,
    assert_gradients,
    assert_linear_backward,
    assert_pure,
    assert_reentrant,
    normal,
    seeds,
    shapes_BND,
)


@given(shapes_BND(), seeds)
def test_contract(shape, seed):
    x = normal(shape, seed)
    pair = softmax_forward, softmax_backward
    assert_gradients(*pair, x, zero=["input 0"] if shape[-1] == 1 else [], tolerance=SHARP)
    assert_linear_backward(*pair, x, seed=seed)
    assert_pure(*pair, x, seed=seed)
    assert_dtype_kept(*pair, x, seed=seed)
    assert_reentrant(*pair, x, seed=seed)
    assert_batch_splits(*pair, x, seed=seed)


@given(shapes_BND(), seeds)
def test_rows_sum_to_one_and_a_shift_changes_nothing(shape, seed):
    x = normal(shape, seed)
    y, _ = softmax_forward(x)
    assert np.allclose(y.sum(-1), 1)
    assert np.allclose(softmax_forward(x + 1000)[0], y)


def test_extreme_scores():
    y, cache = softmax_forward(np.array([[-1000.0, 1.0]]))
    assert y.tolist() == [[0, 1]]
    assert softmax_backward(np.array([[3.0, 5.0]]), cache).tolist() == [[0, 0]]
    y, _ = softmax_forward(np.array([[1e4, -1e4, 1e4]], np.float32))
    assert y.tolist() == [[0.5, 0, 0.5]]
