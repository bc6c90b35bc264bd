import sys

import numpy as np
import pytest

from numpyvit import UserError
from numpyvit.gradcheck import Report, Row
from numpyvit.look import curves


def rows(n, val=False):
    rng = np.random.default_rng(n)
    keys = ["train_loss", "test_loss", "test_accuracy"]
    keys += ["val_loss", "val_accuracy"] if val else []
    return [{"epoch": i + 1} | {key: float(rng.uniform(0, 1)) for key in keys} for i in range(n)]


def drawn(ax):
    """Return the lines of a plot as {(line style, colour): y values}; the legend's are empty."""
    lines = [line for line in ax.get_lines() if len(line.get_ydata())]
    return {(line.get_linestyle(), line.get_color()): list(line.get_ydata()) for line in lines}


def test_training_curves_have_the_rows_of_the_runs():
    pytest.importorskip("matplotlib")
    runs = {"one": rows(30), "two": rows(5, val=True)}
    loss, accuracy = curves.training_figure(runs).axes
    for (name, found), colour in zip(runs.items(), curves.COLOURS, strict=False):
        lines = drawn(loss)
        assert lines["--", colour] == [row["train_loss"] for row in found]
        assert lines["-", colour] == [row["test_loss"] for row in found]
        assert drawn(accuracy)["-", colour] == [100 * row["test_accuracy"] for row in found]
        assert ((":", colour) in lines) == (name == "two")
    assert drawn(accuracy)[":", curves.COLOURS[1]] == [100 * r["val_accuracy"] for r in runs["two"]]
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == ["one", "two"]
    picture = curves.training_picture(runs)
    assert picture.size == (11 * curves.DPI, round(4.6 * curves.DPI))
    with pytest.raises(UserError, match="nothing to draw"):
        curves.training_picture({"one": rows(3), "empty": []})


def test_many_runs_differ_in_their_markers():
    pytest.importorskip("matplotlib")
    runs = {f"run {i}": rows(40) for i in range(16)}
    _, accuracy = curves.training_figure(runs).axes
    lines = [line for line in accuracy.get_lines() if len(line.get_ydata())]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 16


def test_distances():
    pytest.importorskip("matplotlib")
    distances = np.array([[1.0, 3], [2, 8], [5, 6]])
    (ax,) = curves.distance_figure(distances, 7).axes
    points, mean = ax.get_lines()
    assert list(zip(*points.get_data(), strict=True)) == [
        (i, d) for i in range(3) for d in distances[i]
    ]
    assert mean.get_ydata().tolist() == [2, 5, 5.5]
    assert ax.get_ylim()[0] == 0
    assert ax.get_ylim()[1] > 8
    assert curves.distance_picture(distances, 7).width == 7 * curves.DPI


def test_errors_of_gradients():
    pytest.importorskip("matplotlib")

    def report(error, verdict="ok", faults=()):
        row = Row("x", "[0]", 1.0, 1.0, error, 0.0, verdict)
        return Report(() if faults else (row,), faults, ())

    reports = {
        "good": report(1e-15),
        "bad": report(0.3, "wrong"),
        "none": report(0.0),
        "broken": report(0.0, faults=("it changes x",)),
    }
    (ax,) = curves.gradcheck_figure(reports, 1e-12).axes
    bars = {round(p.get_y() + p.get_height() / 2): p.get_x() + p.get_width() for p in ax.patches}
    assert {i: float(f"{end:.3g}") for i, end in bars.items()} == {0: 1e-15, 1: 0.3, 2: 1e-18, 3: 1}
    colours = {round(p.get_y() + p.get_height() / 2): p.get_facecolor() for p in ax.patches}
    assert colours[0] == colours[2] != colours[1] == colours[3]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(reports)
    assert curves.gradcheck_picture(reports, 1e-12).height > 100


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(UserError, match=r"numpyvit\[pictures\]"):
        curves.distance_picture(np.ones((2, 2)), 1)
