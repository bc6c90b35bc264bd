"""Whole runs on the stand-in for a GPU: the same curves as on the CPU, files that move
between devices, and a loop that does not wait for the GPU.
"""

import dataclasses

import numpy as np
import pytest
from standin import strict

from numpyvit import UserError, ViTConfig, data
from numpyvit.classifier import Classifier
from numpyvit.cli.main import main
from numpyvit.train import progress
from numpyvit.train.config import TrainConfig
from numpyvit.train.loop import train
from numpyvit.train.metrics import read_metrics
from numpyvit.train.recipe import Recipe
from numpyvit.train.run import Run

MODEL = ViTConfig(
    8, 4, 1, 10, width=8, depth=1, heads=2, mlp_width=8, positions="rotary", pooling="mean"
)
RECIPE = Recipe(
    "digits",
    epochs=3,
    batch_size=32,
    flip=True,
    translate=1.0,
    average=0.9,
    smoothing=0.1,
    optimizer="muon",
)
CONFIG = TrainConfig("digits", MODEL, RECIPE, micro_batch=32)


@pytest.fixture(scope="module")
def sets():
    return tuple(s.take(np.arange(n)) for s, n in zip(data.load("digits"), (320, 100), strict=True))


def quiet(line):
    pass


def run(folder, sets, device, config=CONFIG):
    it = Run.start(config, folder, *sets, device)
    train(it, workers=1, say=quiet)
    return it


def figures(folder):
    return [
        [row[name] for name in ("train_loss", "test_loss", "test_accuracy")]
        for row in read_metrics(folder)
    ]


def test_a_run_is_the_same_on_both(cupy, sets, tmp_path):
    here, there = run(tmp_path / "cpu", sets, "cpu"), run(tmp_path / "cuda", sets, "cuda")
    np.testing.assert_allclose(figures(there.folder), figures(here.folder), rtol=0.02)
    assert figures(here.folder)[-1][1] < figures(here.folder)[0][1]
    a, b = (
        Classifier.load(run.folder / "model.npz").predict(sets[1].images) for run in (here, there)
    )
    np.testing.assert_allclose(a, b, atol=0.02)


@pytest.mark.parametrize("way", [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_run_is_resumed_on_the_other_device(cupy, sets, tmp_path, way):
    whole = run(tmp_path / "whole", sets, "cpu")
    part = Run.start(CONFIG, tmp_path / "part", *sets, way[0])
    steps = part.steps
    part.steps = part.epoch_steps  # as if stopped after an epoch
    train(part, workers=1, say=quiet)
    assert part.steps < steps
    train(Run.resume(tmp_path / "part", *sets, quiet, way[1]), workers=1, say=quiet)
    assert len(figures(tmp_path / "part")) == 3
    np.testing.assert_allclose(figures(tmp_path / "part"), figures(whole.folder), rtol=0.02)


def test_nothing_in_the_loop_waits(standin, sets, tmp_path, monkeypatch):
    """A run of three times as many steps reads from the GPU no more often: only at the
    end of the epoch, and to save.
    """
    monkeypatch.setattr(progress, "SYNCHRONISE_EVERY", 1e9)
    monkeypatch.setattr(progress, "SAVE_EVERY", 1e9)
    counts = []
    for copies in (1, 3):
        index = np.tile(np.arange(64), copies)
        config = dataclasses.replace(CONFIG, recipe=dataclasses.replace(RECIPE, epochs=1))
        it = Run.start(config, tmp_path / str(copies), sets[0].take(index), sets[1], "cuda")
        before = strict.reads
        train(it, workers=1, say=quiet)
        counts.append(strict.reads - before)
    assert counts[0] == counts[1]


def test_a_data_set_too_large_for_the_gpu_is_moved_batch_by_batch(
    standin, sets, tmp_path, monkeypatch
):
    wanted = figures(run(tmp_path / "fits", sets, "cuda").folder)
    monkeypatch.setattr(strict.Device, "free", 1000)
    assert figures(run(tmp_path / "does not", sets, "cuda").folder) == wanted


def test_a_run_that_diverges_stops_and_saves_nothing_of_it(cupy, sets, tmp_path):
    config = dataclasses.replace(
        CONFIG, recipe=dataclasses.replace(RECIPE, optimizer="adamw", lr=1e6, warmup=0.0)
    )
    it = Run.start(config, tmp_path / "run", *sets, "cuda")
    rate, bad = it.learning_rate, 7
    it.learning_rate = lambda s: float("nan") if s == bad else 0.001 * rate(s) / 1e6
    with pytest.raises(UserError, match="is not finite at step 8 "):
        train(it, workers=1, say=quiet)
    again = Run.resume(tmp_path / "run", *sets, quiet)
    assert again.step < bad
    assert np.isfinite(again.params.flat).all()


def test_the_command_takes_a_device(standin, tmp_path, capsys):
    args = ["train", "--epochs", "1", "--out", str(tmp_path / "run"), "--quiet", "--device", "cuda"]
    assert main(args) == 0
    assert main(["evaluate", str(tmp_path / "run"), "--device", "cuda"]) == 0
    on_gpu = capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert (
        capsys.readouterr().out.splitlines()[-1].split()[:4] == on_gpu.splitlines()[-1].split()[:4]
    )
    assert main([*args[:-1], "cuda:1"]) == 2
    assert "there is no GPU 1" in capsys.readouterr().err


def test_out_of_memory_is_one_line(standin, tmp_path, capsys, monkeypatch):
    class OutOfMemoryError(MemoryError):
        pass

    def full(*args, **options):
        raise OutOfMemoryError("Out of memory allocating 1,024 bytes")

    monkeypatch.setattr(standin, "empty", full)
    assert (
        main(
            [
                "train",
                "--epochs",
                "1",
                "--out",
                str(tmp_path / "run"),
                "--quiet",
                "--device",
                "cuda",
            ]
        )
        == 2
    )
    assert "--batch-size (on a GPU)" in capsys.readouterr().err


def test_a_run_in_float16_scales_its_loss_and_resumes(cupy, sets, tmp_path, monkeypatch):
    """The scale of the loss is in the checkpoint, so a resumed run ends like one that
    was not stopped.
    """

    def start(name):
        return Run.start(CONFIG, tmp_path / name, *sets, "cuda", "float16")

    whole, part = start("whole"), start("part")
    assert whole.loss_scale.value.get() == 2**16
    whole.loss_scale.load([2.0**10, 5.0])
    part.loss_scale.load([2.0**10, 5.0])
    train(whole, workers=1, say=quiet)
    part.steps = part.epoch_steps
    train(part, workers=1, say=quiet)
    again = Run.resume(tmp_path / "part", *sets, quiet, "cuda", "float16")
    assert again.loss_scale.state() == [2.0**10, 5.0 + again.epoch_steps]
    train(again, workers=1, say=quiet)
    wanted = figures(whole.folder)
    np.testing.assert_allclose(
        figures(tmp_path / "part"), wanted, rtol=1e-5
    )  # a graph's first step runs without it
    here = figures(run(tmp_path / "cpu", sets, "cpu").folder)
    np.testing.assert_allclose(wanted, here, rtol=0.05)
    assert wanted != here


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--precision", "tf32"], "precision tf32 is for GPUs"),
        (["--precision", "float8", "--device", "cuda"], "float8"),
    ],
)
def test_an_unavailable_precision_is_refused_in_one_line(cupy, tmp_path, capsys, options, says):
    assert (
        main(["train", "--epochs", "1", "--out", str(tmp_path / "run"), "--quiet", *options]) == 2
    )
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
