"""More than an hour of training on real data: `pytest -m slow`.

The README promises these accuracies; a margin is left for other processors.
"""

import os
from pathlib import Path

import pytest

from numpyvit.cli.main import main
from numpyvit.train.metrics import read_metrics
from numpyvit.train.recipes import catalogue

pytestmark = pytest.mark.slow
DATA = os.environ.get("NUMPYVIT_TEST_DATA")  # a folder with mnist/, cifar10/: the real files


def train(tmp_path, *args):
    assert main(["train", "--out", str(tmp_path / "run"), "--quiet", *args]) == 0
    return read_metrics(tmp_path / "run")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_digits(seed, tmp_path):
    rows = train(tmp_path, "--seed", str(seed))
    assert rows[-1]["test_accuracy"] >= 0.98


@pytest.mark.parametrize(
    ("recipe", "accuracy"),
    [("mnist", 0.988), ("mnist-30k", 0.989), ("fashion-mnist", 0.92), ("cifar10", 0.84)],
)
def test_recipes(recipe, accuracy, tmp_path):
    name = catalogue[recipe].data
    if not DATA or not (Path(DATA) / name).exists():
        pytest.skip(
            f"the real {name} is not here: set NUMPYVIT_TEST_DATA to the folder that holds {name}/"
        )
    assert train(tmp_path, "--recipe", recipe, "--data-dir", DATA)[-1]["test_accuracy"] >= accuracy
