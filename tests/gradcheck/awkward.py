"""Right backwards of functions that are difficult to check.

The functions are steep or flat, have huge or tiny values, or are evaluated near a kink.
A checker must not call their gradients wrong.

AWKWARD = {name: (forward, backward, function from a seed to inputs, names whose
gradient is zero)}.
"""

from typing import Any

import numpy as np

from numpyvit.layers.attention import attention_backward, attention_forward
from numpyvit.layers.dropout import dropout_backward, dropout_forward
from numpyvit.layers.gelu import gelu_erf_backward, gelu_erf_forward
from numpyvit.layers.layernorm import layernorm_backward, layernorm_forward
from numpyvit.layers.positions import add_positions_backward, add_positions_forward
from numpyvit.layers.softmax import softmax_backward, softmax_forward
from numpyvit.losses import as_probabilities, cross_entropy_backward, cross_entropy_forward
from numpyvit.testing import normal

AWKWARD: dict[str, Any] = {}


def elementwise(name, f, slope, scale=1.0, shape=(2, 3), shift=0.0, zero=()):
    """Register y = f(x) with its derivative `slope`.

    The inputs are normally distributed, times `scale`, plus `shift`.
    """
    AWKWARD[name] = (
        lambda x: (f(x), x),
        lambda dy, x: dy * slope(x),
        lambda seed: [scale * normal(shape, seed) + shift],
        zero,
    )


def pair(name, forward, backward, inputs, zero=()):
    """Register a forward and its backward."""
    AWKWARD[name] = forward, backward, inputs, zero


def normals(*shapes):
    """Return a function from a seed to normally distributed inputs of these shapes."""
    return lambda seed: [normal(shape, seed + i) for i, shape in enumerate(shapes)]


elementwise("steep", lambda x: np.tanh(1e4 * x), lambda x: 1e4 / np.cosh(1e4 * x) ** 2, 1e-4)
elementwise(
    "very steep, of tiny inputs", lambda x: np.sin(1e8 * x), lambda x: 1e8 * np.cos(1e8 * x), 1e-8
)
elementwise(
    "a narrow bump",
    lambda x: np.exp(-((1e6 * x) ** 2)),
    lambda x: -2e12 * x * np.exp(-((1e6 * x) ** 2)),
    1e-6,
)
elementwise("flat", lambda x: np.sin(1e-6 * x), lambda x: 1e-6 * np.cos(1e-6 * x))
elementwise("of huge inputs", lambda x: np.sin(1e-8 * x), lambda x: 1e-8 * np.cos(1e-8 * x), 1e8)
elementwise("of a huge scale", lambda x: 1e100 * np.sin(x), lambda x: 1e100 * np.cos(x))
elementwise("of a tiny scale", lambda x: 1e-100 * np.sin(x), lambda x: 1e-100 * np.cos(x))
elementwise(
    "far out in a tail", lambda x: np.exp(-x * x), lambda x: -2 * x * np.exp(-x * x), 0.3, shift=6
)
elementwise("fast waves", lambda x: np.sin(100 * x), lambda x: 100 * np.cos(100 * x))
elementwise("next to a pole", lambda x: 1 / x, lambda x: -1 / (x * x), 1e-3)
elementwise("next to the edge of its domain", np.log, lambda x: 1 / x, 1e-4, shift=1e-3)
elementwise("the ninth power", lambda x: x**9, lambda x: 9 * x**8)
elementwise("flat at zero", lambda x: x * x * x, lambda x: 3 * x * x, 1e-3)
elementwise(
    "next to a kink", lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0, 1e-6, zero=["input 0"]
)
elementwise("a linear function", lambda x: 3 * x, lambda x: 3.0)
elementwise("a single number", np.exp, np.exp, shape=())
elementwise("an empty array", np.exp, np.exp, shape=(0, 3))
pair("gelu far out", gelu_erf_forward, gelu_erf_backward, lambda seed: [4 * normal((2, 3), seed)])
elementwise("that returns float64 for longdouble", lambda x: np.sin(x.astype(np.float64)), np.cos)
elementwise(
    "that hides that it computes in float64",
    lambda x: np.sin(x.astype(np.float64)).astype(x.dtype),
    np.cos,
)

pair(
    "a matrix's inverse, which has no longdouble",
    lambda x: (np.linalg.inv(x),) * 2,
    lambda dy, y: -y.T @ dy @ y.T,
    lambda seed: [normal((3, 3), seed) + 4 * np.eye(3)],
)
pair(
    "a maximum",
    lambda x: (x.max(-1), x),
    lambda dy, x: dy[:, None] * (x == x.max(-1, keepdims=True)),
    normals((3, 4)),
)
pair(
    "a constant",
    lambda x: (softmax_forward(x)[0].sum(-1), softmax_forward(x)[1]),
    lambda dy, y: softmax_backward(np.repeat(dy[:, None], 4, 1), y),
    normals((3, 4)),
    ["input 0"],
)
pair("scores far apart", softmax_forward, softmax_backward, lambda seed: [5 * normal((3, 4), seed)])
pair(
    "a loss at large logits",
    lambda x: cross_entropy_forward(x, as_probabilities(x, np.array([0, 1, 2]))),
    cross_entropy_backward,
    lambda seed: [1e3 * normal((3, 4), seed)],
    ["input 0"],
)
pair(
    "inputs of different scales",
    lambda a, b: (np.sin(1e6 * a) * np.cos(1e-6 * b), (a, b)),
    lambda dy, c: (
        dy * 1e6 * np.cos(1e6 * c[0]) * np.cos(1e-6 * c[1]),
        dy * -1e-6 * np.sin(1e6 * c[0]) * np.sin(1e-6 * c[1]),
    ),
    lambda seed: [1e-6 * normal((2, 3), seed), 1e6 * normal((2, 3), seed + 1)],
)
pair(
    "a norm of nearly equal features",
    lambda x, g, b: layernorm_forward(x, g, b, 1e-6),
    layernorm_backward,
    lambda seed: [5 + 1e-3 * normal((2, 4), seed), normal((4,), seed + 1), normal((4,), seed + 2)],
)
pair(
    "the bias of the keys",
    lambda q, k, v, b: attention_forward(q, k + b, v),
    lambda do, c: (*attention_backward(do, c), attention_backward(do, c)[1].sum((0, 1, 2))),
    normals((1, 2, 3, 2), (1, 2, 3, 2), (1, 2, 3, 2), (2,)),
    ["input 3"],
)
pair(
    "a sum of a thousand", lambda x: ((x * x).sum(), x), lambda dy, x: 2 * dy * x, normals((10, 12))
)
pair(
    "a gradient that is dy itself",
    add_positions_forward,
    add_positions_backward,
    normals((2, 3, 2), (3, 2)),
)
pair(
    "a gradient that is a view of a single number",
    lambda x: (x.sum(), x.shape),
    np.broadcast_to,
    normals((2, 3)),
)
pair(
    "dropout from a seed",
    lambda x: dropout_forward(x, 0.5, np.random.default_rng(1)),
    dropout_backward,
    normals((4, 5)),
)
pair(
    "two functions in one",
    lambda x: (np.stack([1e8 * np.sin(x), np.cos(x)]), x),
    lambda dy, x: 1e8 * dy[0] * np.cos(x) - dy[1] * np.sin(x),
    normals((2, 3)),
)
pair(
    "a large offset", lambda x: (1e3 + np.sin(x), x), lambda dy, x: dy * np.cos(x), normals((2, 3))
)


def squared_relu_mlp(x, w1, w2):
    a = np.maximum(x @ w1, 0)
    return a * a @ w2, (x, w1, w2, a)


def squared_relu_mlp_backward(dy, cache):
    x, w1, w2, a = cache
    dz = dy @ w2.T * 2 * a
    return dz @ w1.T, x.T @ dz, (a * a).T @ dy


pair(
    "an mlp with a squared relu",
    squared_relu_mlp,
    squared_relu_mlp_backward,
    normals((3, 4), (4, 6), (6, 2)),
)


def group_norm(x):
    """x (B, N, D): normalise groups of D / 2 features of each token."""
    groups = x.reshape(*x.shape[:2], 2, -1)
    ones, zeros = np.ones(groups.shape[-1], x.dtype), np.zeros(groups.shape[-1], x.dtype)
    y, cache = layernorm_forward(groups, ones, zeros, 1e-5)
    return y.reshape(x.shape), cache


def group_norm_backward(dy, cache):
    groups = dy.reshape(*dy.shape[:2], 2, -1)
    return layernorm_backward(groups, cache)[0].reshape(dy.shape)


pair("group norm", group_norm, group_norm_backward, normals((2, 2, 8)))
pair("relu", lambda x: (np.maximum(x, 0), x > 0), lambda dy, mask: dy * mask, normals((3, 4)))


def max_pool(x):
    """x (B, H, W)  ->  y (B, H / 2, W / 2), the maxima of 2 x 2 patches."""
    B, H, W = x.shape
    patches = x.reshape(B, H // 2, 2, W // 2, 2).swapaxes(2, 3).reshape(B, H // 2, W // 2, 4)
    at = patches.argmax(-1)[..., None]
    return np.take_along_axis(patches, at, -1)[..., 0], (at, x.shape)


def max_pool_backward(dy, cache):
    at, (B, H, W) = cache
    dx = np.zeros((B, H // 2, W // 2, 4), dy.dtype)
    np.put_along_axis(dx, at, dy[..., None], -1)
    return dx.reshape(B, H // 2, W // 2, 2, 2).swapaxes(2, 3).reshape(B, H, W)


pair("max pooling", max_pool, max_pool_backward, normals((2, 4, 4)))

MASK = np.array([[2.0, 0, 2, 2], [0, 0, 2, 0]])
pair(
    "dropout with a given mask",
    lambda x: (x * MASK.astype(x.dtype), None),
    lambda dy, _: dy * MASK,
    normals((2, 4)),
)
