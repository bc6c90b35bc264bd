import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from numpyvit.gradcheck import SHARP
from numpyvit.layers.linear import Linear, linear_backward, linear_forward
from numpyvit.testing import (
    assert_batch_splits,
    assert_gradients,
    assert_linear_backward,
    check_layer_contract,
    linear_args_BIO,
    normal,
    seeds,
    shapes_BND,
)

features = st.integers(1, 4)


@given(shapes_BND(), features, st.booleans(), seeds)
def test_contract(shape, d_out, bias, seed):
    check_layer_contract(
        Linear(shape[-1], d_out, bias=bias), normal(shape, seed), seed, tolerance=SHARP
    )


@given(linear_args_BIO())
def test_the_plain_pair(args):
    assert_gradients(linear_forward, linear_backward, *args, names=["x", "w", "b"], tolerance=SHARP)
    assert_linear_backward(linear_forward, linear_backward, *args)
    assert_batch_splits(linear_forward, linear_backward, *args)


@given(st.lists(features, max_size=3), features, features, seeds)
def test_any_leading_axes(lead, d_in, d_out, seed):
    inputs = (
        normal((*lead, d_in), seed),
        normal((d_in, d_out), seed + 1),
        normal((d_out,), seed + 2),
    )
    assert_gradients(linear_forward, linear_backward, *inputs, tolerance=SHARP)
    y, _ = linear_forward(*inputs)
    assert y.shape == (*lead, d_out)
    assert np.allclose(y, inputs[0] @ inputs[1] + inputs[2])


def test_no_gradient_for_x_where_none_is_needed():
    y, cache = linear_forward(np.ones((2, 3)), np.ones((3, 4)), None)
    dx, dw, db = linear_backward(np.ones_like(y), cache, need_dx=False)
    assert dx is None
    assert db is None
    assert np.array_equal(dw, np.full((3, 4), 2.0))
