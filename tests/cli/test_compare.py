import dataclasses
import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit import UserError, ViTConfig, data
from numpyvit.cli.compare import WIDTH, compare, results, shortened
from numpyvit.cli.main import main
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


def table_of(*folders):
    return compare([(folder, *results(folder)) for folder in folders])


def cells(line):
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_a_table_of_what_differs_and_what_came_out(runs):
    table = {
        cells(line)[0]: cells(line)[1:]
        for line in table_of(runs / "a", runs / "b").splitlines()[1:]
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
    lines = table_of(runs / "a", runs / "b", runs / "a").splitlines()
    assert len({len(line) for line in lines}) == 1


def test_a_run_without_an_epoch_or_no_run_gets_one_line(runs, tmp_path):
    shutil.copytree(runs / "a", tmp_path / "c")
    (tmp_path / "c" / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="has no finished epoch yet"):
        table_of(tmp_path / "c")
    with pytest.raises(UserError, match="holds no run"):
        table_of(tmp_path)


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
        UserError, match=r"metrics.jsonl is damaged: its line 2 is not the row of an epoch"
    ):
        table_of(tmp_path / "c")


def test_runs_without_results_are_left_out_with_a_remark(runs, tmp_path, capsys):
    for name in "cde":
        shutil.copytree(runs / "a", tmp_path / name)
    (tmp_path / "c" / "metrics.jsonl").write_text("")
    (tmp_path / "d" / "metrics.jsonl").write_text("{}\n{}\n")
    (tmp_path / "e" / "config.json").unlink()
    bad = [str(tmp_path / name) for name in "cde"]
    assert main(["compare", str(runs / "a"), *bad, str(runs / "b")]) == 0
    out, err = capsys.readouterr()
    assert out == table_of(runs / "a", runs / "b") + "\n"
    for line, name, reason in zip(
        err.splitlines(), bad, ("no finished epoch", "damaged", "no config.json"), strict=True
    ):
        assert line.startswith(f"left out: {name}")
        assert reason in line
    assert main(["compare", *bad]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert all(name in err for name in bad)


def test_many_runs_have_a_row_each(runs, tmp_path):
    folders = [runs / "a", runs / "b"]
    for i in range(8):
        name = tmp_path / f"digits-a-long-name-of-a-run-{i}"
        shutil.copytree(runs / "ab"[i % 2], name)
        folders.append(name)
    lines = table_of(*folders).splitlines()
    assert max(map(len, lines)) < 200
    assert len({len(line) for line in lines[-10:]}) == 1
    for line, folder in zip(lines[-10:], folders, strict=True):
        metrics = read_metrics(folder)[-1]
        assert line.split()[0].endswith(folder.name[-1])
        assert f"  {metrics['test_accuracy']:.2%}  " in line
    assert len({line.split()[0] for line in lines[-10:]}) == 10
    heads = " ".join(" ".join(lines[:-10]).split())
    assert all(word in heads for word in ("lr", "val", "accuracy", "seconds"))


def test_names_keep_what_tells_them_apart():
    names = [f"runs/digits-digits-20261124-06273{i}" for i in range(3)]
    assert shortened(names) == [name.removeprefix("runs/") for name in names]
    long = [f"a-name-that-goes-on-and-on-and-on-lr{i}-and-ends-in-the-same-way" for i in range(3)]
    for i, name in enumerate(shortened(long)):
        assert f"lr{i}" in name
        assert len(name) <= WIDTH


@given(
    st.lists(st.text("ab/.", max_size=12), min_size=1, max_size=6),
    st.text("ab/.", max_size=90),
    st.text("ab/.", max_size=90),
    st.lists(st.text("ab/.", max_size=90), max_size=2),
)
def test_cells_that_differ_still_do(middles, start, end, others):
    long = [start + middle + end for middle in middles] + others
    short = shortened(long)
    pairs = set(zip(long, short, strict=True))
    assert len(pairs) == len(set(long)) == len(set(short))
    assert all(len(after) <= len(before) for before, after in pairs)
