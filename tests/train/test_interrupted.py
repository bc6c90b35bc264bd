"""An exception anywhere in the training leaves a run that can be trained on.

It is raised at one moment after another, as a second Ctrl-C, a lack of memory or a full
disk would raise it.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

import numpyvit
from numpyvit import Classifier, UserError, ViTConfig, data
from numpyvit.train.config import TrainConfig
from numpyvit.train.loop import train
from numpyvit.train.metrics import read_metrics
from numpyvit.train.recipe import Recipe
from numpyvit.train.run import Run

PACKAGE = Path(numpyvit.__file__).parent
# An interrupt between the opening of a file and its `with` leaves the file to the
# garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
FOLDERS = tuple(str(PACKAGE / name) for name in ("train", "engine", "optim", "storage"))
CONFIG = TrainConfig(
    "digits",
    ViTConfig(8, 4, 1, 10, width=4, depth=1, heads=1, mlp_width=4, dropout=0.1),
    Recipe("digits", epochs=3, batch_size=16, lr=1e-2, average=0.8, optimizer="muon"),
    val=0.25,
)

STRIDE = 41


@pytest.fixture(scope="module")
def sets():
    train_set, test_set = data.digits()
    return train_set.take(np.arange(40)), test_set.take(np.arange(10))


def quiet(line):
    pass


def result(folder):
    """Return the weights, the rows without times, and the state of the checkpoint."""
    rows = [
        {k: v for k, v in row.items() if k not in ("seconds", "images_per_second")}
        for row in read_metrics(folder)
    ]
    return Classifier.load(folder / "model.npz").params.flat.tobytes(), rows


@pytest.fixture(scope="module")
def whole(sets, tmp_path_factory):
    """What a run leaves that was never interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run = Run.start(CONFIG, folder, *sets)
    train(run, workers=1, say=quiet)
    return result(folder), run.params.flat.tobytes()


class Interrupt(BaseException):
    """Stands for KeyboardInterrupt, which pytest would take for a real one."""


class InterruptAt:
    """Raises Interrupt at the n-th moment at which code in FOLDERS may be interrupted.

    Python handles signals at the start of a function and after a call of a built-in one,
    so that an interrupt cannot come between a `with` and what it enters, for example.
    """

    def __init__(self, n):
        self.n = n

    def __enter__(self):
        sys.setprofile(self.event)
        return self

    def __exit__(self, *error):
        sys.setprofile(None)

    def event(self, frame, event, arg):
        if event in ("call", "c_return") and frame.f_code.co_filename.startswith(FOLDERS):
            self.n -= 1
            if self.n == 0:
                raise Interrupt


def interrupted(run, n):
    """Train with an interrupt at moment n; return whether there are so many."""
    with InterruptAt(n):
        try:
            train(run, workers=1, say=quiet)
        except Interrupt:
            return True
    return False


def moments(sets, folder):
    """Return at how many moments a run may be interrupted."""
    counter = InterruptAt(-1)
    run = Run.start(CONFIG, folder, *sets)
    with counter:
        train(run, workers=1, say=quiet)
    return -1 - counter.n


def check(n, sets, folder, whole, again):
    run = Run.start(CONFIG, folder / "run", *sets)
    was_interrupted = interrupted(run, n)
    if run.incomplete:
        with pytest.raises(UserError, match="interrupted within a step"):
            run.save()
    if again == "resumed":
        run = Run.resume(run.folder, *sets, quiet)
    train(run, workers=2, say=quiet)
    assert result(run.folder) == whole[0], n
    assert run.params.flat.tobytes() == whole[1], n
    assert Run.resume(run.folder, *sets, quiet).finished
    return was_interrupted


@pytest.mark.parametrize("again", ["trained on", "resumed"])
@pytest.mark.parametrize(
    "part", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in range(1, STRIDE))]
)
def test_interrupted_at_any_moment(part, again, sets, whole, tmp_path):
    """Each part takes every STRIDE-th moment, beginning at another one."""
    count = moments(sets, tmp_path / "count")  # which varies a little
    for n in range(part + 1, count, STRIDE):
        assert check(n, sets, tmp_path / str(n), whole, again) or n > 0.9 * count
