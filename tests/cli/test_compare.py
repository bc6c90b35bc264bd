import dataclasses
import json
import shutil

import numpy as np
import pytest

from numpyvit import UserError, ViTConfig, data
from numpyvit.cli.compare import compare
from numpyvit.train.config import TrainConfig
from numpyvit.train.loop import train
from numpyvit.train.metrics import read_metrics
from numpyvit.train.recipe import Recipe
from numpyvit.train.run import Run

CONFIG = TrainConfig(
    "digits",
    ViTConfig(8, 4, 1, 10, width=8, depth=1, heads=2, mlp_width=8),
    Recipe("digits", epochs=3, batch_size=32),
    micro_batch=16,
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs, the second one with validation and another learning rate."""
    root = tmp_path_factory.mktemp("runs")
    digits, test = data.digits()
    sets = digits.take(np.arange(150)), test.take(np.arange(40))
    other = dataclasses.replace(CONFIG, val=0.2, recipe=dataclasses.replace(CONFIG.recipe, lr=0.01))
    for name, config in (("a", CONFIG), ("b", other)):
        train(Run.start(config, root / name, *sets), workers=1, say=lambda line: None)
    return root


def cells(line):
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_a_table_of_what_differs_and_what_came_out(runs):
    table = {
        cells(line)[0]: cells(line)[1:]
        for line in compare([runs / "a", runs / "b"]).splitlines()[1:]
    }
    assert table["lr"] == ["0.002", "0.01"]
    assert table["val"] == ["0.0", "0.2"]
    assert "seed" not in table  # the same in both
    a, b = read_metrics(runs / "a"), read_metrics(runs / "b")
    assert table["epochs done"] == ["3 of 3", "3 of 3"]
    assert table["last train loss"] == [f"{a[-1]['train_loss']:.4f}", f"{b[-1]['train_loss']:.4f}"]
    assert table["last test accuracy"] == [
        f"{a[-1]['test_accuracy']:.2%}",
        f"{b[-1]['test_accuracy']:.2%}",
    ]
    best = max(b, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    assert table["best validation accuracy"] == ["-", f"{best['val_accuracy']:.2%}"]
    peak = max(a, key=lambda row: row["test_accuracy"])
    assert table["best epoch"] == [f"{peak['epoch']} by test set", f"{best['epoch']} by validation"]
    assert table["its test accuracy"] == [
        f"{peak['test_accuracy']:.2%}",
        f"{best['test_accuracy']:.2%}",
    ]
    speeds = sorted(row["images_per_second"] for row in a)
    assert table["images/s, median"][0] == f"{speeds[1]:,.0f}"


def test_columns_line_up(runs):
    lines = compare([runs / "a", runs / "b", runs / "a"]).splitlines()
    assert len({len(line) for line in lines}) == 1


def test_a_run_without_an_epoch_or_no_run_gets_one_line(runs, tmp_path):
    shutil.copytree(runs / "a", tmp_path / "c")
    (tmp_path / "c" / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="has no finished epoch yet"):
        compare([runs / "a", tmp_path / "c"])
    with pytest.raises(UserError, match="holds no run"):
        compare([tmp_path])


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row.pop("train_loss"),
        lambda row: row.update(test_accuracy=None),
        lambda row: row.update(lr="x"),
        lambda row: row.pop("val_accuracy"),
        lambda row: row.update(extra=1),
        lambda row: row.update(test_loss=float("nan")),
    ],
)
def test_damaged_rows_get_one_line(runs, tmp_path, change):
    shutil.copytree(runs / "b", tmp_path / "c")
    rows = read_metrics(tmp_path / "c")
    change(rows[1])
    (tmp_path / "c" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        UserError, match=r"metrics.jsonl is damaged: its line 2 is not the row of epoch 2"
    ):
        compare([tmp_path / "c"])
