"""Each breach of the contract is found by the property that is made for it."""

import numpy as np
import pytest
from hypothesis import given

from numpyvit.gradcheck import check_function
from numpyvit.layers.dropout import dropout_backward, dropout_forward
from numpyvit.layers.layernorm import layernorm_backward, layernorm_forward
from numpyvit.layers.linear import linear_backward, linear_forward
from numpyvit.testing import (
    assert_batch_splits,
    assert_dtype_kept,
    assert_gradients,
    assert_linear_backward,
    assert_pure,
    assert_reentrant,
    check_pair_contract,
    normal,
    seeds,
)

X = normal((2, 3), 0)


def square(x):
    return x * x, x.copy()


def centre_in_place(x):
    x = np.ascontiguousarray(x)  # copies only what is not contiguous
    x -= x.mean(-1, keepdims=True)
    return x.copy(), None


def centre_backward(dy, _):
    return dy - dy.mean(-1, keepdims=True)


def scales_dy(dy, x):
    dy *= 2 * x
    return dy.copy()


def overwrites_its_cache(dy, x):
    x *= 2 * dy
    return x.copy()


def accumulates():
    calls = []

    def backward(dy, x):
        calls.append(1)
        return 2 * dy * x * len(calls)

    return backward


def remembers():
    last = {}

    def forward(x):
        last["x"] = x
        return x * x, None

    return forward, lambda dy, _: 2 * dy * last["x"]


def noisy(rng):
    return lambda x: (x + rng.normal(size=x.shape), None)


@pytest.mark.parametrize(
    ("check", "forward", "backward", "message"),
    [
        (assert_pure, centre_in_place, centre_backward, "forward changed input 0"),
        (assert_pure, square, scales_dy, "backward changed dy"),
        (assert_pure, square, overwrites_its_cache, "backward changed its cache"),
        (
            assert_pure,
            lambda x: (2 * x, None),
            lambda dy, _: 2 * dy[0],
            r"has shape \(3,\), and input 0 has \(2, 3\)",
        ),
        (
            assert_pure,
            lambda x: (2 * x, None),
            lambda dy, _: (2 * dy).astype(np.float32),
            "the gradient of input 0 is float32",
        ),
        (
            assert_pure,
            lambda x: (x.astype(np.float32), None),
            lambda dy, _: dy,
            "y is float32 for float64 inputs",
        ),
        (
            assert_pure,
            noisy(np.random.default_rng(0)),
            lambda dy, _: dy,
            "forward is not deterministic",
        ),
        (assert_linear_backward, square, accumulates(), "differs at a second call of backward"),
        (
            assert_linear_backward,
            square,
            lambda dy, x: np.clip(2 * dy * x, -0.1, 0.1),
            "not linear in dy",
        ),
        (
            assert_linear_backward,
            square,
            lambda dy, x: np.clip(2 * dy * x, -1e6, 1e6),
            "not linear in dy",
        ),
        (
            assert_linear_backward,
            square,
            lambda dy, x: np.where(abs(dy) < 1e-6, 0, 2 * dy * x),
            "not linear in dy",
        ),
        (assert_reentrant, *remembers(), "changes if forward is called again"),
        (
            assert_batch_splits,
            lambda x: (x - x.sum(0), None),
            lambda dy, _: dy - dy.sum(0),
            "is not that part of y",
        ),
        (
            assert_batch_splits,
            lambda x: (x + 0, None),
            lambda dy, _: dy - dy.sum(0),
            r"dx of the parts \(cut at 1\) is not dx",
        ),
        (
            assert_dtype_kept,
            lambda x: (x * np.float64(2), None),
            lambda dy, _: 2 * dy,
            "y is float64 for float32",
        ),
        (
            assert_dtype_kept,
            lambda x: (2 * x, None),
            lambda dy, _: np.float64(2) * dy,
            "of input 0 is float64 for float32",
        ),
        (
            assert_dtype_kept,
            square,
            lambda dy, x: (2 if dy.dtype == np.float64 else 3) * dy * x,
            "of input 0 has other values in float32 than in float64",
        ),
        (
            assert_dtype_kept,
            lambda x: (x * x if x.dtype == np.float64 else x * abs(x), x),
            lambda dy, x: 2 * dy * x,
            "y has other values in float32",
        ),
        (
            assert_pure,
            square,
            lambda dy, x: (2 * dy.ravel("K") * x.ravel()).reshape(x.shape),
            "differs for dy in Fortran order",
        ),
        (
            assert_linear_backward,
            lambda x: (np.maximum(x, 0), x > 0),
            lambda dy, mask: dy * mask * (dy > 0),
            "not linear in dy",
        ),
        (assert_gradients, square, lambda dy, x: dy * x, "wrong"),
    ],
)
def test_breaches_are_found(check, forward, backward, message):
    with pytest.raises(AssertionError, match=message):
        check(forward, backward, X.copy())


@pytest.mark.parametrize("f", [np.log, np.sqrt])
def test_state_is_found_although_few_other_inputs_are_in_the_domain(f):
    """At -x these functions give NaN."""
    last = {}

    def forward(x):
        last["above 1"] = x > 1
        return f(x) * last["above 1"], x

    def backward(dy, x):
        slope = 1 / x if f is np.log else 0.5 / f(x)
        return dy * slope * last["above 1"]

    def refuses(x):
        if (x <= 0).any():
            raise ValueError("not defined")
        return forward(x)

    x = abs(normal((3, 4), 0)) + 0.1
    for function in (forward, refuses):
        faults = check_function(function, backward, x).faults
        assert len(faults) == 1
        assert "changes if forward is called again" in faults[0]
    right = check_function(
        lambda x: (f(x), x), lambda dy, x: dy * (1 / x if f is np.log else 0.5 / f(x)), x
    )
    assert right, f"\n{right}"


def test_state_of_a_single_positive_number_is_found():
    """Where -x is not allowed and there is no other order, a close input is left."""
    last = {}

    def forward(x):
        last["x"] = x
        return np.log(x), None

    faults = check_function(forward, lambda dy, _: dy / last["x"], np.array(0.5)).faults
    assert "changes if forward is called again" in faults[0]


# ---- all properties at once


def test_a_right_pair_keeps_the_whole_contract():
    check_pair_contract(square, lambda dy, x: 2 * dy * x, X)


def test_a_pair_with_a_random_generator_keeps_the_contract_if_it_is_seeded_in_each_call():
    def seeded(x):
        return dropout_forward(x, 0.5, np.random.default_rng(3))

    x = normal((4, 3), 0)
    check_pair_contract(seeded, dropout_backward, x, seed=1, splits=False)
    with pytest.raises(AssertionError, match="is not that part of y"):  # one mask for the batch
        check_pair_contract(seeded, dropout_backward, x, seed=1)

    rng = np.random.default_rng(3)
    with pytest.raises(AssertionError, match="forward is not deterministic"):
        check_pair_contract(
            lambda x: dropout_forward(x, 0.5, rng), dropout_backward, x, splits=False
        )


def test_gradients_can_be_left_out_of_the_contract():
    def half(dy, x):
        return dy * x

    with pytest.raises(AssertionError, match="wrong"):
        check_pair_contract(square, half, X)
    check_pair_contract(square, half, X, gradients=False)


@pytest.mark.parametrize(
    ("forward", "backward", "message"),
    [
        (square, lambda dy, x: np.clip(2 * dy * x, -0.1, 0.1), "not linear in dy"),
        (square, lambda dy, x: overwrites_its_cache(dy, x), "differs at a second call|its cache"),
        (*remembers(), "changes if forward is called again"),
        (lambda x: (x - x.sum(0), None), lambda dy, _: dy - dy.sum(0), "is not that part of y"),
        (lambda x: (x * np.float64(2), None), lambda dy, _: 2 * dy, "y is float64 for float32"),
    ],
)
def test_each_property_is_part_of_the_contract(forward, backward, message):
    with pytest.raises(AssertionError, match=message):
        check_pair_contract(forward, backward, X.copy(), gradients=False)


def test_an_empty_batch_is_tried_only_where_it_is_accepted():
    def flatten(x):
        return x.reshape(len(x), -1) * 1.0, x.shape

    check_pair_contract(flatten, lambda dy, shape: dy.reshape(shape) * 1.0, normal((2, 3, 2), 0))

    def wrong_for_an_empty_batch(dy, x):
        return 2 * dy * x if len(x) else np.zeros((1, 3))

    with pytest.raises(AssertionError, match=r"dx of the parts \(cut at 0\)"):
        assert_batch_splits(square, wrong_for_an_empty_batch, X)

    def only_two(x):
        if len(x) == 1:
            raise ValueError("two images are needed")
        return x - 0, None

    with pytest.raises(AssertionError, match=r"a part .* \(cut at 1\) fails, splits=False .* two"):
        assert_batch_splits(only_two, lambda dy, _: dy, X)


def test_float32_may_round_overflow_and_underflow():
    for scale in (1e-60, 1e-4, 1, 1e4, 1e60):

        def cubic(x, scale=scale):
            return scale * (x * x * x), x

        def slope(dy, x, scale=scale):
            return 3 * scale * dy * x * x

        with np.errstate(all="ignore"):
            assert_dtype_kept(cubic, slope, X)
    for seed in range(50):  # a norm of nearly equal features
        x = normal((3, 2), seed)
        weights = normal((2,), seed + 1), normal((2,), seed + 2)
        assert_dtype_kept(
            lambda x, g, b: layernorm_forward(1 + 1e-2 * x, g, b, 1e-5),
            lambda dy, cache: (
                1e-2 * layernorm_backward(dy, cache)[0],
                *layernorm_backward(dy, cache)[1:],
            ),
            x,
            *weights,
            seed=seed,
        )


# ---- further breaches


def test_gradients_of_weights_must_add_up():
    def mean_of_dw(dy, cache):
        dx, dw, db = linear_backward(dy, cache)
        return dx, dw / len(dy), db

    with (
        np.errstate(all="ignore"),
        pytest.raises(AssertionError, match=r"gradients of input 1 .* do not add up"),
    ):
        assert_batch_splits(linear_forward, mean_of_dw, X, normal((3, 2), 1), normal((2,), 2))


def test_shared_memory_is_found():
    report = check_function(
        lambda a, b: (a + b, None), lambda dy, _: (dy, dy), X, X.copy(), names=["a", "b"]
    )
    assert report.faults == (
        "the gradient of a shares memory with the gradient of b: "
        "adding to one in place changes the other",
    )
    assert "nothing was compared: fix this first" in str(report)
    report = check_function(lambda a: (a * 1, a), lambda dy, a: a, X, names=["a"])
    assert "the gradient of a shares memory with a" in str(report)


def test_a_function_that_relies_on_contiguous_inputs_is_found():
    def flat(x):
        return np.frombuffer(np.require(x, requirements="C").tobytes()).reshape(x.shape) * 1, None

    assert_pure(flat, lambda dy, _: dy, X)

    def by_strides(x):
        return np.lib.stride_tricks.as_strided(
            x, x.shape, (x.shape[1] * x.itemsize, x.itemsize)
        ) * 1.0, None

    with (
        np.errstate(all="ignore"),
        pytest.raises(AssertionError, match="y differs for non-contiguous inputs"),
    ):
        assert_pure(by_strides, lambda dy, _: dy, X)


@pytest.mark.parametrize("axis", [0, 1, 2])
@given(seeds)
def test_a_size_that_is_kept_outside_of_the_cache_is_found_for_every_axis(axis, seed):
    kept = {}

    def forward(x):
        kept["n"] = x.shape[axis]
        return x / kept["n"], None

    report = check_function(
        forward, lambda dy, _: dy / kept["n"], normal((2, 3, 4), seed), seed=seed
    )
    assert not report
    assert "keep everything that backward needs in the cache" in str(report)
