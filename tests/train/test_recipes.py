"""The recipes, their scripts and their logs: that what the documents promise is what a run of today's recipe gave."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from numpyvit import ViTConfig, presets
from numpyvit.train.folder import read_metrics
from numpyvit.train.recipes import MADE_FOR, Recipe, recipes

ROOT = Path(__file__).parents[2]
LOGS = sorted((ROOT / "benchmarks" / "logs").glob("*/seed-*"))
NAMES = sorted({log.parent.name for log in LOGS})
MOST_WEIGHTS = {"mnist-30k": 30_000, "cifar10-150k": 150_000}


def script(name):
    return ROOT / "examples" / f"{name.replace('-', '_')}.py"


@pytest.mark.parametrize("log", LOGS, ids=lambda log: f"{log.parent.name}, {log.name}")
def test_a_log_is_of_the_recipe_as_it_is_today(log):
    """(A field that joined since had its default then.)"""
    config, name = json.loads((log / "config.json").read_text()), log.parent.name
    assert config["data"] == MADE_FOR.get(name, name)
    assert f"seed-{config['seed']}" == log.name
    assert config["val"] == 0
    assert Recipe(**config["recipe"]) == recipes[name]
    assert ViTConfig.from_dict(config["model"]) == presets[recipes[name].preset]
    assert read_metrics(log)[-1]["epoch"] == recipes[name].epochs


@pytest.mark.parametrize("name", NAMES)
def test_each_recipe_has_logs_and_the_documents_say_what_is_in_them(name):
    logs = [log for log in LOGS if log.parent.name == name]
    assert logs
    page, readme = script(name).read_text(), (ROOT / "README.md").read_text()
    for log in logs:
        accuracy = f"{100 * read_metrics(log)[-1]['test_accuracy']:.2f} %"
        assert accuracy in page
        assert accuracy in readme


@pytest.mark.parametrize("name", NAMES)
def test_each_script_runs(name, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "noise.npz",
        images=rng.integers(0, 256, (20, 28, 28), np.uint8),
        labels=np.arange(20) % 2,
    )
    args = [
        "--data",
        str(tmp_path / "noise.npz"),
        "--epochs",
        "1",
        "--out",
        str(tmp_path / "run"),
        "--quiet",
    ]
    monkeypatch.setattr(sys, "argv", [str(script(name)), *args])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script(name)), run_name="__main__")
    assert end.value.code == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["recipe"] == {**vars(recipes[name]), "epochs": 1}


@pytest.mark.parametrize(("name", "most"), MOST_WEIGHTS.items())
def test_small_ones_are_small(name, most):
    from numpyvit import ViT

    assert ViT(presets[name]).count() <= most
