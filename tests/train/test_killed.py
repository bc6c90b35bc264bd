"""A run that is killed by SIGKILL at any moment, and resumed with another number of
workers, ends with the same bits as a run that was never stopped. The runs are child
processes.
"""

import json
import random
import signal
import subprocess
import sys
import time

import pytest

from numpyvit.storage.archives import load_npz
from numpyvit.train.checkpoint import load_checkpoint
from numpyvit.train.metrics import read_metrics

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no SIGKILL")

# The run has everything that has a state: weights, moments, average, dropout, order,
# augmentation, mixing, validation, schedule. It saves after each step, which takes half
# of the time, so that half of the kills come while it saves.
SCRIPT = """
import os, signal, sys
from pathlib import Path
import numpy as np
from numpyvit import ViTConfig, data
from numpyvit.errors import UserError
from numpyvit.train import progress
from numpyvit.train.config import TrainConfig
from numpyvit.train.loop import train
from numpyvit.train.recipe import Recipe
from numpyvit.train.run import Run

folder, workers, operation = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
progress.SAVE_EVERY = progress.SAVE_COST = 0.0
save = Run.save

def save_and_tell(run):
    save(run)
    print(".", end="", flush=True)

Run.save = save_and_tell
sets = [part.take(np.arange(n)) for part, n in zip(data.digits(), (100, 30))]
model = ViTConfig(8, 4, 1, 10, width=8, depth=2, heads=2, mlp_width=8, dropout=0.1, drop_path=0.1)
recipe = Recipe(
    "digits",
    epochs=6,
    batch_size=24,
    lr=1e-2,
    average=0.8,
    smoothing=0.1,
    schedule="linear",
    rotate=10,
    translate=0.5,
    flip=True,
    randaugment=2,
    erase=0.3,
    mixup=0.3,
    cutmix=1.0,
)
config = TrainConfig("digits", model, recipe, seed=5, val=0.2, patience=4, micro_batch=7)

def dying(function):
    def call(*args, **options):
        global operation
        operation -= 1
        if operation == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)
    return call

if operation:                    # die just before this operation on files
    os.replace, os.fsync, os.open = dying(os.replace), dying(os.fsync), dying(os.open)
try:
    run = Run.resume(folder, *sets, lambda line: None)
except UserError as error:       # killed before there was a run
    assert "holds no run" in str(error), error
    run = Run.start(config, folder, *sets)
print("go", end="", flush=True)
train(run, workers, lambda line: None)
print("operations", -operation)
"""


def start(folder, workers, operation=0):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(folder), str(workers), str(operation)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(folder, workers, operation=0):
    process = start(folder, workers, operation)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def result(folder):
    """All that a run leaves, except for times: rows of metrics and bytes of arrays."""
    rows = [
        {k: v for k, v in row.items() if k not in ("seconds", "images_per_second")}
        for row in read_metrics(folder)
    ]
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
    assert all(json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    found = {}
    for name, kind in (
        ("checkpoint.npz", "numpyvit checkpoint 1"),
        ("model.npz", "numpyvit classifier 1"),
    ):
        note, arrays = load_npz(folder / name, kind)
        found[name] = (
            {key: a.tobytes() for key, a in arrays.items()},
            note.get("step"),
            note.get("best"),
        )
    return rows, found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    began = time.perf_counter()
    process = start(folder, 2)
    assert process.stdout.read(2) == ".g"  # the first checkpoint, and go
    setup = time.perf_counter() - began
    process.communicate(timeout=120)
    return result(folder), time.perf_counter() - began - setup


def resumed(folder, workers, whole):
    finish(folder, workers)
    assert result(folder) == whole[0]
    assert not [p.name for p in folder.iterdir() if p.name.endswith(".tmp")]


@pytest.mark.parametrize(
    "seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 50))]
)
def test_killed_at_a_random_moment(seed, whole, tmp_path):
    rng = random.Random(seed)
    process = start(tmp_path, rng.choice([1, 2, 3]))
    assert process.stdout.read(1) == "."
    time.sleep(rng.uniform(0, whole[1]))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode in (-signal.SIGKILL, 0)
    resumed(tmp_path, rng.choice([1, 2, 3]), whole)


def test_killed_again_and_again(whole, tmp_path):
    rng, standing = random.Random(0), []
    while len(standing) < 5 or not standing[-1]:  # a busy machine takes longer for a step
        assert len(standing) < 50
        process = start(tmp_path, rng.choice([1, 2, 3]))
        assert process.stdout.read(1) in ".g"
        time.sleep(rng.uniform(0, whole[1] / 5))
        process.kill()
        process.communicate()
        standing.append(load_checkpoint(tmp_path, lambda line: None)[0]["step"])
    assert standing == sorted(standing)
    resumed(tmp_path, 1, whole)


@pytest.mark.parametrize(
    "operation",
    [
        *range(1, 12),
        *range(26, 32),
        *(pytest.param(n, marks=pytest.mark.slow) for n in [*range(12, 26), *range(32, 130)]),
    ],
)
def test_killed_before_each_operation_on_files(operation, whole, tmp_path):
    process = start(tmp_path, 2, operation)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    resumed(tmp_path, 1, whole)
