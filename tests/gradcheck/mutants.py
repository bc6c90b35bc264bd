"""Wrong backwards, each of which a checker must catch.

They are mistakes that people make. Some are obvious, some change a gradient by a
millionth or less, and some break the contract of a pair and not its gradients.

MUTANTS = {name: (forward, wrong backward, shapes of the inputs)}. The inputs are
normally distributed, from a seed.
"""

import inspect
import math
from typing import Any

import numpy as np

from numpyvit.backend.ops import col_sum, row_dot, row_sum
from numpyvit.layers import attention
from numpyvit.layers.dropout import dropout_forward
from numpyvit.layers.gelu import gelu_erf_forward, gelu_tanh_backward, gelu_tanh_forward
from numpyvit.layers.layernorm import layernorm_backward, layernorm_forward
from numpyvit.layers.linear import linear_backward, linear_forward
from numpyvit.layers.patches import patchify
from numpyvit.layers.positions import add_positions_forward
from numpyvit.layers.prefix import cls_token_forward
from numpyvit.layers.softmax import softmax_backward, softmax_forward
from numpyvit.losses import as_probabilities, cross_entropy_backward, cross_entropy_forward

MUTANTS: dict[str, Any] = {}

# The functions of the page itself: their fast twins have a different cache.
attention_forward = inspect.unwrap(attention.attention_forward)


def attention_backward(do, cache):
    """Return the right gradients of attention as a tuple."""
    return tuple(inspect.unwrap(attention.attention_backward)(do, cache))


def wrong(forward, *shapes):
    """Return a decorator that registers a wrong backward of `forward`.

    shapes: of the inputs.
    """

    def register(backward):
        MUTANTS[backward.__name__] = forward, backward, shapes
        return backward

    return register


# ---- softmax


@wrong(softmax_forward, (3, 4))
def softmax_by_its_diagonal(dy, y):
    return dy * y * (1 - y)


@wrong(softmax_forward, (3, 3))
def softmax_over_the_wrong_axis(dy, y):
    return y * (dy - (dy * y).sum(0))


@wrong(softmax_forward, (3, 4))
def softmax_without_the_sum(dy, y):
    return y * dy


@wrong(softmax_forward, (3, 4))
def softmax_with_a_mean_in_place_of_the_sum(dy, y):
    return y * (dy - (dy * y).mean(-1, keepdims=True))


@wrong(softmax_forward, (3, 4))
def softmax_with_dy_not_weighted(dy, y):
    return y * (dy - row_sum(dy))


@wrong(softmax_forward, (3, 4))
def softmax_of_zero(dy, y):
    return 0 * dy


# ---- layernorm


def norm_forward(x, gamma, beta):
    return layernorm_forward(x, gamma, beta, 1e-5)


NORM = norm_forward, (3, 5), (5,), (5,)


@wrong(*NORM)
def layernorm_without_its_mean_term(dy, cache):
    xhat, rstd, gamma = cache
    g = dy * gamma
    return rstd * (g - xhat * row_dot(g, xhat) / 5), col_sum(dy * xhat), col_sum(dy)


@wrong(*NORM)
def layernorm_without_its_variance_term(dy, cache):
    xhat, rstd, gamma = cache
    g = dy * gamma
    return rstd * (g - row_sum(g) / 5), col_sum(dy * xhat), col_sum(dy)


@wrong(*NORM)
def layernorm_with_gamma_left_out(dy, cache):
    xhat, rstd, _ = cache
    return layernorm_backward(dy, (xhat, rstd, np.ones(5, dy.dtype)))


@wrong(*NORM)
def layernorm_with_gamma_and_beta_swapped(dy, cache):
    dx, dgamma, dbeta = layernorm_backward(dy, cache)
    return dx, dbeta, dgamma


@wrong(*NORM)
def layernorm_divided_by_one_feature_fewer(dy, cache):
    xhat, rstd, gamma = cache
    g = dy * gamma
    return (
        rstd * (g - row_sum(g) / 4 - xhat * row_dot(g, xhat) / 4),
        col_sum(dy * xhat),
        col_sum(dy),
    )


@wrong(*NORM)
def layernorm_with_eps_forgotten(dy, cache):
    xhat, rstd, gamma = cache
    return layernorm_backward(dy, (xhat, 1 / np.sqrt(1 / rstd**2 - 1e-5), gamma))


@wrong(*NORM)
def layernorm_multiplied_by_rstd_twice(dy, cache):
    dx, dgamma, dbeta = layernorm_backward(dy, cache)
    return dx * cache[1], dgamma, dbeta


@wrong(*NORM)
def layernorm_with_dbeta_as_a_mean(dy, cache):
    dx, dgamma, dbeta = layernorm_backward(dy, cache)
    return dx, dgamma, dbeta / 3


@wrong(*NORM)
def layernorm_with_dgamma_from_x_before_it_is_normalised(dy, cache):
    dx, _, dbeta = layernorm_backward(dy, cache)
    return dx, col_sum(dy * cache[0] / cache[1]), dbeta


def rms_forward(x):
    r = 1 / np.sqrt((x * x).mean(-1, keepdims=True))
    return x * r, (x, r)


@wrong(rms_forward, (2, 4))
def rms_norm_with_a_factor_lost(dy, cache):
    x, r = cache
    return r * (dy - x * r * (dy * x).mean(-1, keepdims=True))


# ---- linear, sums and broadcasts

LINEAR = linear_forward, (2, 3, 4), (4, 4), (4,)


@wrong(*LINEAR)
def linear_not_transposed(dy, cache):
    _, dw, db = linear_backward(dy, cache)
    return dy @ cache[1], dw, db


@wrong(*LINEAR)
def linear_with_dw_transposed(dy, cache):
    dx, dw, db = linear_backward(dy, cache)
    return dx, dw.T.copy(), db


@wrong(*LINEAR)
def linear_bias_over_one_axis_only(dy, cache):
    dx, dw, _ = linear_backward(dy, cache)
    return dx, dw, dy[0].sum(0)


@wrong(*LINEAR)
def linear_bias_of_another_shape(dy, cache):
    dx, dw, db = linear_backward(dy, cache)
    return dx, dw, db[None]


@wrong(*LINEAR)
def linear_bias_with_the_wrong_sign(dy, cache):
    dx, dw, db = linear_backward(dy, cache)
    return dx, dw, -db


@wrong(*LINEAR)
def linear_off_by_a_millionth(dy, cache):
    dx, dw, db = linear_backward(dy, cache)
    return dx, dw * (1 + 1e-6), db


@wrong(*LINEAR)
def linear_off_by_one_part_in_1e10(dy, cache):
    dx, dw, db = linear_backward(dy, cache)
    return dx * (1 - 1e-10), dw, db


@wrong(*LINEAR)
def linear_with_dw_as_a_mean(dy, cache):
    dx, dw, db = linear_backward(dy, cache)
    return dx, dw / 6, db


@wrong(*LINEAR)
def linear_with_one_row_of_dw_forgotten(dy, cache):
    dx, dw, db = linear_backward(dy, cache)
    dw[-1] = 0
    return dx, dw, db


@wrong(*LINEAR)
def linear_in_float32_inside(dy, cache):
    dx, dw, db = linear_backward(dy, cache)
    return dx.astype(np.float32).astype(dx.dtype), dw, db


@wrong(*LINEAR)
def linear_whose_dx_is_float32(dy, cache):
    dx, dw, db = linear_backward(dy, cache)
    return dx.astype(np.float32), dw, db


@wrong(lambda a, b: (a * b, (a, b)), (3, 3), (3, 1))
def product_summed_over_the_wrong_axis(dy, cache):
    a, b = cache
    return dy * b, (dy * a).sum(0)[:, None]


@wrong(lambda a, b: (a * b, (a, b)), (3, 3), (3,))
def product_without_the_sum_of_its_broadcast(dy, cache):
    a, b = cache
    return dy * b, dy * a


@wrong(lambda a, b: (a @ b, (a, b)), (2, 3, 3), (3, 3))
def batched_product_with_the_first_image_only(dy, cache):
    a, b = cache
    return dy @ b.T, a[0].T @ dy[0]


@wrong(lambda x: (x.mean(1), x.shape), (2, 3, 2))
def mean_that_is_not_divided(dy, shape):
    return np.broadcast_to(dy[:, None], shape)


@wrong(lambda x, w: (x + np.tanh(x * w), (x, w)), (2, 3), (3,))
def residual_forgotten(dy, cache):
    x, w = cache
    slope = 1 - np.tanh(x * w) ** 2
    return dy * slope * w, (dy * slope * x).sum(0)


@wrong(lambda x: (np.tanh(x), np.tanh(x)), (2, 3))
def tanh_without_its_square(dy, y):
    return dy * (1 - y)


@wrong(lambda x: (np.where(x > 0, x, 0.1 * x), x), (3, 4))
def leaky_relu_without_its_leak(dy, x):
    return dy * (x > 0)


@wrong(lambda x: (np.cumsum(x, -1), None), (2, 4))
def cumulative_sum_not_reversed(dy, _):
    return np.cumsum(dy, -1)


@wrong(lambda x: (x[:, ::-1] * 1.0, None), (2, 4))
def flip_not_undone(dy, _):
    return dy * 1.0


# ---- attention, also with a mask such as that of dropout


def masked_forward(q, k, v):
    return attention_forward(q, k, v, np.array([2.0, 0, 2]))


ATTENTION = attention_forward, (1, 2, 2, 3), (1, 2, 2, 3), (1, 2, 2, 3)
MASKED = masked_forward, (1, 2, 3, 2), (1, 2, 3, 2), (1, 2, 3, 2)


@wrong(*ATTENTION)
def attention_not_scaled(do, cache):
    dq, dk, dv = attention_backward(do, cache)
    return dq * 3**0.5, dk * 3**0.5, dv


@wrong(*ATTENTION)
def attention_scaled_by_the_tokens_width(do, cache):
    dq, dk, dv = attention_backward(do, cache)
    return dq / 2**0.5, dk / 2**0.5, dv


@wrong(*ATTENTION)
def attention_with_keys_not_transposed(do, cache):
    q, k, v, a, p, _ = cache
    ds = softmax_backward(do @ v.swapaxes(-1, -2), a) * 3**-0.5
    return ds @ k, ds @ q, p.swapaxes(-1, -2) @ do


@wrong(*ATTENTION)
def attention_with_queries_and_keys_swapped(do, cache):
    dq, dk, dv = attention_backward(do, cache)
    return dk, dq, dv


@wrong(*ATTENTION)
def attention_with_softmax_by_its_diagonal(do, cache):
    q, k, v, a, p, _ = cache
    ds = (do @ v.swapaxes(-1, -2)) * a * (1 - a) * 3**-0.5
    return ds @ k, ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ do


@wrong(*ATTENTION)
def attention_with_the_heads_mixed_up(do, cache):
    dq, dk, dv = attention_backward(do, cache)
    return dq, dk, dv[:, ::-1].copy()


@wrong(*MASKED)
def attention_without_its_mask_in_backward(do, cache):
    q, k, v, a, p, _ = cache
    return attention_backward(do, (q, k, v, a, p, None))


@wrong(*MASKED)
def attention_without_its_mask_in_dv(do, cache):
    q, k, v, a, _, mask = cache
    return attention_backward(do, (q, k, v, a, a, mask))


@wrong(*MASKED)
def attention_with_softmax_of_the_masked_weights(do, cache):
    q, k, v, _, p, mask = cache
    return attention_backward(do, (q, k, v, p, p, mask))


def with_key_bias(q, k, v, b):
    return attention_forward(q, k + b, v)


@wrong(with_key_bias, (1, 1, 3, 2), (1, 1, 3, 2), (1, 1, 3, 2), (2,))
def attention_with_the_key_bias_added_to_the_queries(do, cache):
    dq, dk, dv = attention_backward(do, cache)
    return dq, dk, dv, dq.sum((0, 1, 2))


# ---- gelu


@wrong(gelu_tanh_forward, (3, 4))
def gelu_with_truncated_constants(dy, cache):
    x, p, _ = cache
    t = 2 * p - 1
    return dy * (0.5 + 0.5 * t + 0.5 * x * (1 - t * t) * (0.79788 + 3 * 0.0357 * x * x))


@wrong(gelu_tanh_forward, (3, 4))
def gelu_with_seven_digits_of_its_constant(dy, cache):
    x, p, y = cache
    return dy * (p + y * (1 - p) * 2 * 0.7978846 * (1 + 3 * 0.044715 * x * x))


@wrong(gelu_tanh_forward, (3, 4))
def gelu_without_the_inner_derivative(dy, cache):
    _, p, y = cache
    return dy * (p + y * (1 - p) * 2 * math.sqrt(2 / math.pi))


@wrong(gelu_erf_forward, (3, 4))
def gelu_erf_with_the_gradient_of_tanh(dy, cache):
    return gelu_tanh_backward(dy, gelu_tanh_forward(cache[0])[1])


@wrong(gelu_erf_forward, (3, 4))
def gelu_erf_with_a_table_of_erf(dy, cache):
    """Use formula 7.1.26 of Abramowitz and Stegun, whose error is up to 1.5e-7."""
    x, _ = cache
    t = 1 / (1 + 0.3275911 * abs(x) / math.sqrt(2))
    poly = t * (
        0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))
    )
    phi = 0.5 + 0.5 * np.sign(x) * (1 - poly * np.exp(-x * x / 2))
    return dy * (phi + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi))


@wrong(gelu_erf_forward, (3, 4))
def gelu_erf_without_its_second_term(dy, cache):
    return dy * cache[1]


# ---- tokens and patches


@wrong(cls_token_forward, (2, 3, 4), (4,))
def class_token_off_by_one(dy, cache):
    return dy[:, :-1], dy[:, 0].sum(0)


@wrong(cls_token_forward, (2, 3, 4), (4,))
def class_token_as_a_mean(dy, cache):
    return dy[:, 1:], dy[:, 0].mean(0)


@wrong(add_positions_forward, (2, 3, 4), (3, 4))
def positions_off_by_one_token(dy, cache):
    return dy, np.roll(dy.sum(0), 1, axis=0)


@wrong(add_positions_forward, (2, 3, 4), (3, 4))
def positions_with_the_first_image_only(dy, cache):
    return dy, dy[0].copy()


@wrong(lambda x: (patchify(x, (2, 2)), None), (1, 4, 4, 1))
def patches_put_back_by_reshape_only(dy, _):
    return dy.reshape(1, 4, 4, 1)


@wrong(lambda x: (patchify(x, (2, 2)), None), (1, 4, 4, 1))
def patches_put_back_transposed(dy, _):
    return dy.reshape(1, 2, 2, 2, 2, 1).transpose(0, 2, 4, 1, 3, 5).reshape(1, 4, 4, 1)


# ---- dropout


def drop(x):
    return dropout_forward(x, 0.5, np.random.default_rng(1))


@wrong(drop, (4, 5))
def dropout_with_another_mask(dy, mask):
    return dropout_forward(dy, 0.5, np.random.default_rng(2))[0]


@wrong(drop, (4, 5))
def dropout_without_its_scale(dy, mask):
    return dy * (mask > 0)


@wrong(lambda x: (dropout_forward(x, 0.5, RNG)[0], None), (4, 5))
def dropout_from_a_generator_that_is_not_reset(dy, _):
    return dy * 1.0


RNG: np.random.Generator = np.random.default_rng(3)


# ---- the loss

LABELS = np.array([0, 2, 1])


def loss_forward(logits):
    targets = as_probabilities(logits, LABELS)
    return cross_entropy_forward(logits, targets, smoothing=0.1)


@wrong(loss_forward, (3, 4))
def loss_not_divided_by_the_batch(dloss, cache):
    return 3 * cross_entropy_backward(dloss, cache)


@wrong(loss_forward, (3, 4))
def loss_with_its_smoothing_forgotten(dloss, cache):
    p, _, count = cache
    return (p - np.eye(4)[LABELS]) * (dloss / count)


@wrong(loss_forward, (3, 4))
def loss_with_the_wrong_labels(dloss, cache):
    p, t, count = cache
    return cross_entropy_backward(dloss, (p, np.roll(t, 1, axis=0), count))


@wrong(loss_forward, (3, 4))
def loss_that_ignores_dloss(dloss, cache):
    return cross_entropy_backward(1.0, cache)


# ---- breaches of the contract


@wrong(lambda a, b: (a + b, None), (2, 3), (2, 3))
def sum_with_one_gradient_for_both(dy, _):
    return dy, dy


@wrong(lambda x, w: (x * w, (x, w)), (2, 3), (2, 3))
def product_that_writes_to_dy(dy, cache):
    x, w = cache
    dw = dy * x
    dy *= w
    return dy.copy(), dw


@wrong(lambda x: (np.exp(x), np.exp(x)), (2, 3))
def exponential_that_uses_up_its_cache(dy, y):
    y *= dy
    return y.copy()


def centred_in_place(x):
    x -= x.mean(-1, keepdims=True)
    return x.copy(), None


@wrong(centred_in_place, (2, 3))
def centring_that_writes_to_its_input(dy, _):
    return dy - dy.mean(-1, keepdims=True)


LAST: dict[str, Any] = {}


def keeps_in_a_global(x):
    LAST["x"] = x
    return x * x, None


@wrong(keeps_in_a_global, (2, 3))
def square_with_a_stale_cache(dy, _):
    return 2 * dy * LAST["x"]


# ---- state that is kept outside of the cache

KEPT: dict[str, Any] = {}


def relu_keeping_its_mask(x):
    KEPT["mask"] = x > 0
    return x * KEPT["mask"], None


@wrong(relu_keeping_its_mask, (3, 4))
def relu_with_its_mask_kept(dy, _):
    return dy * KEPT["mask"]


def pool_keeping_its_positions(x):
    KEPT["at"] = x.argmax(-1)[..., None]
    return np.take_along_axis(x, KEPT["at"], -1)[..., 0], x


@wrong(pool_keeping_its_positions, (3, 4))
def max_pooling_with_its_positions_kept(dy, x):
    dx = np.zeros(x.shape, dy.dtype)
    np.put_along_axis(dx, KEPT["at"], dy[..., None], -1)
    return dx


def drop_keeping_its_mask(x):
    y, KEPT["dropped"] = drop(x)
    return y, None


@wrong(drop_keeping_its_mask, (4, 5))
def dropout_with_its_mask_kept(dy, _):
    return dy * KEPT["dropped"]


def flatten_keeping_its_shape(x):
    KEPT["shape"] = x.shape
    return x.reshape(len(x), x[0].size) * 1.0, None


@wrong(flatten_keeping_its_shape, (2, 3, 2))
def flatten_with_its_shape_kept(dy, _):
    return dy.reshape(KEPT["shape"]) * 1.0


def workspace(name, shape, dtype):
    """Return an array that is the same at every call with this name, shape and dtype."""
    return KEPT.setdefault(f"{name} {shape} {dtype}", np.empty(shape, dtype))


@wrong(lambda x: (x * x, x), (2, 3))
def square_with_its_gradient_in_a_workspace(dy, x):
    return np.multiply(2 * dy, x, out=workspace("dx", x.shape, x.dtype))


def square_in_a_workspace(x):
    return np.multiply(x, x, out=workspace("y", x.shape, x.dtype)), x.copy()


@wrong(square_in_a_workspace, (2, 3))
def square_with_y_in_a_workspace(dy, x):
    return 2 * dy * x


# ---- right only for a part of all dy, or for one order in memory


@wrong(lambda x: (np.maximum(x, 0), x), (2, 3))
def relu_guided(dy, x):
    """Cut off the negative dy, too (guided backpropagation)."""
    return dy * (x > 0) * (dy > 0)


@wrong(lambda x: (x * x, x), (2, 3))
def square_in_the_order_of_memory(dy, x):
    return (2 * dy.ravel("K") * x.ravel()).reshape(x.shape)


@wrong(lambda x: (x.ravel("K").reshape(x.shape) ** 2, x), (2, 3))
def square_of_inputs_in_the_order_of_memory(dy, x):
    return 2 * dy * x


CALLS: list[int] = []


@wrong(lambda x: (x * x, x), (2, 3))
def square_that_accumulates(dy, x):
    CALLS.append(1)
    return 2 * dy * x * len(CALLS)


@wrong(lambda x: (x * x, x), (2, 3))
def square_with_its_gradient_clipped(dy, x):
    return np.clip(2 * dy * x, -0.1, 0.1)


@wrong(lambda x, w: (x * w, (x, w)), (2, 3), (2, 3))
def product_that_returns_its_weight(dy, cache):
    x, w = cache
    return w, dy * x


@wrong(lambda x: (np.exp(x), x), (2, 3))
def exponential_that_becomes_nan(dy, x):
    return np.where(x > x.min(), dy * np.exp(x), np.nan)
