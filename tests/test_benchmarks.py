"""The measurements of benchmarks/gpu.py run, on a tiny model, and so do its tables."""

import os
import time
from pathlib import Path

import pytest

from numpyvit import ViTConfig

BENCHMARKS = str(Path(__file__).parent.parent / "benchmarks")
CONFIG = ViTConfig(8, 4, 1, 10, width=16, depth=2, heads=2, mlp_width=32)


@pytest.fixture
def gpu(cupy, monkeypatch):
    """The module of the measurements, with a tiny model and short rounds."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import gpu_measure

    monkeypatch.setitem(gpu_measure.MODELS, "tiny", CONFIG)
    monkeypatch.setattr(gpu_measure, "ROUND", 0.01)
    monkeypatch.setattr(gpu_measure, "STEPS", 3)
    return gpu_measure


def test_correct(gpu):
    for precision, dtype, bound in [
        ("float32", "float32", 1e-5),
        ("float32", "float64", 1e-5),
        ("tf32", "float64", 1e-2),
        ("float16", "float64", 1e-2),
    ]:
        cells, good = gpu.correct("tiny", "numpyvit", precision, dtype)
        assert good
        assert all(float(error) < bound for error in cells[:3])


@pytest.mark.parametrize("mode", ["kernels", "graph"])
def test_digits(gpu, mode):
    (worst, *_), good = gpu.digits(mode, "float32")
    assert good
    assert float(worst) < 1e-4


@pytest.mark.parametrize(
    ("side", "task"),
    [
        ("numpyvit kernels", "step"),
        ("numpyvit graph", "step"),
        ("numpyvit kernels", "evaluate"),
        ("CPU", "step"),
    ],
)
def test_speed(gpu, side, task):
    cells, seconds = gpu.speed(
        "tiny", 4, side, 3, {(task, "float32"): 1.0}, {"float32": 1e12}, task, "float32"
    )
    assert seconds > 0
    assert float(cells[0]) == pytest.approx(1e3 * seconds, abs=1e-3)
    assert len(cells) == 7


def power(base, exponent):
    """Compute a row of the table below; some of them fail."""
    if exponent == "ends":
        os._exit(3)
    if exponent == "hangs":
        time.sleep(600)
    return [f"{base**exponent}"], base**exponent


def test_a_row_that_fails_costs_no_other_row(monkeypatch, capfd):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import processes

    values = {}
    processes.table(
        6,
        "Powers",
        "of, power, is",
        [((2,), power, (2,), [(3,), ("|",), ("ends",), ("hangs",), (5,)])],
        values,
    )
    assert (
        capfd.readouterr().out
        == """
Powers

| of | power | is |
| --- | --- | --- |
| 2 | 3 | 8 |
| 2 | / | TypeError: unsupported operand type(s) for ** or pow(): 'int' and 'str' |
| 2 | ends | its process ended with code 3 |
| 2 | hangs | not done after 6 s |
| 2 | 5 | 32 |
"""
    )
    assert values == {(2, 3): 8, (2, "|"): None, (2, "ends"): None, (2, "hangs"): None, (2, 5): 32}
