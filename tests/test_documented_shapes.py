"""Documented shapes cannot lie.

The shapes in the docstrings of the layers and losses are read, arrays of random sizes are
made for the inputs, and the shapes of the results are compared with the docstring.
"""

import importlib
import inspect
import pkgutil
from typing import Any

import numpy as np
import pytest
from documented_shapes import evaluate, evaluate_shape, read_signature
from hypothesis import given, settings

import numpyvit.layers
from numpyvit import ViTConfig, init
from numpyvit.testing import normal, seeds

NAMES = [f"layers.{page.name}" for page in pkgutil.iter_modules(numpyvit.layers.__path__)]
PAGES = [importlib.import_module(f"numpyvit.{name}") for name in [*NAMES, "losses"]]

# Functions whose docstrings have no shapes of this form, and why.
WITHOUT_SHAPES = {
    "mean_loss": "it returns a number",
    "check_labels": "it checks labels",
    "check_cut": "it checks sizes",
    "check_tokens": "it checks sizes",
    "draw_mask": "the shape is an argument",
    "patches_kept": "numbers in, a number out",
    "sinusoidal": "numbers in; tests/layers/test_positions.py has its formula",
    "rotation_table": "numbers in; tests/layers/test_rotary.py has its formula",
    "cross_entropy": "the pair of functions in one call, with labels or probabilities",
    "as_probabilities": "it takes labels or probabilities",
    "accuracy": "it returns a number",
}


def own(page, kind):
    """Return the public objects of a kind that a module defines."""
    return [
        item
        for name, item in vars(page).items()
        if kind(item) and item.__module__ == page.__name__ and not name.startswith("_")
    ]


def draw_sizes(rng):
    """Draw a size for every letter; sizes that depend on each other fit.

    N is the number of tokens if all n patches take part.
    """
    s = {letter: int(rng.integers(1, 6)) for letter in ["B", "C", "F", "I", "K", "M", "O"]}
    s |= {name: int(rng.integers(1, 4)) for name in ["h", "parts", "P1", "P2"]}
    rows, columns = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    overlap = int(rng.integers(0, min(s["P1"], s["P2"]) + 1))
    s["H"], s["W"], s["n"] = rows * s["P1"], columns * s["P2"], rows * columns
    s["S1"], s["S2"], s["overlap"] = s["P1"] + 2 * overlap, s["P2"] + 2 * overlap, overlap
    s["m"] = int(rng.integers(1, s["n"] + 1))
    s["E"] = 2 * int(rng.integers(1, 4))
    s["D"] = s["h"] * s["E"]
    s["prefix"] = int(rng.integers(0, 3))
    s["N"] = s["prefix"] + s["n"]
    return s


KNOWN = set(draw_sizes(np.random.default_rng(0)))

# Arguments that are not arrays, or only arrays of certain values.
ARGUMENTS = {
    "heads": lambda s, rng: s["h"],
    "parts": lambda s, rng: s["parts"],
    "patch": lambda s, rng: (s["P1"], s["P2"]),
    "image": lambda s, rng: (s["H"], s["W"]),
    "overlap": lambda s, rng: s["overlap"],
    "prefix": lambda s, rng: s["prefix"],
    "B": lambda s, rng: s["B"],
    "n": lambda s, rng: s["n"],
    "m": lambda s, rng: s["m"],
    "eps": lambda s, rng: 0.1,
    "p": lambda s, rng: 0.3,
    "rate": lambda s, rng: 0.3,
    "rng": lambda s, rng: rng,
    "like": lambda s, rng: np.zeros(1),
    "dloss": lambda s, rng: 1.0,
    "bits": lambda s, rng: rng.integers(0, 2**64, (s["B"], s["n"]), np.uint64),
    "keep": lambda s, rng: np.sort(
        rng.permuted(np.tile(np.arange(s["n"]), (s["B"], 1)), axis=1)[:, : s["m"]], axis=1
    ),
}

CONFIG: dict[str, Any] = {"image_size": 6, "patch_size": 3, "mlp_width": 3}
LAYERS = {
    "Attention": lambda cls, s: cls(s["D"], s["h"]),
    "Block": lambda cls, s: cls(ViTConfig(width=s["D"], heads=s["h"], **CONFIG), 0),
    "ClsAttention": lambda cls, s: cls(s["D"], s["h"]),
    "ClsPool": lambda cls, s: cls(),
    "ClsToken": lambda cls, s: cls(s["D"]),
    "GELU": lambda cls, s: cls(),
    "Head": lambda cls, s: cls(s["D"], s["K"], s["F"]),
    "LastBlock": lambda cls, s: cls(ViTConfig(width=s["D"], heads=s["h"], **CONFIG), 0),
    "LayerNorm": lambda cls, s: cls(s["D"]),
    "LearnedPositions": lambda cls, s: cls(s["prefix"] + s["n"], s["D"], s["prefix"]),
    "Linear": lambda cls, s: cls(s["I"], s["O"]),
    "MLP": lambda cls, s: cls(s["D"], s["F"]),
    "MeanPool": lambda cls, s: cls(),
    "NoPositions": lambda cls, s: cls(),
    "NoPrefix": lambda cls, s: cls(),
    "OverlappingPatchEmbed": lambda cls, s: cls(
        (s["H"], s["W"]), (s["P1"], s["P2"]), s["C"], s["D"], s["overlap"]
    ),
    "PatchEmbed": lambda cls, s: cls((s["H"], s["W"]), (s["P1"], s["P2"]), s["C"], s["D"]),
    "RotaryAttention": lambda cls, s: cls(s["D"], s["h"]),
    "RotaryPositions": lambda cls, s: cls((1, s["n"]), 4, s["prefix"]),
    "SinusoidalPositions": lambda cls, s: cls(s["prefix"] + s["n"], s["D"], s["prefix"]),
}


class Case:
    """Random sizes and leading axes, with which one pair of functions is run."""

    def __init__(self, seed):
        self.seed = seed
        self.rng = np.random.default_rng(seed)
        self.sizes = draw_sizes(self.rng)
        self.lead = tuple(int(n) for n in self.rng.integers(1, 4, self.rng.integers(0, 3)))
        self.none = False  # whether an input was None
        self.kept = False  # whether there was a keep

    def shape(self, shape):
        """Return the numbers of a documented shape; `(...)` alone has at least one axis."""
        if shape == ("...",) and not self.lead:
            self.lead = (3,)
        return evaluate_shape(shape, self.sizes, self.lead, self.kept)

    def inputs(self, f):
        """Return arguments for a function: arrays of the documented shapes, and the others."""
        signature = read_signature(f, KNOWN)
        parameters = list(inspect.signature(f).parameters.values())
        documented = {}
        for arrays in signature.inputs:
            for name in arrays.names:
                documented[name or parameters[0].name] = arrays
        assert set(documented) <= {p.name for p in parameters}, "the docstring names no parameter"
        # With keep, the sequence has the prefix tokens and only m of the patches.
        if "keep" in documented and (not documented["keep"].or_none or self.rng.random() < 0.5):
            self.kept = True
            self.sizes["N"] = self.sizes["prefix"] + self.sizes["m"]
        arguments = {}
        for p in parameters:
            arrays = documented.get(p.name)
            if arrays is not None:
                arguments[p.name] = self.make(p.name, arrays)
            elif p.name in ARGUMENTS and p.default is p.empty:
                arguments[p.name] = ARGUMENTS[p.name](self.sizes, self.rng)
        return arguments

    def make(self, name, arrays):
        """Return an array of a documented shape, or None if that is documented too."""
        if arrays.or_none and (not self.kept if name == "keep" else self.rng.random() < 0.5):
            self.none = True
            return None
        shape = self.shape(arrays.shapes[self.rng.integers(len(arrays.shapes))])
        if name not in ARGUMENTS:
            return abs(normal(shape, int(self.rng.integers(2**32)))) + 0.1
        made = ARGUMENTS[name](self.sizes, self.rng)
        assert np.shape(made) == shape or made == shape  # sizes such as patch (P1, P2)
        return made

    def compare(self, f, result):
        """Assert that a result has the documented shapes, and return its arrays."""
        signature = read_signature(f, KNOWN)
        wanted = [
            (arrays.shapes, arrays.or_none) for arrays in signature.outputs for _ in arrays.names
        ]
        assert wanted, "the docstring has no shapes behind the arrow"
        if len(wanted) == 1 and not signature.cache:
            result = (result,)
        assert isinstance(result, tuple)
        assert len(result) == len(wanted) + signature.cache
        for array, (shapes, or_none) in zip(result, wanted, strict=False):
            if array is None:
                assert or_none
                assert self.none
            else:
                assert np.shape(array) in [self.shape(shape) for shape in shapes]
        return result


def call(f, arguments):
    """Call a function, with the first argument by position as on_gpu wants it."""
    first, *others = arguments
    return f(arguments[first], **{name: arguments[name] for name in others})


def check_function(f, seed, forward=None):
    """Run a function, or with `forward` a backward function, and compare the shapes."""
    case = Case(seed)
    if forward is None:
        return case.compare(f, call(f, case.inputs(f)))
    *outputs, cache = case.compare(forward, call(forward, case.inputs(forward)))
    dy = read_signature(f, KNOWN).inputs[:1]
    made = [case.make(arrays.names[0], arrays) for arrays in dy] or [1.0]  # that of the loss
    assert np.shape(made[0]) == np.shape(outputs[0])
    return case.compare(f, f(made[0], cache))


def is_function(item):
    """Return whether an object is a function, a decorated one included."""
    return inspect.isfunction(inspect.unwrap(item)) if callable(item) else False


FUNCTIONS = {f"{p.__name__}.{f.__name__}": f for p in PAGES for f in own(p, is_function)}
COVERED = {name: f for name, f in FUNCTIONS.items() if read_signature(f, KNOWN)}
METHODS = {
    f"{cls.__name__}.{way}": (cls, way)
    for page in PAGES
    for cls in own(page, inspect.isclass)
    for way in ("forward", "backward")
    if way in vars(cls) and read_signature(getattr(cls, way), KNOWN)
}


@pytest.mark.parametrize("name", COVERED)
@settings(max_examples=25)
@given(seed=seeds)
def test_functions(name, seed):
    """Both the function that runs and, if it is another one, the one that a reader sees."""
    f, forward = FUNCTIONS[name], None
    if name.endswith("_backward"):
        forward = FUNCTIONS[name.removesuffix("backward") + "forward"]
    check_function(f, seed, forward)
    if hasattr(f, "__wrapped__"):
        check_function(inspect.unwrap(f), seed, forward and inspect.unwrap(forward))


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=25)
@given(seed=seeds)
def test_methods_of_layers(name, seed):
    cls, way = METHODS[name]
    case = Case(seed)
    layer = LAYERS[cls.__name__](cls, case.sizes)
    params = init(layer, seed, np.float64)
    arguments = case.inputs(layer.forward)
    y, cache = case.compare(layer.forward, layer.forward(params, **arguments))
    if way == "backward":
        (dy,) = read_signature(layer.backward, KNOWN).inputs
        made = case.make(dy.names[0], dy)
        assert made.shape == y.shape
        case.compare(layer.backward, layer.backward(made, cache, params.zeros_like()))


def test_all_functions_are_covered_or_listed_with_a_reason():
    missing = {FUNCTIONS[name].__name__ for name in set(FUNCTIONS) - set(COVERED)}
    assert missing == set(WITHOUT_SHAPES)
    assert len(COVERED) >= 40
    assert len(METHODS) >= 30


def test_all_layers_are_covered():
    classes = {cls.__name__ for page in PAGES for cls in own(page, inspect.isclass)}
    assert classes == set(LAYERS)
    for page in PAGES:
        for cls in own(page, inspect.isclass):
            for way in {"forward", "backward"} & set(vars(cls)):
                assert f"{cls.__name__}.{way}" in METHODS


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("H/P1 * W/P2", 6),
        ("P1 * P2 * C", 24),
        ("3D", 36),
        ("2n", 10),
        ("E/2", 3),
        ("N-1", 9),
        ("prefix + m", 6),
        ("N - 2n + 3", 3),
    ],
)
def test_sizes_are_evaluated(text, value):
    sizes = {"H": 6, "W": 12, "P1": 2, "P2": 6, "C": 2, "D": 12, "E": 6, "N": 10, "n": 5}
    assert evaluate(text, sizes | {"prefix": 2, "m": 4}) == value


def test_a_division_must_be_exact():
    with pytest.raises(ValueError, match="not an integer"):
        evaluate("E/2", {"E": 3})


def right(x, w, b):
    """x (..., I), w (I, O), b (O,) or None  ->  y (..., O), cache (a tuple)."""
    y = x @ w
    return (y if b is None else y + b), ()


WRONG = [
    "x (..., I), w (I, O), b (O,) or None  ->  y (..., I), cache.",
    "x (..., I), w (O, I), b (O,) or None  ->  y (..., O), cache.",
    "x (..., I), w (I, O), b (I,) or None  ->  y (..., O), cache.",
    "x (..., I), w (I, O), b (O,) or None  ->  y (B, O), cache.",
    "x (..., I), w (I, O), b (O,) or None  ->  y (..., O), z (O,), cache.",
    "x (..., I), w (I, O), b (O,) or None  ->  y (..., O).",
    "x (..., I), w (I, O), c (O,) or None  ->  y (..., O), cache.",
    "x (..., I), w (I, O), b (O,) or None  ->  something, cache.",
]


@pytest.mark.parametrize("doc", WRONG)
def test_a_wrong_docstring_is_noticed(doc):
    def f(x, w, b):
        return right(x, w, b)

    f.__doc__ = doc
    failures = 0
    for seed in range(10):
        check_function(right, seed)
        try:
            check_function(f, seed)
        except (AssertionError, ValueError, TypeError):
            failures += 1
    assert failures
