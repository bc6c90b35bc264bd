"""numpyvit predict with many files, some of which cannot be read."""

import numpy as np
import pytest
from PIL import Image

from numpyvit import Classifier, data
from numpyvit.cli import predict
from numpyvit.cli.main import main


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Write seven digits of 8x8 and two files that are not images."""
    monkeypatch.chdir(tmp_path)
    _, test = data.digits()
    for i in range(7):
        image = Image.fromarray(test.images[i, ..., 0]).resize((80, 80))
        image.save(f"{i}.png")
    for name in "xy":
        (tmp_path / f"{name}.png").write_text("not an image")
    return [f"{i}.png" for i in range(7)]


def call(capsys, *args):
    code = main(["predict", *args])
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err.splitlines()


def test_files_that_cannot_be_read_are_named_at_the_end(pictures, capsys):
    _, expected, _ = call(capsys, *pictures)
    assert [line.split(":")[0] for line in expected] == pictures
    files = ["x.png", *pictures[:3], "missing.png", *pictures[3:], "y.png"]
    code, out, err = call(capsys, *files)
    assert (code, out) == (1, expected)
    assert len(err) == 4  # the first line is the remark on the packaged model
    for line, name in zip(err[1:], ("x.png", "missing.png", "y.png"), strict=True):
        assert line.startswith("numpyvit: error: ")
        assert name in line


def test_without_a_single_good_file_it_is_an_error(pictures, capsys):
    code, out, err = call(capsys, "x.png", "missing.png")
    assert (code, out, len(err)) == (2, [], 2)


def test_the_packaged_model_is_named_once(pictures, capsys):
    code, out, err = call(capsys, *pictures)
    assert code == 0
    assert err == ["classified by the packaged model of handwritten digits"]
    assert not any("packaged" in line for line in out)
    Classifier.mnist().save("mine.npz")
    assert call(capsys, "mine.npz", *pictures) == (0, out, [])


def test_images_are_read_in_chunks(pictures, capsys, monkeypatch):
    _, expected, _ = call(capsys, *pictures)
    sizes = []
    real = Classifier.predict

    def counting(self, images, workers=None):
        sizes.append(len(images))
        return real(self, images, workers)

    monkeypatch.setattr(Classifier, "predict", counting)
    monkeypatch.setattr(predict, "CHUNK", 3)
    code, out, _ = call(capsys, "x.png", *pictures)
    assert (code, out, sizes) == (1, expected, [2, 3, 2])


def test_a_model_that_can_read_no_file_says_so_once(tmp_path, pictures, capsys):
    np.savez("two.npz", images=np.zeros((20, 8, 8, 2), np.uint8), labels=np.arange(20) % 2)
    train = ["train", "--data", "two.npz", "--epochs", "1", "--quiet", "--out", "run"]
    assert main(train) == 0
    code, out, err = call(capsys, "run", *pictures)
    assert (code, out, len(err)) == (2, [], 1)
    assert "expects images with 2 channels" in err[0]
