"""The model that ships with the package: of what it never saw, how much it knows."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from numpyvit import Classifier, data
from numpyvit.cli.main import main

ROOT = Path(__file__).parent.parent
DATA = os.environ.get("NUMPYVIT_TEST_DATA")  # a folder with mnist/: the real files


@pytest.fixture(scope="module")
def classifier():
    return Classifier.mnist()


def test_it_is_small_and_the_recipes(classifier):
    from numpyvit import presets

    assert classifier.config == presets["mnist-30k"]
    assert classifier.model.count() <= 30_000
    assert (ROOT / "numpyvit" / "weights" / "mnist.npz").stat().st_size < 200_000
    assert classifier.box == 20


def test_mnist(classifier):
    if not DATA or not (Path(DATA) / "mnist").exists():
        pytest.skip(
            "the real MNIST is not here: set NUMPYVIT_TEST_DATA to the folder that holds mnist/"
        )
    _, test = data.mnist(DATA)
    assert np.mean(classifier.predict(test.images).argmax(1) == test.labels) >= 0.989


def test_digits_of_other_people(classifier, tmp_path):
    """The packaged set's test images, 8x8, as pictures of black ink that lies anywhere on white paper."""
    _, test = data.digits()
    rng = np.random.default_rng(0)
    images = []
    for i, image in enumerate(test.images[:200]):
        side = int(rng.integers(50, 150))
        ink = np.asarray(
            Image.fromarray(image[..., 0]).resize((side, side), Image.Resampling.BICUBIC)
        )
        top, left, bottom, right = rng.integers(8, 90, 4)
        Image.fromarray(255 - np.pad(ink, ((top, bottom), (left, right)))).save(
            tmp_path / f"{i}.png"
        )
        images.append(classifier.read_image(tmp_path / f"{i}.png")[0])
    assert np.mean(classifier.predict(np.stack(images)).argmax(1) == test.labels[:200]) >= 0.95


def test_predict_without_a_run_says_what_the_readme_says(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(["predict", "examples/three.png"]) == 0
    assert capsys.readouterr().out in (ROOT / "README.md").read_text()
