"""The two training scripts in examples/ run, on random images, and train as the recipes do."""

import dataclasses
import runpy
from pathlib import Path

import numpy as np
import pytest

import numpyvit as nv
from numpyvit.train.config import TrainConfig
from numpyvit.train.loop import train as train_run
from numpyvit.train.recipes import recipes
from numpyvit.train.run import Run

EXAMPLES = Path(__file__).parent.parent / "examples"


def noise(shape, n):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, *shape), np.uint8)
    return nv.data.make_dataset("noise", images, np.arange(n) % 10)


@pytest.mark.parametrize(("name", "shape"), [("mnist", (28, 28, 1)), ("cifar10", (32, 32, 3))])
def test_training_scripts(name, shape, tmp_path, monkeypatch, capsys):
    """Both loops run on random images, obey their options, and save a model that loads."""
    folders = []

    def load(data_dir):
        folders.append(data_dir)
        return noise(shape, 300), noise(shape, 20)

    monkeypatch.setattr(nv.data, name, load)
    monkeypatch.chdir(tmp_path)
    script = runpy.run_path(str(EXAMPLES / f"train_{name}.py"))
    options = ["--data-dir", "DIR", "--epochs", "2", "--seed", "1", "--limit", "140"]
    script["main"](options)
    printed = capsys.readouterr().out.splitlines()
    assert folders == ["DIR"]
    assert printed[0].startswith("140 training and 20 test images")
    assert [line.split("  ")[0] for line in printed[1:-1]] == ["epoch 1", "epoch 2"]
    saved = nv.Classifier.load(f"{name}.npz")
    assert saved.config == nv.presets[name]
    assert f"numpyvit predict {name}.npz" in printed[-1]


@pytest.mark.parametrize(("name", "shape"), [("mnist", (28, 28, 1)), ("cifar10", (32, 32, 3))])
def test_training_scripts_do_what_the_recipes_do(name, shape, tmp_path, monkeypatch):
    """The weights have the bits of `numpyvit train` with the recipe and the same seed."""
    train, test = noise(shape, 300), noise(shape, 20)
    monkeypatch.setattr(nv.data, name, lambda data_dir: (train, test))
    monkeypatch.chdir(tmp_path)
    script = runpy.run_path(str(EXAMPLES / f"train_{name}.py"))
    script["main"](["--epochs", "2", "--seed", "1"])
    recipe = dataclasses.replace(recipes[name], epochs=2)
    config = TrainConfig(name, nv.presets[name], recipe, seed=1)
    run = Run.start(config, Path("run"), train, test)
    train_run(run, say=lambda line: None)
    weights = [nv.Classifier.load(path).params.flat for path in (f"{name}.npz", "run/model.npz")]
    assert np.array_equal(*weights)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
@pytest.mark.parametrize("option", ["--epochs", "--limit"])
def test_training_scripts_refuse_options_that_leave_nothing_to_do(name, option, tmp_path, capsys):
    script = runpy.run_path(str(EXAMPLES / f"train_{name}.py"))
    with pytest.raises(SystemExit) as stop:
        script["main"](["--data-dir", str(tmp_path), option, "0"])
    assert stop.value.code == 2
    assert "--epochs and --limit must be 1 or more" in capsys.readouterr().err
