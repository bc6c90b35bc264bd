"""numpyvit evaluate on other images than those of the run, and where data sets are looked for."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from numpyvit import Classifier, data
from numpyvit.cli.main import main
from numpyvit.data.readers import LOADERS

CLASSES = ("zero", "one", "two")


def write_folder(folder, images, labels, classes=CLASSES, size=8):
    """Write images as FOLDER/CLASS/NUMBER.png, resized without smoothing."""
    for i, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / classes[label] / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((size, size), Image.Resampling.NEAREST).save(path)


@pytest.fixture(scope="module")
def digits():
    """Images (n, 8, 8) and labels of three classes, for training and for other images."""
    found = []
    for part in data.digits():
        chosen = np.flatnonzero(part.labels < 3)[:90]
        found.append((part.images[chosen, ..., 0], part.labels[chosen]))
    return found


@pytest.fixture(scope="module")
def run(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    write_folder(folder / "photos", *digits[0])
    command = ["train", "--data", folder / "photos", "--out", folder / "run", "--image-size", 8]
    options = ["--epochs", 8, "--preset", "digits", "--quiet", "--lr", "0.003"]
    assert main([str(word) for word in command + options]) == 0
    return folder / "run"


def evaluate(capsys, *args):
    """Return the exit code, what was evaluated, the counts and accuracies, and stderr."""
    code = main(["evaluate", *map(str, args)])
    out, err = capsys.readouterr()
    lines = out.splitlines()
    rows = {line.split()[0]: tuple(line.split()[1:3]) for line in lines[2:]}
    return code, lines[0] if lines else "", rows, err


def expected(run, images, labels):
    """Return the rows of the table, computed with Classifier.predict."""
    p = Classifier.load(run / "model.npz").predict(images[..., None])
    classes = sorted(CLASSES)
    correct = np.array([classes[k] for k in p.argmax(1)]) == np.array(CLASSES)[labels]
    rows = {
        name: (str((labels == k).sum()), f"{correct[labels == k].mean():.2%}")
        for k, name in enumerate(CLASSES)
    }
    return {**rows, "all": (str(len(labels)), f"{correct.mean():.2%}")}


def test_all_images_of_another_folder(run, digits, tmp_path, capsys):
    images, labels = digits[1]
    write_folder(tmp_path / "new", images, labels)
    code, what, rows, err = evaluate(capsys, run, "--data", tmp_path / "new")
    assert code == 0
    assert what == f"all {len(labels)} images of {tmp_path / 'new'}"
    assert rows == expected(run, images, labels)
    assert float(rows["all"][1][:-1]) / 100 > 0.5
    assert "trained on some of these images" in err
    by_file = evaluate(capsys, run / "model.npz", "--data", tmp_path / "new")
    assert by_file[:3] == (code, what, rows)


def test_the_test_part_if_there_is_one(run, digits, tmp_path, capsys):
    (train_images, train_labels), (images, labels) = digits
    write_folder(tmp_path / "new" / "train", train_images, train_labels)
    write_folder(tmp_path / "new" / "test", images, labels)
    arrays = {"images": train_images, "labels": train_labels, "classes": np.array(CLASSES)}
    np.savez(tmp_path / "new.npz", test_images=images, test_labels=labels, **arrays)
    for name in ("new", "new.npz"):
        code, what, rows, _ = evaluate(capsys, run, "--data", tmp_path / name)
        assert (code, what) == (0, f"the test set of {tmp_path / name}")
        assert rows == expected(run, images, labels)


def test_classes_are_matched_by_their_names(run, digits, tmp_path, capsys):
    images, labels = digits[1]
    chosen = labels > 0
    arrays = {"images": images[chosen], "labels": 2 - labels[chosen]}
    np.savez(tmp_path / "new.npz", classes=np.array(["two", "one", "nine"]), **arrays)
    code, _, rows, _ = evaluate(capsys, run, "--data", tmp_path / "new.npz")
    assert code == 0
    assert rows["zero"] == ("0", "-")
    assert all(rows[k] == expected(run, images, labels)[k] for k in ("one", "two"))
    np.savez(tmp_path / "new.npz", classes=np.array(["two", "un", "deux"]), **arrays)
    code, _, rows, err = evaluate(capsys, run, "--data", tmp_path / "new.npz")
    assert (code, rows) == (2, {})
    assert "images of the classes un, which the model does not know" in err


def test_images_are_scaled_and_converted_to_what_the_model_expects(run, digits, tmp_path, capsys):
    images, labels = digits[1]
    rgb = np.repeat(images[..., None], 3, -1)
    arrays = {"labels": labels, "classes": np.array(CLASSES)}
    np.savez(tmp_path / "rgb.npz", images=rgb, **arrays)
    _, _, rows, _ = evaluate(capsys, run, "--data", tmp_path / "rgb.npz")
    assert rows == expected(run, images, labels)
    np.savez(tmp_path / "large.npz", images=images.repeat(4, 1).repeat(4, 2), **arrays)
    _, _, rows, _ = evaluate(capsys, run, "--data", tmp_path / "large.npz")
    assert float(rows["all"][1][:-1]) > 50
    np.savez(tmp_path / "four.npz", images=np.repeat(images[..., None], 4, -1), **arrays)
    code, _, _, err = evaluate(capsys, run, "--data", tmp_path / "four.npz")
    assert code == 2
    assert "only grey and RGB images can be converted" in err


def test_the_images_of_the_run_after_a_move_and_after_a_change(run, tmp_path, capsys):
    folder = tmp_path / "run"
    photos = tmp_path / "moved"
    shutil.copytree(run, folder)
    shutil.copytree(run.parent / "photos", photos)
    _, what, rows, err = evaluate(capsys, run)
    assert (what, err) == ("the test set of photos", "")
    code, what, moved, err = evaluate(capsys, folder, "--data", photos)
    assert (code, what, err) == (0, f"the test set of {photos}", "")
    assert moved == rows
    next(photos.rglob("*.png")).unlink()
    code, what, rows, err = evaluate(capsys, folder, "--data", photos)
    assert (code, what) == (0, f"all 89 images of {photos}")
    assert "trained on some of these images" in err
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "data": str(photos)}))
    code, _, _, err = evaluate(capsys, folder)
    assert code == 2
    assert "or evaluate it on other images with --data" in err


def test_a_few_images_that_could_not_be_split(run, digits, tmp_path, capsys):
    images, labels = digits[1]
    first = [int(np.flatnonzero(labels == k)[0]) for k in range(3)]
    write_folder(tmp_path / "few", images[first], labels[first])
    code, what, rows, _ = evaluate(capsys, run, "--data", tmp_path / "few")
    assert (code, what, rows["all"][0]) == (0, f"all 3 images of {tmp_path / 'few'}", "3")


def test_a_model_file_alone_knows_no_images(run, capsys):
    code, _, _, err = evaluate(capsys, run / "model.npz")
    assert code == 2
    assert "name some with --data" in err


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Take the digits for MNIST; return the list of the folders that it was looked for in."""
    folders = []

    def load(data_dir, bar):
        folders.append(data_dir)
        return data.digits()

    monkeypatch.setitem(LOADERS, "mnist", load)
    monkeypatch.chdir(tmp_path)
    return folders


def command(*words):
    return main([str(word) for word in words])


@pytest.mark.parametrize("given", [[], ["--data-dir", "sets"]])
def test_a_run_remembers_the_folder_of_the_data_sets(given, asked, tmp_path, capsys, monkeypatch):
    (tmp_path / "sets").mkdir()
    (tmp_path / "other").mkdir()
    options = ["--preset", "digits", "--epochs", 1, "--out", "run"]
    assert command("train", "--data", "mnist", *given, *options) == 0
    assert re.search(r"next: numpyvit evaluate run$", capsys.readouterr().out.strip())
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    remembered = str(tmp_path / "sets") if given else None
    assert config.get("data_dir") == remembered
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert command("evaluate", "../run") == 0
    assert command("train", "--resume", "../run") == 0
    assert command("evaluate", "../run", "--data-dir", "../other") == 0
    assert asked[1:] == [remembered, remembered, "../other"]
    (tmp_path / "sets").rmdir()
    capsys.readouterr()
    code = command("evaluate", "../run")
    assert code == (2 if given else 0)
    if given:
        assert "name the folder of the data sets with --data-dir" in capsys.readouterr().err
    assert command("evaluate", "../run", "--data-dir", "../other") == 0


@pytest.mark.parametrize("value", [3, [], {}])
def test_a_damaged_data_dir_is_refused(value, asked, tmp_path, capsys):
    options = ["--preset", "digits", "--epochs", 1, "--out", "run", "--quiet"]
    assert command("train", "--data", "mnist", *options) == 0
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "data_dir": value}))
    assert command("evaluate", "run") == 2
    assert "data_dir must be a string" in capsys.readouterr().err


@pytest.mark.parametrize("resuming", [["evaluate"], ["train", "--resume"]])
def test_a_data_dir_without_effect_is_refused(resuming, run, capsys):
    assert main([*resuming, str(run), "--data-dir", "."]) == 2
    assert "photos is not read from it" in capsys.readouterr().err


def test_a_test_fraction_without_effect_is_refused(digits, tmp_path, capsys):
    images, labels = digits[1]
    for part in ("train", "test"):
        write_folder(tmp_path / "new" / part, images, labels)
    arrays = {"images": images, "labels": labels}
    np.savez(tmp_path / "new.npz", test_images=images, test_labels=labels, **arrays)
    for name in ("new", "new.npz"):
        assert main(["train", "--data", str(tmp_path / name), "--test", "0.1"]) == 2
        assert "has its own" in capsys.readouterr().err
    np.savez(tmp_path / "new.npz", **arrays)
    options = ["--epochs", "1", "--preset", "digits", "--out", str(tmp_path / "run"), "--quiet"]
    assert main(["train", "--data", str(tmp_path / "new.npz"), "--test", "0.1", *options]) == 0
