import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from numpyvit import ViTConfig, data
from numpyvit.cli.main import main
from numpyvit.cli.show import PICTURES
from numpyvit.train.config import TrainConfig
from numpyvit.train.loop import train
from numpyvit.train.recipe import Recipe
from numpyvit.train.run import Run

THREE = str(Path(__file__).parents[2] / "examples" / "three.png")
OF_AN_IMAGE = ["patches", "attention", "rollout", "relevance", "components", "distance"]
WITH_MATPLOTLIB = {"curves", "distance", "gradcheck"}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A short run on all the digits."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    model = ViTConfig(8, 4, 1, 10, width=8, depth=2, heads=2, mlp_width=8)
    config = TrainConfig("digits", model, Recipe("digits", epochs=1, batch_size=64), micro_batch=16)
    train(Run.start(config, folder, *data.digits()), workers=1, say=lambda line: None)
    return folder


def show(tmp_path, *words):
    out = tmp_path / "picture.png"
    assert main(["show", *map(str, words), "--out", str(out)]) == 0
    with Image.open(out) as picture:
        assert picture.mode == "RGB"
        return np.asarray(picture)


def refused(capsys, *words):
    assert main(["show", *map(str, words)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("what", [*OF_AN_IMAGE, "filters", "sinusoidal"])
def test_pictures_of_the_packaged_model(tmp_path, capsys, what):
    if what in WITH_MATPLOTLIB:
        pytest.importorskip("matplotlib")
    picture = show(tmp_path, what, *([THREE] if what in OF_AN_IMAGE else []))
    printed = capsys.readouterr().out
    assert f"picture.png: {picture.shape[1]}x{picture.shape[0]} pixels" in printed
    assert (what in OF_AN_IMAGE) == ("three.png: 140x180 fitted into 28x28" in printed)


@pytest.mark.parametrize("what", ["positions", "broadcast", "curves", "confusion", "mistakes"])
def test_pictures_of_a_run(tmp_path, digits, what):
    if what in WITH_MATPLOTLIB:
        pytest.importorskip("matplotlib")
    image = [THREE] if what == "broadcast" else []
    picture = show(tmp_path, what, digits, *image)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10


@pytest.mark.slow
def test_gradcheck(tmp_path):
    pytest.importorskip("matplotlib")
    assert show(tmp_path, "gradcheck").shape[0] > 500


def test_the_distance_of_test_images(tmp_path, digits):
    pytest.importorskip("matplotlib")
    assert show(tmp_path, "distance", digits).shape[0] > 200


def test_attention_of_a_patch(tmp_path, capsys, digits):
    picture = show(tmp_path, "attention", digits, THREE, "--patch", "3")
    (tmp_path / "picture.png").unlink()
    assert not np.array_equal(picture, show(tmp_path, "attention", digits, THREE, "--patch", "0"))
    out = ["--out", tmp_path / "other.png"]
    line = refused(capsys, "attention", digits, THREE, "--patch", "4", *out)
    assert "there is no patch 4: the patches are 0 to 3" in line
    assert "for the picture attention" in refused(capsys, "rollout", THREE, "--patch", "1", *out)
    assert "there is no patch -1" in refused(capsys, "attention", THREE, "--patch", "-1", *out)
    assert "--patch" in refused(capsys, "attention", THREE, "--patch", "x", *out)


def test_what_cannot_be_drawn_is_one_line(tmp_path, capsys, digits):
    out = ["--out", tmp_path / "other.png"]
    existing = tmp_path / "there.png"
    existing.write_bytes(b"mine")
    for words, wanted in [
        (["rolout", THREE, *out], "did you mean 'rollout'"),
        (["rollout", THREE], "--out"),
        (["rollout", THREE, "--out", "x.jpg"], "must end in .png"),
        (["rollout", THREE, "--out", existing], "exists already"),
        (["rollout", *out], "needs 1 image after the run, not no image"),
        (["rollout", THREE, THREE, *out], "needs 1 image"),
        (["filters", THREE, *out], "needs no image"),
        (["filters", tmp_path / "typo", *out], "does not exist"),
        (["filters", tmp_path / "typo.npz", *out], "typo.npz"),
        (["rollout", "typo.png", *out], "typo.png"),
        (["filters", tmp_path, *out], str(tmp_path)),
        (["positions", *out], "rotates queries and keys"),
        (["broadcast", THREE, *out], "rotates queries and keys"),
        (["confusion", *out], "needs the folder of a run"),
        (["mistakes", digits / "model.npz", *out], "needs the folder of a run"),
        (["confusion", digits, THREE, *out], "needs no image"),
        (["curves", *out], "needs runs"),
        (["curves", digits, THREE, *out], "holds no run"),
        (["curves", tmp_path, *out], "holds no run"),
        (["gradcheck", digits, *out], "needs no run"),
    ]:
        line = refused(capsys, *words)
        assert wanted in line, line
    assert existing.read_bytes() == b"mine"
    assert not (tmp_path / "other.png").exists()


def test_another_version_of_the_data_is_refused(tmp_path, capsys, digits):
    copy = tmp_path / "run"
    copy.mkdir()
    for path in digits.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    fields = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(fields | {"data_md5": "0" * 32}))
    line = refused(capsys, "confusion", copy, "--out", tmp_path / "x.png")
    assert "another version of digits" in line


def test_without_matplotlib_nothing_else_is_done_first(tmp_path, capsys, monkeypatch, digits):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    for words in (["curves", digits], ["distance", digits], ["gradcheck"]):
        line = refused(capsys, *words, "--out", tmp_path / "x.png")
        assert "pip install 'numpyvit[pictures]'" in line


def test_the_help_lists_every_picture(capsys):
    with pytest.raises(SystemExit):
        main(["show", "--help"])
    lines = capsys.readouterr().out.splitlines()
    for name in PICTURES:
        assert any(line.startswith(f"  {name} ") and len(line) > 30 for line in lines), name


def test_the_other_commands_do_not_import_it():
    """Neither `import numpyvit` nor the parser of the command loads Pillow or what draws."""
    code = (
        "import sys, numpyvit; from numpyvit.cli.main import make_parser; make_parser();"
        "print([m for m in sys.modules if m.startswith(('matplotlib', 'numpyvit.look'))])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
