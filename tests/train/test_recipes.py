"""The recipes, their descriptions and their logs: what the documents promise was
reached by runs of the recipes as they are today.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from numpyvit import ViT, presets
from numpyvit.cli.main import main
from numpyvit.train.config import TrainConfig
from numpyvit.train.metrics import read_metrics
from numpyvit.train.recipes import catalogue, recipes

ROOT = Path(__file__).parents[2]
LOGS = sorted((ROOT / "benchmarks" / "logs").glob("*/seed-*"))
NAMES = sorted({log.parent.name for log in LOGS})
MOST_WEIGHTS = {"mnist-30k": 30_000, "cifar10-150k": 150_000}


@pytest.mark.parametrize("log", LOGS, ids=lambda log: f"{log.parent.name}, {log.name}")
def test_a_log_belongs_to_the_recipe_of_today(log):
    """A field that was added later had its default at that time."""
    fields = json.loads((log / "config.json").read_text())
    name = log.parent.name
    for key in ("data_md5", "versions"):
        del fields[key]
    config = TrainConfig.from_dict(fields)
    assert config.data == catalogue[name].data
    assert f"seed-{config.seed}" == log.name
    assert config.val == 0
    assert config.recipe == recipes[name]
    assert config.model == presets[recipes[name].preset]
    assert read_metrics(log)[-1]["epoch"] == recipes[name].epochs


@pytest.mark.parametrize("name", NAMES)
def test_the_documents_say_what_is_in_the_logs(name):
    logs = [log for log in LOGS if log.parent.name == name]
    readme = (ROOT / "README.md").read_text()
    for log in logs:
        accuracy = f"{100 * read_metrics(log)[-1]['test_accuracy']:.2f} %"
        assert accuracy in catalogue[name].accuracy
        assert accuracy in readme


@pytest.mark.parametrize("name", catalogue)
def test_a_description_names_the_right_number_of_weights(name):
    entry = catalogue[name]
    assert entry.about
    assert bool(entry.accuracy) == bool(entry.time)
    if "weights" in entry.about:
        assert f"{ViT(presets[entry.recipe.preset]).count():,} weights" in " ".join(
            entry.about.split()
        )


@pytest.mark.parametrize("name", NAMES)
def test_each_recipe_runs_on_other_data(name, tmp_path):
    rng = np.random.default_rng(0)
    data = str(tmp_path / "noise.npz")
    out = str(tmp_path / "run")
    np.savez(
        data,
        images=rng.integers(0, 256, (20, 28, 28), np.uint8),
        labels=np.arange(20) % 2,
    )
    options = ["--data", data, "--epochs", "1", "--out", out, "--quiet"]
    assert main(["train", "--recipe", name, *options]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["recipe"] == {**vars(recipes[name]), "epochs": 1}


@pytest.mark.parametrize(("name", "most"), MOST_WEIGHTS.items())
def test_small_models_are_small(name, most):
    assert ViT(presets[name]).count() <= most
