"""Files of a run that are lost or damaged are written again from its checkpoint."""

import dataclasses
import json
import os
import shutil
import sys
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from numpyvit import Classifier, UserError, ViTConfig, data
from numpyvit.storage.archives import DamagedError, load_npz, save_npz
from numpyvit.train.checkpoint import CHECKPOINT, KIND, PREVIOUS, load_checkpoint
from numpyvit.train.config import TrainConfig
from numpyvit.train.folder import LOCK, locked
from numpyvit.train.loop import train
from numpyvit.train.metrics import read_metrics
from numpyvit.train.recipe import Recipe
from numpyvit.train.run import Run

PLAIN = TrainConfig(
    "digits",
    ViTConfig(8, 4, 1, 10, width=4, depth=1, heads=1, mlp_width=4),
    Recipe("digits", epochs=4, batch_size=16, lr=3e-2, average=0.5),
)
VAL = dataclasses.replace(PLAIN, val=0.25)


@pytest.fixture(scope="module")
def sets():
    train_set, test_set = data.digits()
    return train_set.take(np.arange(40)), test_set.take(np.arange(10))


def quiet(line):
    pass


def is_damaged(path):
    path.write_bytes(path.read_bytes()[:-60])


def is_lost(path):
    path.unlink()


def is_of_another_model(path):
    classifier = Classifier.load(path)
    classifier.params.flat[:] += 1
    classifier.save(path)


class Enough(Exception):
    pass


def trained(config, folder, sets, epochs=4, best=4):
    """Train for some epochs, of which number `best` is the best; return the Run."""
    run = Run.start(config, folder, *sets)

    def watch(line):
        if run.epoch == best:
            run.best = (2.0, 0.0)  # no later epoch is better
        if run.epoch == epochs < 4:
            raise Enough

    with suppress(Enough):
        train(run, workers=1, say=watch)
    return run


def weights(folder):
    return Classifier.load(folder / "model.npz").params.flat


@pytest.mark.parametrize("damage", [is_damaged, is_lost, is_of_another_model])
@pytest.mark.parametrize("epochs", [2, 4])
@pytest.mark.parametrize(("config", "best"), [(PLAIN, 4), (VAL, 4), (VAL, 1)])
def test_a_model_file_is_written_again(config, best, epochs, damage, sets, tmp_path):
    run = trained(config, tmp_path, sets, epochs, best)
    if best == 1:
        assert run.epochs_without_improvement > 0  # the best weights are not the last ones
    wanted = weights(tmp_path)
    damage(tmp_path / "model.npz")
    said = []
    Run.resume(tmp_path, *sets, said.append)
    assert len(said) == 1
    assert "model.npz" in said[0]
    assert "written again from the checkpoint" in said[0]
    assert np.array_equal(weights(tmp_path), wanted)
    Run.resume(tmp_path, *sets, said.append)
    assert len(said) == 1


def without(folder, *names):
    """Make the checkpoints those of an older version, which lack these entries."""
    for file in (CHECKPOINT, PREVIOUS):
        note, arrays = load_npz(folder / file, KIND)
        note = {k: v for k, v in note.items() if k not in names}
        arrays = {k: v for k, v in arrays.items() if k not in names}
        save_npz(folder / file, KIND, note, arrays)


def test_an_older_checkpoint_takes_the_best_weights_from_the_model_file(sets, tmp_path):
    trained(VAL, tmp_path, sets, best=2)
    wanted = weights(tmp_path)
    without(tmp_path, "best_weights")
    said = []
    run = Run.resume(tmp_path, *sets, said.append)
    assert said == []
    assert np.array_equal(run.best_weights, wanted)


def test_an_older_checkpoint_without_its_model_file_says_what_is_lost(sets, tmp_path):
    trained(VAL, tmp_path, sets, best=2)
    without(tmp_path, "best_weights")
    (tmp_path / "model.npz").unlink()
    said = []
    run = Run.resume(tmp_path, *sets, said.append)
    assert "the weights of the best epoch are lost" in said[0]
    assert np.array_equal(weights(tmp_path), run.eval_params.flat)


def test_an_older_checkpoint_at_the_best_epoch_has_the_best_weights(sets, tmp_path):
    run = trained(VAL, tmp_path, sets, epochs=1)
    without(tmp_path, "best_weights")
    (tmp_path / "model.npz").unlink()
    Run.resume(tmp_path, *sets, quiet)
    assert np.array_equal(weights(tmp_path), run.best_weights)


DAMAGES = {
    "of other types": b"3\nnull\n[1]\n",
    "incomplete": b'{"epoch": 1}\n',
    "garbage": b"\xff\0\n\n@@@",
    "empty": b"",
}


@pytest.mark.parametrize("kind", [*DAMAGES, "lost", "crlf", "changed", "cut", "twice"])
def test_metrics_are_written_again(kind, sets, tmp_path):
    """With the rows of the checkpoint; what was there is kept."""
    trained(PLAIN, tmp_path, sets, 3)
    path = tmp_path / "metrics.jsonl"
    good = path.read_bytes()
    content = DAMAGES.get(kind)
    if kind == "crlf":
        content = good.replace(b"\n", b"\r\n")
    elif kind == "changed":
        content = good.replace(b'"test_accuracy": 0.', b'"test_accuracy": 0.9')
    elif kind == "cut":
        content = good[:-20]
    elif kind == "twice":
        content = b"".join(line * 2 for line in good.splitlines(keepends=True))
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    said = []
    run = Run.resume(tmp_path, *sets, said.append)
    assert len(said) == 1
    assert "written again from the checkpoint" in said[0]
    assert path.read_bytes() == good
    damaged = tmp_path / "metrics.damaged.jsonl"
    assert (damaged.read_bytes() if damaged.exists() else None) == content
    train(run, workers=1, say=quiet)
    assert [row["epoch"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4]


@pytest.mark.parametrize("epochs", [0, 3])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes")
def test_a_pipe_or_a_folder_in_the_place_of_the_metrics(epochs, sets, tmp_path):
    run = trained(PLAIN, tmp_path, sets, 3) if epochs else Run.start(PLAIN, tmp_path, *sets)
    path = tmp_path / "metrics.jsonl"
    for make in (os.mkfifo, os.mkdir):
        path.unlink()
        make(path)
        resumed = Run.resume(tmp_path, *sets, quiet)
        assert resumed.rows == run.rows == read_metrics(tmp_path)


@pytest.mark.parametrize("also", [(), ("metrics",)])
def test_an_older_checkpoint_keeps_the_rows_that_can_be_read(also, sets, tmp_path):
    trained(PLAIN, tmp_path, sets, 3)
    without(tmp_path, "rows", *also)
    path = tmp_path / "metrics.jsonl"
    first, _, third = path.read_text().splitlines(keepends=True)
    path.write_text(first + "@@@\n" + third)
    said = []
    run = Run.resume(tmp_path, *sets, said.append)
    assert "2 of the rows of 3 epochs can be read" in said[0]
    train(run, workers=1, say=quiet)
    assert [row["epoch"] for row in read_metrics(tmp_path)] == [1, 3, 4]
    said.clear()
    Run.resume(tmp_path, *sets, said.append)
    assert said == []


def test_an_intact_older_run_resumes_without_a_remark(sets, tmp_path):
    trained(PLAIN, tmp_path, sets, 3)
    without(tmp_path, "rows")
    said = []
    train(Run.resume(tmp_path, *sets, said.append), workers=1, say=quiet)
    assert said == []


NO_NUMBERS = [float("nan"), float("inf"), 10**400, "1", None, [1], True]
IMPOSSIBLE: dict[str, list[Any]] = {
    "loss_sum": NO_NUMBERS,
    "train_seconds": NO_NUMBERS,
    "seconds": NO_NUMBERS,
    "best": [[float("nan"), 1], [1], [1, 10**400], "ab", 3, {}],
    "epochs_without_improvement": [float("inf"), -1, 1.5, "1"],
    "stale": [float("inf"), 10**400],
    "step": [-1, 2.0, "2", True],
    "rows": [[1], {}, [{"epoch": 1}]],
    "classes": [[1], "0123456789"],
    "metrics": [3],
    "config": [None],
    "loss_scale": [[1]],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in IMPOSSIBLE.items() for value in values]
)
def test_an_impossible_value_in_a_checkpoint_is_damage(name, value, sets, tmp_path):
    """It gives way to the checkpoint before it; without one, it is an error of one line."""
    Run.start(PLAIN, tmp_path, *sets)
    note, arrays = load_npz(tmp_path / CHECKPOINT, KIND)
    save_npz(tmp_path / CHECKPOINT, KIND, note | {name: value}, arrays)
    shutil.copy(tmp_path / CHECKPOINT, tmp_path / "damaged")
    with pytest.raises(DamagedError, match=r"checkpoint.npz is damaged"):
        Run.resume(tmp_path, *sets, quiet)
    save_npz(tmp_path / PREVIOUS, KIND, note, arrays)
    said = []
    Run.resume(tmp_path, *sets, said.append)
    assert "checkpoint.npz is damaged" in said[0]
    assert "continuing from checkpoint.previous.npz" in said[0]
    for file in (CHECKPOINT, PREVIOUS):
        shutil.copy(tmp_path / "damaged", tmp_path / file)
    with pytest.raises(DamagedError) as error:
        load_checkpoint(tmp_path, quiet)
    assert str(error.value).count("is damaged") == 2
    assert "train again in another folder" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_checkpoint_without_a_value_or_with_infinite_weights_is_damaged(sets, tmp_path):
    Run.start(PLAIN, tmp_path, *sets)
    note, arrays = load_npz(tmp_path / CHECKPOINT, KIND)
    save_npz(tmp_path / CHECKPOINT, KIND, {k: v for k, v in note.items() if k != "best"}, arrays)
    with pytest.raises(DamagedError, match="it has no best"):
        Run.resume(tmp_path, *sets, quiet)
    arrays["weights"][3] = np.inf
    save_npz(tmp_path / CHECKPOINT, KIND, note, arrays)
    with pytest.raises(DamagedError, match="weights holds"):
        Run.resume(tmp_path, *sets, quiet)


def test_a_config_that_was_cut_short_says_how_to_go_on(sets, tmp_path):
    run = Run.start(PLAIN, tmp_path, *sets)
    path = tmp_path / "config.json"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"config.json is damaged: .*") as error:
        Run.resume(tmp_path, *sets, quiet)
    assert "delete" not in str(error.value)
    (run.folder / CHECKPOINT).unlink()
    with pytest.raises(UserError, match=r"no checkpoint is there: delete .* and train again"):
        Run.resume(tmp_path, *sets, quiet)


def test_versions_that_are_no_strings_are_refused(sets, tmp_path):
    Run.start(PLAIN, tmp_path, *sets)
    fields = json.loads((tmp_path / "config.json").read_text())
    fields["versions"]["numpy"] = [1]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(UserError, match="versions must be strings"):
        Run.resume(tmp_path, *sets, quiet)


def test_the_lock_outlives_a_replaced_config(sets, tmp_path):
    """An editor writes a new file and moves it to the place of the old one."""
    run = Run.start(PLAIN, tmp_path, *sets)
    with locked(tmp_path):
        shutil.copy(tmp_path / "config.json", tmp_path / "new")
        os.replace(tmp_path / "new", tmp_path / "config.json")
        with pytest.raises(UserError, match="is being trained already"):
            train(run, workers=1, say=quiet)


def test_the_lock_follows_no_link(sets, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(victim)
    with pytest.raises(UserError, match="could not be opened"):
        Run.start(PLAIN, tmp_path / "run", *sets)
    assert victim.read_text() == "precious"


def test_a_run_that_was_trained_elsewhere_is_not_trained_on(sets, tmp_path):
    run = Run.start(PLAIN, tmp_path, *sets)
    train(Run.resume(tmp_path, *sets, quiet), workers=1, say=quiet)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(UserError, match="have changed since this run was loaded"):
        train(run, workers=1, say=quiet)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_made_is_one_line(sets, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"could not be made .*: choose another folder"):
        Run.start(PLAIN, tmp_path / "file" / "run", *sets)


def test_an_empty_folder_is_used(sets, tmp_path):
    """So that a caller can choose the folder by making it, without a race."""
    (tmp_path / "run").mkdir()
    Run.start(PLAIN, tmp_path / "run", *sets)
