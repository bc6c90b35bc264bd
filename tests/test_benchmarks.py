"""The pieces of benchmarks/gpu.py, in small, so that they run where there is a GPU at last."""

import os
import time
from pathlib import Path

import pytest

from numpyvit import ViTConfig

BENCHMARKS = str(Path(__file__).parent.parent / "benchmarks")
CONFIG = ViTConfig(8, 4, 1, 10, width=16, depth=2, heads=2, mlp_width=32)


@pytest.fixture
def gpu(cupy, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import gpu

    monkeypatch.setitem(gpu.MODELS, "tiny", CONFIG)
    monkeypatch.setattr(gpu, "ROUND", 0.01)
    monkeypatch.setattr(gpu, "STEPS", 3)
    return gpu


def test_correct(gpu):
    for precision, dtype, good in [
        ("float32", "float32", 1e-5),
        ("float32", "float64", 1e-5),
        ("tf32", "float64", 1e-2),
        ("float16", "float64", 1e-2),
    ]:
        cells, value = gpu.correct("tiny", "numpyvit", precision, dtype)
        assert value
        assert all(float(error) < good for error in cells[:3])


@pytest.mark.parametrize("mode", ["kernels", "graph"])
def test_digits(gpu, mode):
    (worst, *_), value = gpu.digits(mode, "float32")
    assert value
    assert float(worst) < 1e-4


@pytest.mark.parametrize(
    ("side", "what"),
    [
        ("numpyvit kernels", "step"),
        ("numpyvit graph", "step"),
        ("numpyvit kernels", "evaluate"),
        ("CPU", "step"),
    ],
)
def test_speed(gpu, side, what):
    cells, seconds = gpu.speed(
        "tiny", 4, side, 3, {(what, "float32"): 1.0}, {"float32": 1e12}, what, "float32"
    )
    assert seconds > 0
    assert float(cells[0]) == pytest.approx(1e3 * seconds, abs=1e-3)
    assert len(cells) == 7


def power(base, exponent):
    if exponent == "ends":
        os._exit(3)
    if exponent == "hangs":
        time.sleep(600)
    return [f"{base**exponent}"], base**exponent


def test_what_fails_costs_its_own_line(monkeypatch, capfd):
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
