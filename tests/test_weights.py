"""The packaged model, on images that it was not trained on."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from numpyvit import Classifier, data
from numpyvit.cli.main import main

ROOT = Path(__file__).parent.parent
DATA = os.environ.get("NUMPYVIT_TEST_DATA")  # a folder that contains the real MNIST in mnist/


@pytest.fixture(scope="module")
def classifier():
    return Classifier.mnist()


def test_it_has_the_recipes_config_and_is_small(classifier):
    from numpyvit import presets

    assert classifier.config == presets["mnist-30k"]
    assert classifier.model.count() <= 30_000
    assert (ROOT / "numpyvit" / "weights" / "mnist.npz").stat().st_size < 200_000
    assert classifier.box == 20


def test_its_accuracy_on_mnist(classifier):
    if not DATA or not (Path(DATA) / "mnist").exists():
        pytest.skip("needs the real MNIST: set NUMPYVIT_TEST_DATA to a folder that contains mnist/")
    _, test = data.mnist(DATA)
    assert np.mean(classifier.predict(test.images).argmax(1) == test.labels) >= 0.989


def test_its_accuracy_on_digits_of_another_data_set(classifier, tmp_path):
    """The packaged digits, scaled up and drawn in black anywhere on white paper."""
    _, test = data.digits()
    rng = np.random.default_rng(0)
    images = []
    for i, image in enumerate(test.images[:200]):
        side = int(rng.integers(50, 150))
        digit = Image.fromarray(image[..., 0])
        ink = np.asarray(digit.resize((side, side), Image.Resampling.BICUBIC))
        top, left, bottom, right = rng.integers(8, 90, 4)
        paper = 255 - np.pad(ink, ((top, bottom), (left, right)))
        Image.fromarray(paper).save(tmp_path / f"{i}.png")
        images.append(classifier.read_image(tmp_path / f"{i}.png")[0])
    assert np.mean(classifier.predict(np.stack(images)).argmax(1) == test.labels[:200]) >= 0.95


def test_the_readme_shows_the_output_of_predict(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(["predict", "examples/three.png"]) == 0
    assert capsys.readouterr().out in (ROOT / "README.md").read_text()
