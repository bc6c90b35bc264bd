"""The examples in the docstrings give the results that they show."""

import doctest
import importlib
import pkgutil

import pytest

import numpyvit

MODULES = [
    module.name
    for module in pkgutil.walk_packages(numpyvit.__path__, "numpyvit.")
    if not module.name.endswith("__main__")
]
WITH_EXAMPLES = [
    "layers.linear",
    "layers.gelu",
    "layers.softmax",
    "layers.layernorm",
    "layers.attention",
    "layers.rotary",
    "layers.patches",
    "losses",
]


@pytest.mark.parametrize("name", ["numpyvit", *MODULES])
def test_examples(name):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_pages_of_the_textbook_have_examples(name):
    module = importlib.import_module(f"numpyvit.{name}")
    examples = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    assert examples


def test_all_modules_are_found():
    assert {"numpyvit.vit", "numpyvit.layers.linear", "numpyvit.backend.ops"} <= set(MODULES)
