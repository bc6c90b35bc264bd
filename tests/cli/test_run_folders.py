"""The folder that a new run gets if --out names none."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from numpyvit import UserError
from numpyvit.cli import main as cli
from numpyvit.cli.train import new_folder
from numpyvit.train.run import Run

TRAIN = ["train", "--epochs", "1", "--quiet"]


@pytest.fixture(autouse=True)
def one_second(tmp_path, monkeypatch):
    """Begin everything in the same second, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda format: "20261124-120003")


def test_runs_that_begin_in_the_same_second_get_folders_of_their_own():
    for seed in "012":
        assert cli.main([*TRAIN, "--seed", seed]) == 0
    names = ["digits-digits-20261124-120003" + end for end in ("", "-2", "-3")]
    assert sorted(p.name for p in Path("runs").iterdir()) == names
    assert all(Path("runs", name, "model.npz").exists() for name in names)


def test_runs_that_begin_at_once_get_folders_of_their_own():
    def make(i):
        with new_folder(None, Path("runs", "x")) as folder:
            return folder

    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(make, range(64)))
    assert len(set(folders)) == 64
    assert set(Path("runs").iterdir()) == set(folders)


@pytest.mark.parametrize("others", [[], ["other"]])
def test_a_run_that_cannot_start_leaves_no_folder(others, monkeypatch, capsys):
    def fail(*args):
        assert Path("runs", "digits-digits-20261124-120003").exists()
        raise UserError("no memory on the device")

    for name in others:
        Path("runs", name).mkdir(parents=True)
    monkeypatch.setattr(Run, "start", fail)
    assert cli.main(TRAIN) == 2
    assert "no memory on the device" in capsys.readouterr().err
    assert [p.name for p in Path().rglob("*")] == (["runs", *others] if others else [])


@pytest.mark.parametrize("is_link", [False, True])
def test_a_file_or_a_dead_link_in_place_of_the_folder_of_runs(is_link, capsys):
    if is_link:
        Path("runs").symlink_to("nowhere")
    else:
        Path("runs").write_text("precious")
    assert cli.main(TRAIN) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "name another folder with --out" in err
    assert [p.name for p in Path().iterdir()] == ["runs"]
