import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from numpyvit import (
    AdamW,
    Classifier,
    UserError,
    ViT,
    ViTConfig,
    Workers,
    cross_entropy,
    data,
    schedule,
)
from numpyvit.data.dataset import make_dataset
from numpyvit.engine.workers import micro_batch_size
from numpyvit.storage.archives import load_npz, save_npz
from numpyvit.train import loop, progress
from numpyvit.train.checkpoint import KIND
from numpyvit.train.config import TrainConfig
from numpyvit.train.folder import locked
from numpyvit.train.loop import train
from numpyvit.train.metrics import best_row, read_metrics
from numpyvit.train.recipe import Recipe, augmentation, mixing
from numpyvit.train.run import Run

CONFIG = TrainConfig(
    "digits",
    ViTConfig(8, 4, 1, 10, width=8, depth=2, heads=2, mlp_width=8, dropout=0.1, drop_path=0.1),
    Recipe(
        "digits",
        epochs=3,
        batch_size=32,
        lr=1e-2,
        average=0.8,
        rotate=10,
        translate=1,
        smoothing=0.1,
    ),
    micro_batch=10,
)


@pytest.fixture(scope="module")
def sets():
    train, test = data.digits()
    return train.take(np.arange(150)), test.take(np.arange(40))


def quiet(line):
    pass


def result(folder):
    """Return the weights, and the metrics without times."""
    rows = [
        {k: v for k, v in row.items() if k not in ("seconds", "images_per_second")}
        for row in read_metrics(folder)
    ]
    return Classifier.load(folder / "model.npz").params.flat, rows


@pytest.fixture(scope="module")
def whole(sets, tmp_path_factory):
    """The folder of a run that was never stopped."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(Run.start(CONFIG, folder, *sets), workers=2, say=quiet)
    return folder


def test_the_micro_batch_suits_both_parts_of_a_run_with_patch_dropout(sets, tmp_path):
    """16 of 64 tokens and then all of them count as 32."""
    model = ViTConfig(8, 1, 1, 10, width=8, depth=1, heads=2, mlp_width=8, pooling="mean")
    for p, full, tokens in ((0.0, 0.25, 64), (0.75, 0.25, 32), (0.75, 1.0, 64)):
        recipe = Recipe("digits", epochs=1, batch_size=200, patch_dropout=p, full_patches=full)
        config = TrainConfig("digits", model, recipe)
        assert Run(config, tmp_path, *sets).config.micro_batch == micro_batch_size(tokens, 200)
    assert micro_batch_size(32, 200) > micro_batch_size(64, 200)


def test_the_run_folder(whole, sets):
    names = [
        ".lock",
        "checkpoint.npz",
        "checkpoint.previous.npz",
        "config.json",
        "metrics.jsonl",
        "model.npz",
    ]
    assert sorted(p.name for p in whole.iterdir()) == names
    fields = json.loads((whole / "config.json").read_text())
    assert fields["micro_batch"] == 10
    assert set(fields["versions"]) == {"numpyvit", "numpy", "python"}
    assert (
        TrainConfig.from_dict(
            {k: v for k, v in fields.items() if k not in ("versions", "data_md5")}
        )
        == CONFIG
    )
    rows = read_metrics(whole)
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 5), (2, 10), (3, 15)]
    keys = {
        "epoch",
        "step",
        "train_loss",
        "test_loss",
        "test_accuracy",
        "lr",
        "images_per_second",
        "seconds",
    }
    assert all(set(row) == keys for row in rows)
    assert rows[0]["seconds"] < rows[1]["seconds"] < rows[2]["seconds"]
    assert rows[2]["train_loss"] < rows[0]["train_loss"]
    p = Classifier.load(whole / "model.npz").predict(sets[1].images)
    assert rows[2]["test_accuracy"] == pytest.approx(np.mean(p.argmax(1) == sets[1].labels))


@pytest.mark.parametrize("at", [1, 3, 5, 7, 14])
def test_stopped_and_resumed_it_ends_with_the_same_bits(at, whole, sets, tmp_path, monkeypatch):
    """Ctrl-C in the middle of step `at`; resumed with another number of workers."""
    step = AdamW.step

    def step_then_ctrl_c(self, *args, **options):
        norm = step(self, *args, **options)
        if self.t == at:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        return norm

    run = Run.start(CONFIG, tmp_path, *sets)
    with monkeypatch.context() as patch:
        patch.setattr(AdamW, "step", step_then_ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            train(run, workers=2, say=quiet)
    assert run.step == at
    again = Run.resume(tmp_path, *sets, quiet)
    assert again.step == at
    train(again, workers=1, say=quiet)
    (weights, rows), (wanted, wanted_rows) = result(tmp_path), result(whole)
    assert np.array_equal(weights, wanted)
    assert rows == wanted_rows


def test_killed_between_the_row_and_the_checkpoint_no_row_comes_twice(
    whole, sets, tmp_path, monkeypatch
):
    run = Run.start(CONFIG, tmp_path, *sets)
    save, calls = run.save, []

    def fail_at_second():
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("killed")
        save()

    monkeypatch.setattr(run, "save", fail_at_second)
    with pytest.raises(RuntimeError, match="killed"):
        train(run, workers=1, say=quiet)
    assert [row["epoch"] for row in read_metrics(tmp_path)] == [1, 2]
    with open(tmp_path / "metrics.jsonl", "a") as f:
        f.write('{"epoch": 3, "st')  # a row that a kill cut off
    again = Run.resume(tmp_path, *sets, quiet)
    assert again.step == 5
    train(again, workers=1, say=quiet)
    assert result(tmp_path)[1] == result(whole)[1]
    assert np.array_equal(result(tmp_path)[0], result(whole)[0])


def test_a_finished_run_resumes_to_nothing(whole, sets):
    before = (whole / "metrics.jsonl").read_text()
    train(Run.resume(whole, *sets, quiet), workers=1, say=quiet)
    assert (whole / "metrics.jsonl").read_text() == before


def test_validation_chooses_the_epoch(sets, tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, val=0.2)
    run = Run.start(config, tmp_path, *sets)
    assert len(run.train_set) + len(run.val_set) == 150
    weights = {}
    # (loss, accuracy) of three epochs: good, bad and in between
    scores = dict(enumerate([(1.0, 0.5), (2.0, 0.3), (1.5, 0.4)], 1))
    evaluate, end_epoch = loop.evaluate, loop.end_epoch

    def scripted(engine, dataset):
        if dataset is run.val_set:
            return scores[run.step // run.epoch_steps]
        return evaluate(engine, dataset)

    def remember(run, *args):
        line = end_epoch(run, *args)
        weights[run.step // run.epoch_steps] = run.eval_params.flat.copy()
        return line

    monkeypatch.setattr(loop, "evaluate", scripted)
    monkeypatch.setattr(loop, "end_epoch", remember)
    train(run, workers=1, say=quiet)
    assert [(row["val_loss"], row["val_accuracy"]) for row in read_metrics(tmp_path)] == list(
        scores.values()
    )
    assert np.array_equal(Classifier.load(tmp_path / "model.npz").params.flat, weights[1])


def losing(run, at, evaluate=loop.evaluate):
    """An `evaluate` whose validation loss rises after epoch `at`."""

    def scripted(engine, dataset):
        if dataset is run.val_set:
            return 2.0 + abs(run.step // run.epoch_steps - at), 0.5
        return evaluate(engine, dataset)

    return scripted


def test_patience_stops_the_run_and_stays_stopped(sets, tmp_path, monkeypatch):
    config = dataclasses.replace(
        CONFIG, val=0.2, patience=2, recipe=dataclasses.replace(CONFIG.recipe, epochs=9)
    )
    run = Run.start(config, tmp_path, *sets)
    monkeypatch.setattr(loop, "evaluate", losing(run, 3))
    train(run, workers=1, say=quiet)
    assert [row["epoch"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
    assert best_row(read_metrics(tmp_path))["epoch"] == 3
    again = Run.resume(tmp_path, *sets, quiet)
    assert again.finished
    train(again, workers=1, say=quiet)
    assert len(read_metrics(tmp_path)) == 5


def test_a_resumed_run_remembers_the_epochs_without_improvement(sets, tmp_path, monkeypatch):
    config = dataclasses.replace(
        CONFIG, val=0.2, patience=3, recipe=dataclasses.replace(CONFIG.recipe, epochs=9)
    )
    run = Run.start(config, tmp_path, *sets)
    monkeypatch.setattr(loop, "evaluate", losing(run, 2))

    def stop(line):
        if line.startswith("epoch   4"):
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train(run, workers=1, say=stop)
    again = Run.resume(tmp_path, *sets, quiet)
    assert again.epochs_without_improvement == 2
    monkeypatch.setattr(loop, "evaluate", losing(again, 2))
    train(again, workers=1, say=quiet)
    assert [row["epoch"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]


def test_a_run_is_saved_within_an_epoch(sets, tmp_path, monkeypatch):
    run, steps = Run.start(CONFIG, tmp_path, *sets), []
    save = run.save
    monkeypatch.setattr(run, "save", lambda: (steps.append(run.step), save()))
    monkeypatch.setattr(progress, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(progress, "SAVE_COST", 0.0)
    train(run, workers=1, say=quiet)
    assert steps == list(range(1, 16))


def test_a_run_of_version_0_2_resumes(whole, sets, tmp_path):
    """Its config.json and its checkpoint lack the fields that were added later, and
    have the names of that time.
    """
    run = Run.start(CONFIG, tmp_path, *sets)

    def stop(line):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        train(run, workers=1, say=stop)
    newer = {
        None: {"test", "patience"},
        "recipe": {
            "optimizer",
            "patch_dropout",
            "full_patches",
            "schedule",
            "shear",
            "randaugment",
            "magnitude",
            "erase",
            "mixup",
            "cutmix",
        },
    }

    def older(fields):
        for outer, names in newer.items():
            for name in names:
                del (fields[outer] if outer else fields)[name]
        for old, new in {"turn": "rotate", "shift": "translate"}.items():
            fields["recipe"][old] = fields["recipe"].pop(new)
        return fields

    (tmp_path / "config.json").write_text(
        json.dumps(older(json.loads((tmp_path / "config.json").read_text())))
    )
    note, arrays = load_npz(tmp_path / "checkpoint.npz", KIND)
    save_npz(
        tmp_path / "checkpoint.npz",
        KIND,
        {
            k: older(v) if k == "config" else v
            for k, v in note.items()
            if k not in ("epochs_without_improvement", "metrics")
        },
        arrays,
    )
    train(Run.resume(tmp_path, *sets, quiet), workers=2, say=quiet)
    assert np.array_equal(result(tmp_path)[0], result(whole)[0])
    assert result(tmp_path)[1] == result(whole)[1]


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_run_that_diverges_stops_and_says_where(sets, tmp_path, epochs):
    config = dataclasses.replace(
        CONFIG, recipe=dataclasses.replace(CONFIG.recipe, lr=1e6, warmup=0, epochs=epochs)
    )
    with pytest.raises(UserError, match=r"is not finite at step [1-9]\d* .*lower lr than 1e\+06"):
        train(Run.start(config, tmp_path, *sets), workers=1, say=quiet)
    assert (tmp_path / "checkpoint.npz").exists()
    assert all(np.isfinite(row["test_loss"]) for row in read_metrics(tmp_path))


def test_a_model_that_diverges_at_the_last_step_of_an_epoch_is_not_saved(
    sets, tmp_path, monkeypatch
):
    run = Run.start(CONFIG, tmp_path, *sets)
    monkeypatch.setattr(run, "learning_rate", lambda step: 1e38 if step == 4 else 1e-3)
    with pytest.raises(UserError, match="is not finite at step 5"):
        train(run, workers=1, say=quiet)
    assert read_metrics(tmp_path) == []
    assert not (tmp_path / "model.npz").exists()


@pytest.mark.parametrize(
    "name",
    ["config.json", "metrics.jsonl", "checkpoint.npz", "checkpoint.previous.npz", "model.npz"],
)
def test_a_folder_that_holds_a_run_is_refused(sets, tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(UserError, match="already holds a run"):
        Run.start(CONFIG, tmp_path, *sets)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(name, "precious")]


def test_a_checkpoint_of_another_shape_is_refused(sets, tmp_path):
    Run.start(CONFIG, tmp_path / "a", *sets)
    wider = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, width=16))
    Run.start(wider, tmp_path / "b", *sets)
    (tmp_path / "b" / "checkpoint.npz").replace(tmp_path / "a" / "checkpoint.npz")
    with pytest.raises(
        UserError, match=r"does not belong to its config.json: it was made with width 16, not 8"
    ):
        Run.resume(tmp_path / "a", *sets, quiet)


def test_changed_data_is_refused(sets, tmp_path):
    Run.start(CONFIG, tmp_path, *sets)
    with pytest.raises(UserError, match="another version of digits"):
        Run.resume(tmp_path, sets[1], sets[0], quiet)


@pytest.mark.parametrize(
    "text", ["{}", "[1]", "3", "not json", '{"data": "digits"}', "\xff", "[" * 100000]
)
def test_a_damaged_config_is_refused(sets, tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"config.json is damaged: .*") as error:
        Run.resume(tmp_path, *sets, quiet)
    assert "\n" not in str(error.value)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=r"holds no run: there is no config.json in it"):
        Run.resume(tmp_path, *sets, quiet)


def edit(folder, **changes):
    """Change fields of config.json: name="..." or recipe__lr=..."""
    fields = json.loads((folder / "config.json").read_text())
    for name, value in changes.items():
        outer, _, inner = name.partition("__")
        if inner:
            fields[outer][inner] = value
        else:
            fields[outer] = value
    (folder / "config.json").write_text(json.dumps(fields))


@pytest.mark.parametrize(
    "changes",
    [
        {"model": None},
        {"recipe": 3},
        {"seed": "0"},
        {"seed": 1.5},
        {"val": None},
        {"versions": []},
        {"data_md5": 3},
        {"recipe__speed": 3},
        {"recipe__clip": "x"},
        {"recipe__clip": -1},
        {"recipe__warmup": None},
        {"recipe__epochs": 1e9},
        {"recipe__smoothing": -1},
        {"recipe__flip": 1},
        {"model__width": 10**30},
        {"model__wdth": 8},
        {"recipe__lr": 10**400},
        {"recipe__preset": "none"},
    ],
)
def test_a_config_with_impossible_values_is_refused(sets, tmp_path, changes):
    Run.start(CONFIG, tmp_path, *sets)
    edit(tmp_path, **changes)
    with pytest.raises(UserError, match=r"config.json is damaged: "):
        Run.resume(tmp_path, *sets, quiet)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 5}, "it was made with seed 0, not 5"),
        ({"recipe__lr": 0.5}, "made with lr 0.01, not 0.5"),
        ({"model__gelu": "erf"}, "made with gelu tanh, not erf"),
        ({"recipe__batch_size": 16}, "made with batch_size 32"),
        ({"model__width": 16}, "made with width 8"),
    ],
)
def test_a_config_that_was_edited_is_refused(sets, tmp_path, changes, message):
    Run.start(CONFIG, tmp_path, *sets)
    edit(tmp_path, **changes)
    with pytest.raises(UserError, match=message):
        Run.resume(tmp_path, *sets, quiet)


def test_other_versions_are_reported(whole, sets, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    edit(tmp_path / "run", versions={"numpyvit": "0.0.1", "numpy": np.__version__})
    said = []
    Run.resume(tmp_path / "run", *sets, said.append)
    assert "this run began with numpyvit 0.0.1" in said[0]


def test_killed_before_the_first_checkpoint_it_starts_at_step_0(whole, sets, tmp_path):
    Run.start(CONFIG, tmp_path, *sets)
    (tmp_path / "checkpoint.npz").unlink()
    train(Run.resume(tmp_path, *sets, quiet), workers=1, say=quiet)
    assert np.array_equal(result(tmp_path)[0], result(whole)[0])


def test_patches_are_left_out_until_the_end_of_the_run(sets, tmp_path, monkeypatch):
    recipe = dataclasses.replace(CONFIG.recipe, patch_dropout=0.5, full_patches=0.4)
    config = dataclasses.replace(CONFIG, recipe=recipe)
    seen, loss_and_grad = [], Workers.loss_and_grad

    def watched(self, params, images, labels, step, patches):
        seen.append(patches)
        return loss_and_grad(self, params, images, labels, step, patches)

    monkeypatch.setattr(Workers, "loss_and_grad", watched)
    train(Run.start(config, tmp_path, *sets), workers=1, say=quiet)
    assert seen == [2] * 9 + [None] * 6  # of 4 patches


def test_a_run_that_lost_its_checkpoints_is_not_started_again(whole, sets, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    for name in ("checkpoint.npz", "checkpoint.previous.npz"):
        (tmp_path / "run" / name).unlink()
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    with pytest.raises(UserError, match="has lost its checkpoints: restore checkpoint"):
        Run.resume(tmp_path / "run", *sets, quiet)
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such lock")
def test_of_two_starts_in_one_folder_one_gets_it(sets, tmp_path):
    with locked(tmp_path), pytest.raises(UserError, match="by another process"):
        Run.start(CONFIG, tmp_path, *sets)
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]
    (tmp_path / "config.json").touch()  # an empty one is no run
    Run.start(CONFIG, tmp_path, *sets)
    with pytest.raises(UserError, match="already holds a run"):
        Run.start(CONFIG, tmp_path, *sets)


def test_renamed_classes_are_refused(sets, tmp_path):
    Run.start(CONFIG, tmp_path, *sets)
    names = tuple("abcdefghij")
    with pytest.raises(UserError, match=r"it knows the classes 0, 1, 2, .* now they are a, b"):
        Run.resume(tmp_path, *(dataclasses.replace(part, classes=names) for part in sets), quiet)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such lock")
def test_a_run_is_trained_by_one_process_at_a_time(sets, tmp_path):
    run = Run.start(CONFIG, tmp_path, *sets)
    with locked(tmp_path):
        with pytest.raises(UserError, match="is being trained already, by another process"):
            Run.resume(tmp_path, *sets, quiet)
        with pytest.raises(UserError, match="is being trained already, by another process"):
            train(run, workers=1, say=quiet)


def test_a_run_is_what_its_recipe_says(sets, tmp_path):
    """Two epochs of a run have the same bits as a loop of the public parts, with
    clipping, label smoothing, augmentation, warm-up, weight decay and dropout.
    """
    recipe = Recipe(
        "digits",
        epochs=10,
        batch_size=64,
        lr=0.03,
        weight_decay=2.0,
        beta2=0.95,
        average=0.7,
        warmup=1,
        clip=0.3,
        smoothing=0.2,
        rotate=9,
        shear=0.1,
        translate=0.5,
        randaugment=1,
        magnitude=5,
        erase=0.2,
        mixup=0.4,
        cutmix=0.9,
        schedule="linear",
    )
    config = dataclasses.replace(CONFIG, recipe=recipe, micro_batch=24, seed=7)
    run = Run.start(config, tmp_path, *sets)

    def stop_after_two(line):
        if run.step == 6:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        train(run, workers=2, say=stop_after_two)
    model = ViT(config.model)
    params = model.init(7)
    optimizer = AdamW(params, (0.9, 0.95), weight_decay=2.0, average=0.7)
    rate = schedule("linear", 0.03, 3, 30)
    augment = data.compose(data.affine(9, 0, 0.5, 0.1), data.randaugment(1, 5), data.erase(0.2))
    mix = data.one_of(data.mixup(0.4), data.cutmix(0.9))
    with Workers(
        model, partial(cross_entropy, smoothing=0.2), seed=7, workers=1, micro_batch=24
    ) as workers:
        for step, (images, labels) in enumerate(data.batches(sets[0], 64, 2, 7, augment, mix)):
            _, grads = workers.loss_and_grad(params, images, labels, step)
            optimizer.step(params, grads, rate(step), clip=0.3)
    assert np.array_equal(run.params.flat, params.flat)
    assert np.array_equal(
        Classifier.load(run.folder / "model.npz").params.flat, optimizer.average.flat
    )


def test_a_short_run_warms_up_for_a_fifth_of_it_at_most(sets, tmp_path):
    recipe = dataclasses.replace(CONFIG.recipe, warmup=50.0, lr=0.5)
    run = Run.start(dataclasses.replace(CONFIG, recipe=recipe), tmp_path, *sets)
    assert run.learning_rate(3) == pytest.approx(0.5)
    assert run.learning_rate(run.steps - 1) < 0.02


@pytest.mark.skipif(sys.platform == "win32", reason="limits of this kind are Unix's")
def test_a_disk_that_fills_up_during_the_run(tmp_path):
    """The error is one line, and the checkpoint before it is intact."""
    script = f"""
import resource, sys
from numpyvit.train import loop
from numpyvit.cli.main import main
end_epoch = loop.end_epoch
def fill_up(run, *args):
    if run.step >= 2 * run.epoch_steps:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000))
    return end_epoch(run, *args)
loop.end_epoch = fill_up
sys.exit(main(["train", "--epochs", "3", "--out", {str(tmp_path / "run")!r}, "--quiet"]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "could not be written (File too large)" in done.stderr
    train, test = data.digits()
    run = Run.resume(tmp_path / "run", train, test, quiet)
    assert run.step == run.epoch_steps
    Classifier.load(tmp_path / "run" / "model.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "^epochs is 0: it must be an integer of at least 1"),
        ({"batch_size": -3}, "^batch_size is -3"),
        ({"lr": float("nan")}, "^lr is nan"),
        ({"lr": 1e30}, r"^lr is 1e\+30: it must be a number above 0 and at most 1,000,000$"),
        ({"weight_decay": float("inf")}, "^weight_decay is inf"),
        ({"smoothing": 1.0}, "from 0 to below 1$"),
        ({"schedule": "steps"}, "^schedule .steps. is unknown"),
        (
            {"magnitude": 11.0},
            "^magnitude is 11.0: it must be a number from 0 to 10$",
        ),
        ({"patience": 3}, "^patience is 3, but no validation set is held out"),
        ({"test": 1.0}, "^test is 1.0"),
        ({"beta2": 1.0}, "^beta2 is 1.0: it must be a number from 0 to below 1$"),
        ({"lr": 0.0}, "^lr is 0"),
        ({"weight_decay": -1.0}, "^weight_decay is -1"),
        (
            {"patch_dropout": 1.0},
            "^patch_dropout is 1.0: it must be a number from 0 to 0.99$",
        ),
        (
            {"full_patches": 1.5},
            "^full_patches is 1.5: it must be a number from 0 to 1$",
        ),
        ({"flip": 1}, "^flip is 1: it must be true or false"),
        ({"seed": -1}, "^seed is -1"),
        ({"val": 1.0}, "^val is 1.0"),
        ({"micro_batch": 0}, "^micro_batch is 0"),
        ({"preset": "mnits"}, "did you mean 'mnist'"),
        ({"preset": "ViT-Ti/16"}, "8x8 cannot be cut into patches of 16x16"),
    ],
)
def test_impossible_settings_are_refused(sets, changes, message):
    with pytest.raises(UserError, match=message):
        TrainConfig.make("digits", sets[0], **changes)


def test_a_preset_is_made_to_fit_the_data():
    images = np.zeros((4, 32, 64, 3), np.uint8)
    train = make_dataset("x", images, np.arange(4), tuple("abcd"))
    config = TrainConfig.make("cifar10", train, "ViT-Ti/16", epochs=2, lr=None)
    assert (config.model.image, config.model.channels, config.model.classes) == ((32, 64), 3, 4)
    assert (config.recipe.epochs, config.model.width) == (2, 192)


def test_a_recipe_of_another_name(sets):
    config = TrainConfig.make("digits", sets[0], "digits", "mnist-best", epochs=3)
    assert (config.data, config.recipe.optimizer, config.recipe.epochs, config.model.patch) == (
        "digits",
        "muon",
        3,
        (4, 4),
    )


def test_augmentation_of_the_recipes():
    rng, images = np.random.default_rng(0), np.full((50, 8, 8, 1), 200, np.uint8)
    assert augmentation(Recipe("digits", 1)) is None
    moved = augmentation(Recipe("digits", 1, translate=2))(images, rng)
    assert set(np.unique(moved)) == {0, 200}  # whole pixels
    turned = augmentation(Recipe("digits", 1, rotate=20, flip=True))(images, rng)
    assert len(np.unique(turned)) > 10  # interpolated


@pytest.mark.parametrize(
    ("H", "W", "patch"),
    [
        (64, 64, 8),
        (32, 32, 4),
        (28, 28, 4),
        (32, 64, 4),
        (8, 8, 1),
        (224, 224, 28),
        (48, 36, 6),
        (31, 31, 1),
        (30, 30, 3),
    ],
)
def test_patches_for_images_of_any_size(H, W, patch):
    images = np.zeros((4, H, W, 3), np.uint8)
    config = TrainConfig.make("./mine.npz", make_dataset("x", images, np.arange(4)), test=0.3)
    assert config.model.patch == (patch, patch)
    assert Path(config.data).is_absolute()
    assert config.test == 0.3


def test_mixing_of_the_recipes():
    images, targets = np.zeros((4, 8, 8, 1), np.uint8), np.eye(4, dtype=np.float32)
    assert mixing(Recipe("digits", 1)) is None
    for options in ({"mixup": 0.5}, {"cutmix": 0.5}, {"mixup": 0.5, "cutmix": 0.5}):
        _, t = mixing(Recipe("digits", 1, **options))(images, targets, np.random.default_rng(0))
        assert not np.array_equal(t, targets)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"full_patches": 0.5}, "^full_patches has no effect, because patch_dropout is 0"),
        ({"magnitude": 5.0}, "^magnitude has no effect, because randaugment is 0"),
        ({"erase": 2.0, "randaugment": 1}, "^erase is 2.0: it must be a number from 0"),
    ],
)
def test_settings_without_effect_are_refused(sets, changes, message):
    with pytest.raises(UserError, match=message) as error:
        TrainConfig.make("digits", sets[0], **changes)
    assert "magnitude" not in str(error.value) or "magnitude" in changes


def test_settings_that_are_hardly_meant_are_said(sets, tmp_path):
    config = TrainConfig.make("digits", sets[0], batch_size=1000, randaugment=99, epochs=1)
    said = []
    train(Run.start(config, tmp_path, *sets), workers=1, say=said.append)
    assert said[0].startswith("batch_size is 1,000, but there are 150 training images")
    assert said[1].startswith("randaugment is 99:")
    assert len(said) == 3
    assert TrainConfig.make("digits", sets[0], randaugment=1, magnitude=3.0)
    assert TrainConfig.make("digits", sets[0], patch_dropout=0.5, full_patches=0.5)


def test_of_many_starts_at_once_one_gets_the_folder(sets, tmp_path):
    start = partial(Run.start, CONFIG, tmp_path, *sets)
    with ThreadPoolExecutor(6) as pool:
        errors = [future.exception() for future in [pool.submit(start) for _ in range(6)]]
    assert errors.count(None) == 1
    assert all(isinstance(error, UserError) for error in errors if error)
    train(Run.resume(tmp_path, *sets, quiet), workers=1, say=quiet)


def test_of_two_threads_that_train_a_run_one_does(sets, tmp_path):
    run = Run.start(CONFIG, tmp_path, *sets)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(train, run, 1, quiet) for _ in range(2)]
        errors = [call.exception() for call in calls]
    assert errors.count(None) == 1
    assert any("is being trained already, by another process or thread" in str(e) for e in errors)
    assert [row["epoch"] for row in read_metrics(tmp_path)] == [1, 2, 3]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of this kind are Unix's")
def test_a_folder_whose_config_could_not_be_written_is_used_again(sets, tmp_path):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(UserError, match=r"config.json could not be written"):
            Run.start(CONFIG, tmp_path, *sets)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]
    Run.start(CONFIG, tmp_path, *sets)
