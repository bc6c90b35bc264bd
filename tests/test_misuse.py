"""Each argument of the public functions and classes, given each of many wrong values.

A wrong value is refused by a UserError of one line that names the argument. It is never
accepted in silence, and never ends in an AttributeError, a KeyError and the like.
"""

import math
from typing import Any

import numpy as np
import pytest

import numpyvit as nv
from numpyvit import data
from numpyvit.layers.attention import Attention
from numpyvit.layers.block import Block
from numpyvit.layers.gelu import GELU
from numpyvit.layers.head import Head
from numpyvit.layers.last_block import LastBlock
from numpyvit.layers.layernorm import LayerNorm
from numpyvit.layers.linear import Linear
from numpyvit.layers.mlp import MLP
from numpyvit.layers.overlap import OverlappingPatchEmbed
from numpyvit.layers.patches import PatchEmbed
from numpyvit.layers.positions import LearnedPositions, SinusoidalPositions
from numpyvit.layers.prefix import ClsToken
from numpyvit.layers.rotary import RotaryAttention, RotaryPositions
from numpyvit.params import xavier

CONFIG = nv.ViTConfig(8, 4, 1, 3, width=8, depth=1, heads=2, mlp_width=8)
MODEL = nv.ViT(CONFIG)
PARAMS = MODEL.init()
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), np.uint8)
LABELS = np.arange(6) % 3
TRAIN = data.make_dataset("some", IMAGES, LABELS, ("a", "b", "c"))
X = data.normalise(IMAGES, TRAIN.mean, TRAIN.std)
TARGETS = np.eye(3, dtype=np.float32)[LABELS]
LOGITS = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)


class Wrong:
    """An object that has nothing."""


BAD = [
    None,
    True,
    "x",
    "",
    b"x",
    -1,
    0,
    1,
    2,
    1.5,
    -0.5,
    1e9,
    math.nan,
    math.inf,
    -math.inf,
    10**400,
    -(10**400),
    1j,
    [],
    [1, 2],
    [[1], [2, 3]],
    ["a", "b", "c"],
    (),
    (4, 4),
    (0, 4),
    (4, "x"),
    {},
    {"a": 1},
    Wrong(),
    Wrong,
    len,
    np.float32(0.5),
    np.int64(2),
    np.float64(np.nan),
    np.array(1.5),
    np.zeros(0),
    np.zeros((2, 3, 5)),
    np.full((6, 3), np.nan),
    np.full(6, -1),
    np.full((6, 8, 8, 1), 0.5),
    np.zeros((6, 1, 8, 8), np.uint8),
    np.array([None, "x"]),
    np.array(["a", "b", "c", "a", "b", "c"]),
    np.zeros((6, 3), complex),
    np.ma.masked_array([1, 2], [True, False]),
    np.random.default_rng(0),
    nv.ViT(CONFIG).init(),
    nv.ViTConfig(),
    TRAIN,
]


# Which values are right for an argument, too: functions of the value.


def is_number(value):
    if isinstance(value, np.number):
        value = value.item()
    is_one = isinstance(value, int | float)
    return is_one and not isinstance(value, bool) and -(10**300) < value < 10**300


def number(least=-math.inf, most=math.inf):
    return lambda value: is_number(value) and least <= value <= most


def above_zero(value):
    return is_number(value) and value > 0


def fraction(value):
    return is_number(value) and 0 <= value < 1


def integer(least=0, most=2**63):
    return lambda value: isinstance(value, int | np.integer) and number(least, most)(value)


def instance(*kinds):
    return lambda value: isinstance(value, kinds)


def optional(ok):
    return lambda value: value is None or ok(value)


def function(value):
    return callable(value) and not isinstance(value, type)


def never(value):
    return False


def pair(value):
    return isinstance(value, tuple) and value == (4, 4)


def three_names(value):
    return isinstance(value, list) and value == ["a", "b", "c"]


def rate_of_dropout(value):
    return number(0, 0.99)(value) and isinstance(value, int | float)  # JSON has no float32


def uint8(value):
    """Return whether it is the array of images of another shape."""
    return isinstance(value, np.ndarray) and value.dtype == np.uint8


def all_nan(value):
    """Return whether it is the array of NaN, which a model that has diverged gives."""
    return isinstance(value, np.ndarray) and value.shape == (6, 3) and value.dtype == float


def perhaps(kind):
    """Return what leaves open whether a value of this kind is right (None)."""
    return lambda value: None if isinstance(value, kind) else False


not_negative, size, boolean = number(0), integer(1, 2**31 - 1), instance(bool)
buffer, dataset = instance(nv.Buffer), instance(data.Dataset)


def augmented(make):
    """Return a function that makes an augmentation and applies it."""
    return lambda *args, **kwargs: make(*args, **kwargs)(IMAGES, np.random.default_rng(0))


def mixed(make):
    return lambda *args, **kwargs: make(*args, **kwargs)(IMAGES, TARGETS, np.random.default_rng(0))


def step(make):
    """Return a function that takes a step with a new optimizer of this kind."""

    def take(**kwargs):
        make(PARAMS).step(**({"params": PARAMS.copy(), "grads": PARAMS.zeros_like()} | kwargs))

    return take


def rate(step):
    return nv.schedule("cosine", 0.1, 2, 10)(step)


def with_flat(flat):
    params = PARAMS.copy()
    params.flat = flat


def with_item(bias):
    params = PARAMS.copy()
    params["head.out.b"] = bias


def broadcasts(value):
    """Return whether a value can be assigned to the bias (3,) of the head."""
    try:
        np.zeros(3, np.float32)[...] = value
    except Exception:
        return False
    return True


adamw = {
    "params": buffer,
    "betas": never,
    "eps": above_zero,
    "weight_decay": not_negative,
    "average": fraction,
}
steps = {"lr": not_negative, "clip": optional(above_zero), "params": buffer, "grads": buffer}
GOOD_STEP = {"params": PARAMS.copy(), "grads": PARAMS.zeros_like(), "lr": 0.1, "clip": 1.0}
GOOD_CONFIG = {name: getattr(CONFIG, name) for name in CONFIG.to_dict()}
config_arguments = {
    "image_size": pair,
    "patch_size": lambda value: pair(value) or integer(1, 2)(value) or str(value) == "[1, 2]",
    "channels": size,
    "classes": size,
    "width": integer(2, 2),
    "depth": integer(1, 100),
    "heads": integer(1, 2),
    "mlp_width": size,
    "pooling": never,
    "positions": never,
    "gelu": never,
    "head_hidden": integer(0, 2**31 - 1),
    "qkv_bias": boolean,
    "norm_eps": lambda value: above_zero(value) and not isinstance(value, np.float32),
    "dropout": rate_of_dropout,
    "attention_dropout": rate_of_dropout,
    "drop_path": rate_of_dropout,
    "patch_overlap": integer(0, 4),
}
GOOD_DATASET = {
    "name": "some",
    "images": IMAGES,
    "labels": LABELS,
    "mean": TRAIN.mean,
    "std": TRAIN.std,
    "classes": TRAIN.classes,
}
GOOD_BATCHES = {
    "data": TRAIN,
    "batch_size": 4,
    "epochs": 1,
    "seed": 0,
    "augment": None,
    "mix": None,
    "start_step": 0,
    "dtype": np.float32,
}
GOOD_CLASSIFIER: dict[str, Any] = {
    "model": MODEL,
    "params": PARAMS,
    "mean": TRAIN.mean,
    "std": TRAIN.std,
    "classes": TRAIN.classes,
    "background": 0.0,
    "box": 0,
}

# name: (function, good arguments, {argument: whether a value is right, too})
CASES = {
    "AdamW": (nv.AdamW, {"params": PARAMS}, adamw),
    "Muon": (nv.Muon, {"params": PARAMS}, adamw | {"momentum": fraction}),
    "SGD": (
        nv.SGD,
        {"params": PARAMS},
        {
            "params": buffer,
            "momentum": fraction,
            "weight_decay": not_negative,
            "average": fraction,
        },
    ),
    "AdamW.step": (step(nv.AdamW), GOOD_STEP, steps | {"map": function}),
    "Muon.step": (step(nv.Muon), GOOD_STEP, steps),
    "SGD.step": (step(nv.SGD), GOOD_STEP, steps),
    "AdamW.load_state": (nv.AdamW(PARAMS).load_state, {"state": None}, {"state": never}),
    "Muon.load_state": (nv.Muon(PARAMS).load_state, {"state": None}, {"state": never}),
    "SGD.load_state": (nv.SGD(PARAMS).load_state, {"state": None}, {"state": never}),
    "schedule": (
        nv.schedule,
        {"shape": "cosine", "peak": 0.1, "warmup": 1, "steps": 9},
        {
            "shape": never,
            "peak": not_negative,
            "warmup": not_negative,
            "steps": integer(),
            "final": not_negative,
        },
    ),
    "warmup_cosine": (
        nv.warmup_cosine,
        {"peak": 0.1, "warmup": 1, "steps": 9},
        {
            "peak": not_negative,
            "warmup": not_negative,
            "steps": integer(),
            "final": not_negative,
        },
    ),
    "rate": (rate, {"step": 1}, {"step": not_negative}),
    "cross_entropy": (
        nv.cross_entropy,
        {"logits": LOGITS, "targets": LABELS},
        {
            "logits": all_nan,
            "targets": never,
            "smoothing": fraction,
            "count": optional(integer(1)),
        },
    ),
    "accuracy": (
        nv.accuracy,
        {"logits": LOGITS, "labels": LABELS},
        {"logits": all_nan, "labels": never},
    ),
    "init": (
        nv.init,
        {"layer": MODEL},
        {"seed": integer(most=2**128), "dtype": never},
    ),
    "ViT": (nv.ViT, {"config": CONFIG}, {"config": instance(nv.ViTConfig), "shortcuts": boolean}),
    "ViT.init": (MODEL.init, {}, {"seed": integer(), "dtype": never}),
    "ViT.forward": (
        MODEL.forward,
        {"params": PARAMS, "images": X},
        {
            "params": never,
            "images": never,
            "rng": optional(instance(np.random.Generator)),
            "keep": optional(never),
        },
    ),
    "ViTConfig": (nv.ViTConfig, GOOD_CONFIG, config_arguments),
    "Buffer": (
        nv.Buffer,
        {"params": MODEL.params, "flat": PARAMS.flat},
        {"params": never, "flat": never},
    ),
    "Buffer.flat": (with_flat, {"flat": PARAMS.flat}, {"flat": never}),
    "Buffer.__setitem__": (with_item, {"bias": 0.0}, {"bias": broadcasts}),
    "Buffer.astype": (PARAMS.astype, {"dtype": np.float64}, {"dtype": never}),
    "Buffer.to": (PARAMS.to, {"device": "cpu"}, {"device": never}),
    "Param": (
        nv.Param,
        {"shape": (2, 3), "init": xavier},
        {
            "shape": lambda value: isinstance(value, tuple) and value in ((), (4, 4)),
            "init": function,
            "decay": boolean,
        },
    ),
    "Classifier": (
        nv.Classifier,
        GOOD_CLASSIFIER,
        {
            "model": never,
            "params": never,
            "mean": never,
            "std": never,
            "classes": three_names,
            "background": number(0, 255),
            "box": integer(0, 7),
        },
    ),
    "Classifier.of": (
        nv.Classifier.of,
        {"model": MODEL, "params": PARAMS, "train": TRAIN},
        {"model": never, "params": never, "train": dataset},
    ),
    "Classifier.save": (
        nv.Classifier(**GOOD_CLASSIFIER).save,
        {"path": ""},
        {"path": perhaps(str)},
    ),
    "Classifier.load": (nv.Classifier.load, {"path": ""}, {"path": perhaps(str)}),
    "Classifier.predict": (
        nv.Classifier(**GOOD_CLASSIFIER).predict,
        {"images": IMAGES},
        {"images": never},
    ),
    "Dataset": (
        data.Dataset,
        GOOD_DATASET,
        {
            "name": instance(str),
            "images": never,
            "labels": never,
            "mean": never,
            "std": never,
            "classes": three_names,
        },
    ),
    "make_dataset": (
        data.make_dataset,
        {"name": "some", "images": IMAGES, "labels": LABELS},
        {
            "name": instance(str),
            "images": never,
            "labels": never,
            "classes": optional(three_names),
            "like": optional(dataset),
        },
    ),
    "hold_out": (
        data.hold_out,
        {"data": TRAIN, "fraction": 0.5},
        {
            "data": dataset,
            "fraction": lambda value: is_number(value) and value == 0.5,
            "seed": integer(),
        },
    ),
    "normalise": (
        data.normalise,
        {"images": IMAGES, "mean": TRAIN.mean, "std": TRAIN.std},
        {"images": never, "mean": never, "std": never, "dtype": never},
    ),
    "batches": (
        data.batches,
        GOOD_BATCHES,
        {
            "data": dataset,
            "batch_size": integer(1),
            "epochs": integer(),
            "seed": integer(),
            "augment": optional(function),
            "mix": optional(function),
            "start_step": integer(),
            "dtype": never,
        },
    ),
    "steps_per_epoch": (
        data.steps_per_epoch,
        {"images": 10, "batch_size": 3},
        {"images": integer(), "batch_size": integer(1)},
    ),
    "shift": (augmented(data.shift), {"pixels": 2}, {"pixels": integer(0, 10_000)}),
    "flip": (
        data.flip(),
        {"images": IMAGES, "rng": np.random.default_rng(0)},
        {"images": uint8, "rng": instance(np.random.Generator)},
    ),
    "mix": (
        data.one_of(data.mixup(0.2)),
        {"images": IMAGES, "targets": TARGETS, "rng": np.random.default_rng(0)},
        {"images": uint8, "targets": all_nan, "rng": instance(np.random.Generator)},
    ),
    "compose": (lambda step: data.compose(step), {"step": data.flip()}, {"step": function}),
    "one_of": (lambda mix: data.one_of(mix), {"mix": data.mixup(0.2)}, {"mix": function}),
    "affine": (
        augmented(data.affine),
        {},
        {
            "rotate": not_negative,
            "scale": fraction,
            "translate": number(0, 10_000),
            "shear": number(0, 10_000),
        },
    ),
    "erase": (augmented(data.erase), {"probability": 0.5}, {"probability": number(0, 1)}),
    "randaugment": (
        augmented(data.randaugment),
        {},
        {"operations": integer(), "magnitude": number(0, 10)},
    ),
    "mixup": (mixed(data.mixup), {"alpha": 0.2}, {"alpha": above_zero}),
    "cutmix": (mixed(data.cutmix), {"alpha": 0.2}, {"alpha": above_zero}),
    "Linear": (
        Linear,
        {"d_in": 3, "d_out": 4},
        {"d_in": size, "d_out": size, "bias": boolean, "init": function},
    ),
    "LayerNorm": (LayerNorm, {"width": 4}, {"width": size, "eps": above_zero}),
    "Attention": (
        Attention,
        {"width": 8, "heads": 2},
        {
            "width": lambda value: size(value) and value % 2 == 0,
            "heads": integer(1, 2),
            "qkv_bias": boolean,
            "dropout": fraction,
        },
    ),
    "RotaryAttention": (RotaryAttention, {"width": 8, "heads": 2}, {"heads": integer(1, 2)}),
    "MLP": (MLP, {"width": 8, "hidden": 4}, {"width": size, "hidden": size, "gelu": never}),
    "GELU": (GELU, {}, {"form": never}),
    "Head": (
        Head,
        {"width": 8, "classes": 3},
        {"width": size, "classes": size, "hidden": integer(0, 2**31 - 1)},
    ),
    "ClsToken": (ClsToken, {"width": 8}, {"width": size}),
    "PatchEmbed": (
        PatchEmbed,
        {"image": (8, 8), "patch": (4, 4), "channels": 1, "width": 8},
        {"image": pair, "patch": pair, "channels": size, "width": size},
    ),
    "OverlappingPatchEmbed": (
        OverlappingPatchEmbed,
        {"image": (8, 8), "patch": (4, 4), "channels": 1, "width": 8, "overlap": 1},
        {"overlap": integer(0, 100)},
    ),
    "LearnedPositions": (
        LearnedPositions,
        {"tokens": 4, "width": 8},
        {"tokens": size, "width": size, "prefix": integer(0, 4)},
    ),
    "SinusoidalPositions": (
        SinusoidalPositions,
        {"tokens": 4, "width": 8},
        {"tokens": size, "width": size, "prefix": integer(0, 4)},
    ),
    "RotaryPositions": (
        RotaryPositions,
        {"grid": (2, 2), "head_width": 4},
        {"grid": pair, "head_width": never, "prefix": integer()},
    ),
    "Block": (
        Block,
        {"config": CONFIG, "i": 0},
        {"config": instance(nv.ViTConfig), "i": integer(0, 0)},
    ),
    "LastBlock": (
        LastBlock,
        {"config": CONFIG, "i": 0},
        {"config": instance(nv.ViTConfig), "i": integer(0, 0)},
    ),
    "load": (data.load, {"name": "digits"}, {"name": perhaps(str)}),
    "take": (TRAIN.take, {"index": [0]}, {"index": perhaps((list, tuple, np.ndarray))}),
}


# Other words by which messages name an argument.
ALSO = {
    ("schedule", "shape"): ["schedule"],
    ("cross_entropy", "targets"): ["labels"],
    ("ViT.forward", "params"): ["a Param of shape"],
    ("Dataset", "images"): ["mean"],  # it has another number of channels
    ("normalise", "images"): ["mean"],
    ("GELU", "form"): ["gelu"],
    ("RotaryPositions", "grid"): ["rows", "columns"],
    ("Buffer", "params"): ["the weights"],
    ("Buffer", "flat"): ["the weights"],
    ("Buffer.__setitem__", "bias"): ["'head.out.b'"],
}


def outcome(call, arguments):
    """Return "right", the message of a UserError, or the exception of another kind."""
    try:
        call(**arguments)
    except nv.UserError as error:
        return str(error)
    except Exception as error:
        return error
    return "right"


@pytest.mark.parametrize(
    ("name", "argument"), [(name, argument) for name in CASES for argument in CASES[name][2]]
)
def test_wrong_values_are_refused_by_name(name, argument, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, good, arguments = CASES[name]
    problems = []
    for value in BAD:
        is_right = arguments[argument](value)
        result = outcome(call, {**good, argument: value})
        is_refused = isinstance(result, str) and result != "right" and "\n" not in result
        words = [argument, *ALSO.get((name, argument), [])]
        named = is_refused and any(word in result for word in words)
        either = is_refused or result == "right"
        if not {True: result == "right", False: named, None: either}[is_right]:
            problems.append(f"{value!r:.60}: {result!r:.150}")
    assert not problems, "\n".join([f"{name}, {argument}:", *problems])


def test_the_good_arguments_are_right():
    for name, (call, good, _) in CASES.items():
        if not name.endswith((".load_state", ".save", ".load")):
            assert outcome(call, good) == "right", name


def test_there_are_thousands_of_cases():
    assert sum(len(arguments) for *_, arguments in CASES.values()) * len(BAD) > 6000
