"""The checks of `numpyvit gradcheck`: each layer and loss in its options, and the whole model."""

import inspect
import itertools
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from ..backend.arrays import Array
from ..config import GELU as GELU_FORMS
from ..config import POOLING, POSITIONS, ViTConfig
from ..layers.attention import Attention, attention_backward, attention_forward
from ..layers.attention_fast import attention_fast_backward, attention_fast_forward
from ..layers.attention_pool import ClsAttention, attention_pool_backward, attention_pool_forward
from ..layers.block import Block
from ..layers.dropout import (
    drop_path_backward,
    drop_path_forward,
    dropout_backward,
    dropout_forward,
)
from ..layers.gelu import GELU
from ..layers.head import Head
from ..layers.last_block import LastBlock
from ..layers.layernorm import LayerNorm
from ..layers.linear import Linear
from ..layers.mlp import MLP
from ..layers.overlap import OverlappingPatchEmbed
from ..layers.patches import PatchEmbed
from ..layers.pooling import ClsPool, MeanPool
from ..layers.positions import LearnedPositions, SinusoidalPositions
from ..layers.prefix import ClsToken
from ..layers.rotary import RotaryAttention, rotary_backward, rotary_forward, rotation_table
from ..layers.softmax import softmax_backward, softmax_forward
from ..losses import as_probabilities, cross_entropy_backward, cross_entropy_forward
from ..params import params_of
from ..vit import ViT
from ..watch import Call, watch
from . import SHARP, check_function, check_layer, check_model
from .report import Report
from .values import normal as normal_on_host

Checks = dict[str, Callable[[], Report]]  # a name, and a function that runs the check

MODEL: dict[str, Any] = {
    "image_size": (6, 4),
    "patch_size": (3, 2),
    "channels": 2,
    "classes": 3,
    "width": 8,
    "depth": 2,
    "heads": 2,
    "mlp_width": 6,
}
OPTIONS: dict[str, list[Any]] = {
    "pooling": POOLING,
    "positions": POSITIONS,
    "head_hidden": [0, 5],
    "gelu": GELU_FORMS,
    "dropout": [0.0, 0.2],
    "qkv_bias": [True, False],
}


def layer_checks(seed: int = 0, xp: ModuleType = np) -> Checks:
    """Return a check for each layer and loss, by name.

    xp: the library, numpy or cupy, on whose arrays the layers are checked. The differences
    are sharpest on NumPy's. On CuPy's, the kernels are checked in place of the functions that
    have one.
    """
    makers = (token_checks, dropout_checks, attention_checks, block_checks, loss_checks)
    checks: Checks = {}
    for make in makers:
        checks.update(make(seed, xp))
    return checks


def layer_and_function(seed: int, xp: ModuleType) -> tuple[Any, Any]:
    """Return check_layer and check_function with the seed and the tolerance for our layers."""
    tolerance = SHARP if xp is np else None
    return (
        partial(check_layer, seed=seed, tolerance=tolerance),
        partial(check_function, seed=seed, tolerance=tolerance),
    )


def normal(shape: tuple[int, ...], seed: int, xp: ModuleType) -> Array:
    """Return random values on the device of xp."""
    return xp.asarray(normal_on_host(shape, seed))


def token_checks(seed: int, xp: ModuleType) -> Checks:
    """Return checks of the layers that make tokens of an image, work on each, and pool them."""
    layer, function = layer_and_function(seed, xp)
    x = normal((2, 3, 6), seed, xp)
    images = normal((2, 4, 6, 2), seed, xp)
    keep = xp.asarray(np.array([[0, 3], [1, 2]]))
    embed = PatchEmbed((4, 6), (2, 3), 2, 3)
    overlapping = OverlappingPatchEmbed((4, 6), (2, 3), 2, 3, 1)
    return {
        "linear": partial(layer, Linear(6, 4), x),
        "linear without bias": partial(layer, Linear(6, 4, bias=False), x),
        "patches": partial(layer, embed, images),
        "some patches": partial(layer, embed, images, keep=keep),
        "patches that overlap": partial(layer, overlapping, images),
        "class token": partial(layer, ClsToken(6), x),
        "positions": partial(layer, LearnedPositions(3, 6), x),
        "positions of some patches": partial(layer, LearnedPositions(5, 6, 1), x, keep=keep),
        "positions, sinusoidal": partial(layer, SinusoidalPositions(3, 6), x),
        "layernorm": partial(layer, LayerNorm(6), x),
        "gelu, tanh": partial(layer, GELU("tanh"), x),
        "gelu, erf": partial(layer, GELU("erf"), x),
        "softmax": partial(function, softmax_forward, softmax_backward, x, names=["x"]),
        "mlp": partial(layer, MLP(6, 5), x),
        "pooling, class token": partial(layer, ClsPool(), x),
        "pooling, mean": partial(layer, MeanPool(), x),
        "head": partial(layer, Head(6, 4), x[0]),
        "head with a hidden layer": partial(layer, Head(6, 4, hidden=5), x[0]),
    }


def dropout_checks(seed: int, xp: ModuleType) -> Checks:
    """Return checks of dropout and drop path with fixed masks, which may drop everything."""
    _, function = layer_and_function(seed, xp)
    function = partial(function, names=["x"], zero=["x"])

    def dropout(x: Array) -> tuple[Array, Any]:
        return dropout_forward(x, 0.5, dropout_rng(seed))

    def drop_path(x: Array) -> tuple[Array, Any]:
        return drop_path_forward(x, 0.5, dropout_rng(seed))

    return {
        "dropout": partial(function, dropout, dropout_backward, normal((2, 3, 6), seed, xp)),
        "drop path": partial(function, drop_path, drop_path_backward, normal((4, 2, 3), seed, xp)),
    }


def dropout_rng(seed: int) -> np.random.Generator:
    """Return the generator that draws the masks of a check, the same at each call."""
    return np.random.default_rng(seed + 3)


def attention_checks(seed: int, xp: ModuleType) -> Checks:
    """Return checks of the functions of attention: textbook and fast, rotary, pooling."""
    layer, function = layer_and_function(seed, xp)
    q, k, v = (normal((2, 2, 3, 2), seed + i, xp) for i in range(3))
    mask = xp.asarray(np.array([[[2.0, 0, 2], [2, 2, 2], [0, 2, 2]]]))
    rotation = xp.asarray(rotation_table((1, 2), 4, 1))
    textbook_forward = inspect.unwrap(attention_forward)
    textbook_backward = as_tuple(inspect.unwrap(attention_backward))
    # On a GPU the decorated functions run the kernels.
    fast_forward, fast_backward = attention_fast_forward, attention_fast_backward
    if xp is not np:
        fast_forward, fast_backward = attention_forward, attention_backward

    def masked(q: Array, k: Array, v: Array) -> tuple[Array, Any]:
        return textbook_forward(q, k, v, mask)

    def rotary(x: Array) -> tuple[Array, Any]:
        return rotary_forward(x, rotation)

    qkv = partial(function, names=["q", "k", "v"])
    return {
        "rotary": partial(
            function, rotary, rotary_backward, normal((2, 2, 3, 4), seed, xp), names=["x"]
        ),
        "attention, textbook": partial(qkv, textbook_forward, textbook_backward, q, k, v),
        "attention, textbook, dropout": partial(qkv, masked, textbook_backward, q, k, v),
        "attention, fast": partial(qkv, fast_forward, as_tuple(fast_backward), q, k, v),
        "attention, rotary": partial(
            layer, RotaryAttention(8, 2), normal((2, 3, 8), seed, xp), rotation=rotation
        ),
        "attention pool": attention_pool_check(seed, xp, mask),
    }


def attention_pool_check(seed: int, xp: ModuleType, mask: Array) -> Callable[[], Report]:
    """Return a check of attention pooling with one query and dropout."""
    _, function = layer_and_function(seed, xp)
    first_row = xp.broadcast_to(mask[:, None, :1], (2, 2, 1, 3))  # (B, h, M, N)
    keys_first = xp.moveaxis(first_row, 3, 0)  # (N, B, h, M)
    shapes = {"q": (2, 1, 6), "x": (2, 3, 6), "wk": (6, 6), "wv": (6, 6), "bv": (6,)}
    inputs = [normal(shape, seed + i, xp) for i, shape in enumerate(shapes.values())]

    def forward(q: Array, x: Array, wk: Array, wv: Array, bv: Array) -> tuple[Array, Any]:
        return attention_pool_forward(q, x, wk, wv, bv, 2, keys_first)

    return partial(function, forward, attention_pool_backward, *inputs, names=list(shapes))


def as_tuple(backward: Callable[..., Array]) -> Callable[..., tuple[Array, ...]]:
    """Return a backward that returns a tuple, for one that stacks its gradients in an array."""
    return lambda dy, cache: tuple(backward(dy, cache))


def block_checks(seed: int, xp: ModuleType) -> Checks:
    """Return checks of the layers attention and block in their options."""
    layer, _ = layer_and_function(seed, xp)
    layer = partial(layer, rng=partial(dropout_rng, seed))
    x = normal((2, 3, 6), seed, xp)
    checks: Checks = {}
    for bias, first, p in itertools.product((True, False), (False, True), (0.0, 0.3)):
        name = "" if bias else " without bias"
        name += " of the first token" if first else ""
        name += ", dropout" if p else ""
        config = ViTConfig(
            width=6,
            heads=2,
            mlp_width=5,
            depth=1,
            qkv_bias=bias,
            norm_eps=0.1,
            dropout=p,
            attention_dropout=p,
            drop_path=p,
        )
        attention = (ClsAttention if first else Attention)(6, 2, bias, p)
        block = (LastBlock if first else Block)(config, 0)
        for kind, part in (("attention", attention), ("block", block)):
            zero = weights_of(part) if p else []
            checks[kind + name] = partial(layer, part, x, zero=zero)
    return checks


def loss_checks(seed: int, xp: ModuleType) -> Checks:
    """Return checks of cross-entropy in its options."""
    _, function = layer_and_function(seed, xp)
    logits = normal((3, 6), seed, xp)
    labels = xp.asarray(np.array([0, 5, 2]))
    probabilities, _ = softmax_forward(normal((3, 6), seed + 1, xp))
    checks: Checks = {}
    for soft, smoothing in itertools.product((False, True), (0.0, 0.1)):
        name = "cross-entropy"
        name += ", soft targets" if soft else ""
        name += ", smoothing" if smoothing else ""
        t = probabilities if soft else as_probabilities(logits, labels)
        forward = partial(cross_entropy_forward, t=t, smoothing=smoothing)
        checks[name] = partial(function, forward, cross_entropy_backward, logits, names=["logits"])
    return checks


def check_config(
    config: ViTConfig, seed: int = 0, tick: Callable[[], Any] | None = None, xp: ModuleType = np
) -> Report:
    """Check a whole model with two images, and with its dropout, if it has any.

    tick is called at each forward of the model, for a progress bar.
    """
    model = ViT(config)
    images = normal((2, *config.image, config.channels), seed, xp)
    dropped = config.dropout or config.attention_dropout or config.drop_path

    def count(call: Call) -> Any:
        if tick and call.layer is model and call.method == "forward":
            tick()
        return call()

    with watch(model, count):
        return check_model(
            model,
            images,
            seed,
            tolerance=SHARP if xp is np else None,
            rng=lambda: np.random.default_rng(seed),
            zero=weights_of(model) if dropped else [],
        )


def weights_of(layer: Any) -> list[str]:
    """Return the names whose gradient is zero if dropout happens to drop everything."""
    return ["x", *params_of(layer)]


def few_model_checks(seed: int = 0, xp: ModuleType = np) -> Checks:
    """Return two of `model_checks`, which have positions and differ in all other options."""
    checks = [item for item in model_checks(seed, xp).items() if "positions learned" in item[0]]
    return dict([checks[0], checks[-1]])


def model_checks(seed: int = 0, xp: ModuleType = np) -> Checks:
    """Return a check of a tiny model for every combination of OPTIONS.

    "dropout" stands for all kinds of dropout at once.
    """
    checks: Checks = {}
    for values in itertools.product(*OPTIONS.values()):
        fields = dict(zip(OPTIONS, values, strict=True))
        p = fields["dropout"]
        config = ViTConfig(**MODEL, **fields, attention_dropout=p, drop_path=p)
        name = ", ".join(f"{name} {value}" for name, value in fields.items())
        checks[f"model: {name}"] = partial(check_config, config, seed, xp=xp)
    return checks
