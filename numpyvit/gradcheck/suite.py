"""What `numpyvit gradcheck` checks: every layer and loss of this package in its options, and the whole model."""

import itertools
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from ..backend.arrays import Array, fused, get_xp
from ..layers.attention import Attention, attention_backward, attention_forward
from ..layers.attention_fast import keys_first_backward, keys_first_forward
from ..layers.attention_pool import few_queries_backward, few_queries_forward
from ..layers.block import Block
from ..layers.dropout import (
    drop_path_backward,
    drop_path_forward,
    dropout_backward,
    dropout_forward,
)
from ..layers.gelu import GELU
from ..layers.head import Head
from ..layers.layernorm import LayerNorm
from ..layers.linear import Linear
from ..layers.mlp import MLP
from ..layers.patch_dropout import patch_dropout_backward, patch_dropout_forward
from ..layers.patches import PatchEmbed
from ..layers.positions import ClsToken, Positions
from ..layers.rotary import rotary_backward, rotary_forward, turns
from ..layers.softmax import softmax_backward, softmax_forward
from ..losses import cross_entropy_backward, cross_entropy_forward
from ..params import params_of
from ..vit import ViT, ViTConfig
from . import SHARP, check_function, check_layer, check_model
from .contract import normal as normal_on_host
from .report import Report

Checks = dict[str, Callable[[], Report]]
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
    "pooling": ["cls", "mean"],
    "positions": ["learned", "sinusoidal", "rotary", "none"],
    "head_hidden": [0, 5],
    "gelu": ["tanh", "erf"],
    "dropout": [0.0, 0.2],
    "qkv_bias": [True, False],
}


def keys_first(do: Array, cache: tuple) -> tuple[Array, ...]:
    """keys_first_backward, returning what it writes."""
    q, k, v, *_ = cache
    out = [get_xp(q).empty_like(t) for t in (q, k, v)]
    keys_first_backward(do, cache, out)
    return tuple(out)


def layer_checks(seed: int = 0, xp: ModuleType = np) -> Checks:
    """Each layer, by name. xp: whose arrays it is checked on; the differences are sharpest on NumPy's. On CuPy's the fused
    kernels are checked, where there are some: those that no layer calls, here by `fused`."""

    def normal(shape: tuple[int, ...], seed: int) -> Array:
        return xp.asarray(normal_on_host(shape, seed))

    x, images = normal((2, 3, 6), seed), normal((2, 4, 6, 2), seed)
    q, k, v = (normal((2, 2, 3, 2), seed + i) for i in range(3))
    mask = xp.asarray(np.array([[[2.0, 0, 2], [2, 2, 2], [0, 2, 2]]]))
    few_mask = xp.moveaxis(xp.broadcast_to(mask[:, None, :1], (2, 2, 1, 3)), 3, 0)
    sharp = SHARP if xp is np else None

    def rng() -> np.random.Generator:
        return np.random.default_rng(seed + 3)

    layer, function = (
        partial(check_layer, seed=seed, tolerance=sharp),
        partial(check_function, seed=seed, tolerance=sharp),
    )
    checks: Checks = {
        "linear": partial(layer, Linear(6, 4), x),
        "linear without bias": partial(layer, Linear(6, 4, bias=False), x),
        "patches": partial(layer, PatchEmbed((4, 6), (2, 3), 2, 3), images),
        "patches that overlap": partial(layer, PatchEmbed((4, 6), (2, 3), 2, 3, overlap=1), images),
        "class token": partial(layer, ClsToken(6), x),
        "positions": partial(layer, Positions(3, 6), x),
        "rotary": partial(
            function,
            lambda x: rotary_forward(x, turns((1, 2), 4, 1)),
            rotary_backward,
            normal((2, 3, 2, 4), seed),
            names=["x"],
        ),
        "layernorm": partial(layer, LayerNorm(6), x),
        "gelu, tanh": partial(layer, GELU("tanh"), x),
        "gelu, erf": partial(layer, GELU("erf"), x),
        "softmax": partial(
            function, fused(softmax_forward, x), fused(softmax_backward, x), x, names=["x"]
        ),
        "dropout": partial(
            function,
            lambda x: dropout_forward(x, 0.5, rng()),
            dropout_backward,
            x,
            names=["x"],
            zero=["x"],
        ),
        "drop path": partial(
            function,
            lambda x: drop_path_forward(x, 0.5, rng()),
            drop_path_backward,
            normal((4, 2, 3), seed),
            names=["x"],
            zero=["x"],
        ),
        "patch dropout": partial(
            function,
            lambda x: patch_dropout_forward(x, 0.4, rng(), 1),
            patch_dropout_backward,
            x,
            names=["x"],
        ),
        "mlp": partial(layer, MLP(6, 5), x),
        "head": partial(layer, Head(6, 4), x[0]),
        "head with a hidden layer": partial(layer, Head(6, 4, hidden=5), x[0]),
        "attention, textbook": partial(
            function, attention_forward, attention_backward, q, k, v, names=["q", "k", "v"]
        ),
        "attention, textbook, dropout": partial(
            function,
            lambda q, k, v: attention_forward(q, k, v, mask),
            attention_backward,
            q,
            k,
            v,
            names=["q", "k", "v"],
        ),
        "attention, keys first": partial(
            function, keys_first_forward, keys_first, q, k, v, names=["q", "k", "v"]
        ),
        "attention, rotary": partial(
            layer, Attention(8, 2), normal((2, 3, 8), seed), turn=turns((1, 2), 4, 1)
        ),
        "attention, few queries": partial(
            function,
            lambda x, w, b: few_queries_forward(x, w, b, 2, 1, few_mask),
            few_queries_backward,
            x,
            normal((6, 18), seed + 1),
            normal((18,), seed + 2),
            names=["x", "w", "b"],
        ),
    }
    for bias, rows, p in itertools.product((True, False), (None, 1), (0.0, 0.3)):
        name = f"{'' if bias else ' without bias'}{' of the first token' if rows else ''}{', dropout' if p else ''}"
        attention = Attention(6, 2, bias, p)
        zero = weights_of(attention) if p else []
        checks["attention" + name] = partial(layer, attention, x, rows=rows, rng=rng, zero=zero)
        block = Block(6, 2, 5, qkv_bias=bias, eps=0.1, dropout=p, attention_dropout=p, drop_path=p)
        checks["block" + name] = partial(
            layer, block, x, rows=rows, rng=rng, zero=weights_of(block) if p else []
        )
    for soft, smoothing in itertools.product((False, True), (0.0, 0.1)):
        targets = (
            softmax_forward(normal((3, 6), seed + 1))[0]
            if soft
            else xp.asarray(np.array([0, 5, 2]))
        )
        checks[
            f"cross-entropy{', soft targets' if soft else ''}{', smoothing' if smoothing else ''}"
        ] = partial(
            function,
            partial(fused(cross_entropy_forward, x), targets=targets, smoothing=smoothing),
            fused(cross_entropy_backward, x),
            x[0],
            names=["logits"],
        )
    return checks


def check_config(
    config: ViTConfig, seed: int = 0, tick: Callable[[], Any] | None = None, xp: ModuleType = np
) -> Report:
    """The whole model, with two images, and with its dropout, if it has any. tick is called at each forward."""
    model, images = (
        ViT(config),
        xp.asarray(normal_on_host((2, *config.image, config.channels), seed)),
    )
    dropped = config.dropout or config.attention_dropout or config.drop_path or config.patch_dropout
    forward = model.forward

    def counted(*args: Any, **options: Any) -> Any:
        if tick:
            tick()
        return forward(*args, **options)

    model.forward = counted  # type: ignore[method-assign]
    return check_model(
        model,
        images,
        seed,
        tolerance=SHARP if xp is np else None,
        rng=lambda: np.random.default_rng(seed),
        zero=weights_of(model) if dropped else [],
    )


def weights_of(layer: Any) -> list[str]:
    """Names that may have no gradient where everything is dropped."""
    return ["x", *params_of(layer)]


def model_checks(seed: int = 0, xp: ModuleType = np) -> Checks:
    """A tiny model in every combination of OPTIONS; with dropout, in every kind of it."""
    checks: Checks = {}
    for values in itertools.product(*OPTIONS.values()):
        fields = dict(zip(OPTIONS, values, strict=True))
        p = fields["dropout"]
        config = ViTConfig(**MODEL, **fields, attention_dropout=p, drop_path=p, patch_dropout=p)
        name = ", ".join(f"{name} {value}" for name, value in fields.items())
        checks[f"model: {name}"] = partial(check_config, config, seed, xp=xp)
    return checks
