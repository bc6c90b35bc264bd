import numpy as np

from numpyvit import ViT, ViTConfig, Workers
from numpyvit.look import timing as profile
from numpyvit.look.costs import costs
from numpyvit.look.timing import Stopwatch, layer_times, limit, products
from numpyvit.testing import normal

CONFIG = ViTConfig(6, 3, 2, 5, width=8, depth=2, heads=2, mlp_width=12, head_hidden=7)


def flops(calls, monkeypatch):
    """Of functions that call np.matmul."""
    total = [0]
    monkeypatch.setattr(
        np, "matmul", lambda x, y, out: total.__setitem__(0, total[0] + 2 * out.size * x.shape[-1])
    )
    for call in calls:
        call()
    monkeypatch.undo()
    return total[0]


def test_the_products_are_all_of_the_models(monkeypatch):
    B = 3
    forward, backward = products(CONFIG, B)
    wanted = B * sum(row[3] for row in costs(CONFIG))
    assert flops([c for calls in forward.values() for c in calls], monkeypatch) == wanted
    embed = flops(forward["embed"], monkeypatch)  # whose input needs no gradient
    assert (
        flops([c for calls in backward.values() for c in calls], monkeypatch) == 2 * wanted - embed
    )


def test_a_stopwatch_counts_what_is_inside_once(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(profile.time, "perf_counter", lambda: clock[0])

    def work(seconds):
        clock[0] += seconds

    watch = Stopwatch()
    inner = watch.timed("inner", lambda: work(2.0))
    watch.timed("outer", lambda: (work(1.0), inner(), inner(), work(0.5)))()
    assert watch.seconds == {"inner": 4.0, "outer": 1.5}


def test_every_layer_is_timed_and_the_model_left_as_it_was():
    rows = layer_times(CONFIG, 4, repeats=2)
    assert set(rows) >= {
        "embed",
        "other blocks.norm1",
        "last block.attention",
        "head.hidden",
        "everything else",
    }
    assert all(f > 0 and b > 0 for f, b, _, _ in rows.values())
    assert rows["other blocks.attention.qkv"][2] > 0
    model = ViT(CONFIG)
    assert "forward" not in vars(model.blocks[0].norm1)
    model.forward(model.init(), normal((1, 6, 6, 2), 0, np.float32))


def test_the_limit_runs_every_piece(monkeypatch):
    with Workers(ViT(CONFIG), workers=2, micro_batch=4) as workers:
        run = limit(CONFIG, 10, workers)
        total = flops([run], monkeypatch)
    forward, backward = products(CONFIG, 4)
    assert total == 3 * flops(
        [c for part in (forward, backward) for calls in part.values() for c in calls], monkeypatch
    )
