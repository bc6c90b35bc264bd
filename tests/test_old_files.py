"""Runs and models that older versions of numpyvit have written can still be used.

old_files/ holds runs that were stopped after the first of two epochs, by version 0.2.0
and by a later commit of that version. expected.npz holds, for each of them: step, at
which it was stopped; weights, after it was resumed and finished; stopped and finished,
the probabilities that model.npz gave for 20 test images before and after.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest

from numpyvit import Classifier, data
from numpyvit.cli.main import main
from numpyvit.train.folder import read_config
from numpyvit.train.loop import train
from numpyvit.train.run import Run

OLD = Path(__file__).parent / "old_files"
RUNS = sorted(folder for folder in OLD.iterdir() if folder.is_dir())


def quiet(line):
    pass


@pytest.fixture(params=RUNS, ids=lambda folder: folder.name)
def run(request, tmp_path):
    """(a copy of the run's folder, what is expected of it)"""
    folder = tmp_path / "run"
    shutil.copytree(request.param, folder)
    with np.load(folder / "expected.npz") as expected:
        return folder, dict(expected)


def predictions(folder):
    _, test = data.digits()
    return Classifier.load(folder / "model.npz").predict(test.images[:20])


def test_a_run_resumes_to_the_same_weights(run):
    folder, expected = run
    np.testing.assert_allclose(predictions(folder), expected["stopped"], atol=1e-5)
    resumed = Run.resume(folder, *data.digits(), quiet)
    assert resumed.step == expected["step"]
    train(resumed, workers=2, say=quiet)
    np.testing.assert_allclose(resumed.params.flat, expected["weights"], atol=1e-5)
    np.testing.assert_allclose(predictions(folder), expected["finished"], atol=1e-5)


def test_the_expected_weights_are_not_those_of_the_checkpoint(run):
    """Otherwise the test above would pass if resuming trained nothing."""
    folder, expected = run
    resumed = Run.resume(folder, *data.digits(), quiet)
    assert abs(resumed.params.flat - expected["weights"]).max() > 1e-3


def test_the_commands_read_it(run, capsys):
    folder, _ = run
    assert main(["evaluate", str(folder)]) == 0
    assert main(["compare", str(folder)]) == 0
    assert main(["train", "--resume", str(folder), "--quiet"]) == 0


def test_renamed_settings_keep_their_values():
    config, _, _ = read_config(OLD / "e8b74fb-patch-dropout")
    recipe = config.recipe
    assert (recipe.rotate, recipe.translate, recipe.full_patches) == (5, 0, 0.4)
    assert recipe.patch_dropout == 0.5
    config, _, _ = read_config(OLD / "0.2.0-cls")
    assert (config.recipe.rotate, config.recipe.translate) == (10, 1)
    assert config.recipe.patch_dropout == 0
