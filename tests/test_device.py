"""The same pages on a GPU: all of it on a strict stand-in for CuPy, and, with the marker gpu, on a real one."""

import pytest
from standin import strict

from numpyvit.gradcheck.suite import layer_checks, model_checks


@pytest.fixture(scope="module")
def cupy():
    with strict.installed() as module:
        yield module


@pytest.mark.parametrize("name", layer_checks())
def test_gradients_of_each_layer(cupy, name):
    report = layer_checks(xp=cupy)[name]()
    assert report, f"\n{report}"


@pytest.mark.parametrize("name", list(model_checks())[::5])
def test_gradients_of_models(cupy, name):
    report = model_checks(xp=cupy)[name]()
    assert report, f"\n{report}"
