"""The checker itself: it must catch wrong backwards, pass right ones, and explain bad use."""

import math

import numpy as np
import pytest
from hypothesis import given, settings

from numpyvit import UserError, ViT, ViTConfig
from numpyvit.backend import col_sum, row_dot, row_sum
from numpyvit.gradcheck import check_function, check_layer, check_model, make_report
from numpyvit.layers.attention import attention_forward
from numpyvit.layers.gelu import gelu_tanh_backward, gelu_tanh_forward
from numpyvit.layers.layernorm import layernorm_forward
from numpyvit.layers.linear import Linear, linear_backward, linear_forward
from numpyvit.layers.positions import cls_token_backward, cls_token_forward
from numpyvit.layers.softmax import softmax_backward, softmax_forward
from numpyvit.testing import (
    assert_batch_splits,
    assert_dtype_kept,
    assert_linear_backward,
    assert_pure,
    assert_reentrant,
    normal,
    seeds,
)

WRONG = {}


def wrong(forward, *shapes):
    """Register a wrong backward of `forward`, for inputs of these shapes."""
    def register(backward):
        WRONG[backward.__name__] = forward, backward, shapes
        return backward
    return register


def norm_forward(x, gamma, beta):
    return layernorm_forward(x, gamma, beta, 0.1)


NORM = norm_forward, (3, 5), (5,), (5,)
LINEAR = linear_forward, (2, 3, 4), (4, 4), (4,)
ATTENTION = attention_forward, (2, 2, 3, 4), (2, 2, 3, 4), (2, 2, 3, 4)


@wrong(softmax_forward, (3, 4))
def softmax_by_its_diagonal(dy, y):
    return dy * y * (1 - y)


@wrong(softmax_forward, (3, 3))
def softmax_over_the_wrong_axis(dy, y):
    return y * (dy - (dy * y).sum(0))


@wrong(softmax_forward, (3, 4))
def softmax_of_zero(dy, y):
    return 0 * dy


@wrong(*NORM)
def layernorm_without_its_mean_term(dy, cache):
    xhat, rstd, gamma = cache
    g = dy * gamma
    return rstd * (g - xhat * row_dot(g, xhat) / 5), col_sum(dy * xhat), col_sum(dy)


@wrong(*NORM)
def layernorm_without_its_deviation_term(dy, cache):
    xhat, rstd, gamma = cache
    g = dy * gamma
    return rstd * (g - row_sum(g) / 5), col_sum(dy * xhat), col_sum(dy)


@wrong(*NORM)
def layernorm_with_gamma_left_out(dy, cache):
    xhat, rstd, _ = cache
    dx = rstd * (dy - row_sum(dy) / 5 - xhat * row_dot(dy, xhat) / 5)
    return dx, col_sum(dy * xhat), col_sum(dy)


@wrong(*NORM)
def layernorm_with_gamma_and_beta_swapped(dy, cache):
    xhat, rstd, gamma = cache
    g = dy * gamma
    dx = rstd * (g - row_sum(g) / 5 - xhat * row_dot(g, xhat) / 5)
    return dx, col_sum(dy), col_sum(dy * xhat)


@wrong(*LINEAR)
def linear_not_transposed(dy, cache):
    _, w, _ = cache
    return dy @ w, linear_backward(dy, cache)[1], col_sum(dy)


@wrong(*LINEAR)
def linear_bias_over_one_axis_only(dy, cache):
    dx, dw, _ = linear_backward(dy, cache)
    return dx, dw, dy[0].sum(0)


@wrong(*LINEAR)
def linear_of_the_other_sign(dy, cache):
    dx, dw, db = linear_backward(dy, cache)
    return dx, dw, -db


@wrong(*LINEAR)
def linear_off_by_a_millionth(dy, cache):
    dx, dw, db = linear_backward(dy, cache)
    return dx, dw * (1 + 1e-6), db


@wrong(*ATTENTION)
def attention_not_scaled(do, cache):
    q, k, v, a, p, _ = cache
    ds = softmax_backward(do @ v.swapaxes(-1, -2), a)
    return ds @ k, ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ do


@wrong(*ATTENTION)
def attention_with_keys_not_transposed(do, cache):
    q, k, v, a, p, _ = cache
    ds = softmax_backward(do @ v.swapaxes(-1, -2), a) / 2
    return ds @ k, ds @ q, p.swapaxes(-1, -2) @ do


@wrong(gelu_tanh_forward, (3, 4))
def gelu_with_truncated_constants(dy, cache):
    x, p, _ = cache
    t = 2 * p - 1
    return dy * (0.5 + 0.5 * t + 0.5 * x * (1 - t * t) * (0.79788 + 3 * 0.0357 * x * x))


@wrong(gelu_tanh_forward, (3, 4))
def gelu_without_the_inner_derivative(dy, cache):
    x, p, _ = cache
    t = 2 * p - 1
    return dy * (0.5 + 0.5 * t + 0.5 * x * (1 - t * t) * math.sqrt(2 / math.pi))


@wrong(cls_token_forward, (2, 3, 4), (4,))
def class_token_off_by_one(dy, cache):
    return dy[:, :-1], dy[:, 0].sum(0)


@wrong(cls_token_forward, (2, 3, 4), (4,))
def class_token_as_a_mean(dy, cache):
    return dy[:, 1:], dy[:, 0].mean(0)


@pytest.mark.parametrize("name", WRONG)
@settings(max_examples=10)
@given(seed=seeds)
def test_catches(name, seed):
    forward, backward, shapes = WRONG[name]
    report = check_function(forward, backward, *(normal(s, seed + i) for i, s in enumerate(shapes)))
    assert not report, f"\n{report}"


@given(seeds)
def test_passes_right_ones(seed):
    assert check_function(softmax_forward, softmax_backward, normal((3, 4), seed))
    assert check_function(linear_forward, linear_backward, *(normal(s, seed) for s in LINEAR[1:]))
    assert check_function(gelu_tanh_forward, gelu_tanh_backward, normal((3, 4), seed))
    assert check_function(cls_token_forward, cls_token_backward, normal((2, 3, 4), seed), normal((4,), seed))


def test_a_zero_gradient_fails_unless_declared():
    def forward(x, unused):
        return 2 * x, unused

    def backward(dy, unused):
        return 2 * dy, 0 * unused

    report = check_function(forward, backward, normal((3,), 0), normal((2,), 1))
    assert [row.verdict for row in report.rows] == ["ok", "zero"]
    assert not report
    assert check_function(forward, backward, normal((3,), 0), normal((2,), 1), zero=["input 1"])


def test_a_forward_that_writes_to_its_input_is_caught():
    def forward(x):
        x = np.ascontiguousarray(x)                   # copies only what is not contiguous
        x -= x.mean(-1, keepdims=True)
        return x, None

    with pytest.raises(AssertionError, match="input 0 was changed"):
        assert_pure(forward, lambda dy, _: dy - dy.mean(-1, keepdims=True), normal((2, 3), 0))


def test_a_backward_that_writes_to_dy_or_its_cache_is_caught():
    def in_place(dy, x):
        dy *= x
        return dy.copy()

    def uses_up(dy, x):
        x *= dy
        return x.copy()

    for backward, message in ((in_place, "changed dy"), (uses_up, "changed its cache")):
        with pytest.raises(AssertionError, match=message):
            assert_pure(lambda x: (x * x / 2, x.copy()), backward, normal((2, 3), 0))


def test_a_backward_that_keeps_state_is_caught():
    calls = []

    def backward(dy, x):
        calls.append(1)
        return dy * x * len(calls)

    with pytest.raises(AssertionError, match=r"not linear in dy|second call"):
        assert_linear_backward(lambda x: (x * x / 2, x), backward, normal((2, 3), 0))


def test_a_layer_that_mixes_the_batch_is_caught():
    with pytest.raises(AssertionError, match="is not that part of y"):
        assert_batch_splits(lambda x: (x - x.sum(0), None), lambda dy, _: dy - dy.sum(0), normal((3, 2), 0))


def test_a_cache_in_the_object_is_caught():
    state = {}

    def forward(x):
        state["x"] = x
        return x * x / 2, None

    with pytest.raises(AssertionError, match="a second forward changes"):
        assert_reentrant(forward, lambda dy, _: dy * state["x"], normal((2, 3), 0))


def test_a_float64_constant_is_caught():
    with pytest.raises(AssertionError, match="y is float64 for float32"):
        assert_dtype_kept(lambda x: (x * np.float64(2), None), lambda dy, _: 2 * dy, normal((2, 3), 0))


def test_nan_is_wrong():
    assert not make_report(["x"], [np.array([np.nan])], [np.array([1.0])], 1e-9)


def test_the_table_names_the_weight():
    class Broken(Linear):
        def backward(self, dy, cache, grads, need_dx=True):
            dx = super().backward(dy, cache, grads)
            grads[self.b] *= 2
            return dx

    report = check_layer(Broken(3, 2), normal((2, 3), 0))
    assert [(row.name, row.verdict) for row in report.rows] == [("x", "ok"), ("w", "ok"), ("b", "wrong")]
    assert "b " in str(report)
    assert "wrong" in str(report)


def test_a_model_with_one_wrong_layer_is_caught():
    config = ViTConfig(4, 2, 1, 3, width=4, depth=2, heads=2, mlp_width=4)
    model, images = ViT(config), normal((2, 4, 4, 1), 0)
    assert check_model(model, images)
    right = model.blocks[0].norm2.backward
    model.blocks[0].norm2.backward = lambda dy, cache, grads: 1.0001 * right(dy, cache, grads)
    report = check_model(model, images)
    assert {row.name for row in report.rows if row.verdict == "wrong"} >= {"images", "embed.w", "all together"}
    assert {row.name for row in report.rows if row.verdict == "ok"} >= {"head.out.w", "blocks.1.mlp.fc1.w"}


@pytest.mark.parametrize("backward", [lambda dy, c: (dy,), lambda dy, c: (dy, dy, dy), lambda dy, c: (dy, dy[:1])])
def test_missing_or_misshapen_gradients_are_explained(backward):
    with pytest.raises(UserError, match="one for each input"):
        check_function(lambda a, b: (a + b, None), backward, np.ones(3), np.ones(3))
