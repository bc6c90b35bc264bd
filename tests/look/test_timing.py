import numpy as np
import pytest

from numpyvit import ViT, ViTConfig, Workers
from numpyvit.look import timing
from numpyvit.look.products import record_products
from numpyvit.look.timing import Stopwatch, layer_times, limit, profile
from numpyvit.watch import Call

CONFIG = ViTConfig(6, 3, 2, 5, width=8, depth=2, heads=2, mlp_width=12, head_hidden=7)


def test_a_stopwatch_counts_inner_layers_once(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    stopwatch = Stopwatch(depth=3)

    def call(name, function):
        return stopwatch(Call(name, "forward", None, (), {}, function))

    def work(seconds):
        clock[0] += seconds

    def outer():
        work(1.0)
        call("blocks.0.mlp", lambda: work(2.0))
        call("blocks.1.mlp", lambda: work(2.0))
        call("blocks.2.mlp", lambda: work(0.25))
        work(0.5)

    call("", outer)
    assert stopwatch.seconds == {
        ("everything else", "forward"): 1.5,
        ("other blocks.mlp", "forward"): 4.0,
        ("last block.mlp", "forward"): 0.25,
    }


def test_every_layer_is_timed():
    rows = layer_times(CONFIG, 4, repeats=2)
    assert set(rows) >= {
        "embed",
        "other blocks.norm1",
        "last block.attention",
        "head.hidden",
        "everything else",
    }
    assert all(forward > 0 and backward > 0 for forward, backward, _, _ in rows.values())
    assert rows["other blocks.attention.qkv"][2] > 0
    assert rows["last block.attention"][2] > 0  # with those of its qkv, which has no row
    assert "last block.attention.qkv" not in rows


def test_the_limit_runs_the_products_of_every_micro_batch(monkeypatch):
    calls = []
    with Workers(ViT(CONFIG), workers=2, micro_batch=4) as workers:
        run = limit(CONFIG, 10, workers)
        monkeypatch.setattr(np, "matmul", lambda a, b, out: calls.append(a.shape))
        run()
        monkeypatch.undo()
    assert len(calls) == 3 * len(record_products(CONFIG, 4))


@pytest.mark.slow
def test_the_table():
    lines = profile(CONFIG, 8, workers=1).splitlines()
    assert any(line.startswith("all ") for line in lines[-3:])
    assert "training" in lines[-1]


@pytest.mark.parametrize("products", [0.1, 3.0])
def test_a_ratio_above_one_is_explained(products, monkeypatch):
    times = {"other blocks.mlp": (1.0, 1.0, 0.5, 0.5), "last block.mlp": (1.0, 1.0, products, 0.1)}
    monkeypatch.setattr(timing, "layer_times", lambda *args: times)
    text = profile(CONFIG, 8, workers=1)
    assert ("above 100%" in text) == (products > 2)
