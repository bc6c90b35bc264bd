"""Where the time of a training step goes, layer by layer: `numpyvit info --time`.

Beside the time of each layer stands the time of its matrix products alone, which is a
lower bound for it.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np

from ..config import ViTConfig
from ..engine.workers import Workers, micro_batch_size
from ..losses import cross_entropy
from ..vit import ViT
from ..watch import Call, watch
from .products import record_products

# Seconds of a layer, forward and backward, and those of its matrix products alone.
Times = tuple[float, float, float, float]


def row_name(layer: str, depth: int) -> str:
    """Return the row of the table for a layer.

    The blocks share their rows, except the last one: with a class token it computes less.
    """
    if not layer:
        return "everything else"
    if not layer.startswith("blocks."):
        return layer
    _, number, *rest = layer.split(".")
    block = "last block" if int(number) == depth - 1 else "other blocks"
    return ".".join([block, *rest])


class Stopwatch:
    """A hook for `watch` that adds up seconds by row and method.

    What a layer spends in the layers inside it counts for those.
    """

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
        self.inside: list[float] = []  # of each running layer: the seconds of its inner layers

    def __call__(self, call: Call) -> Any:
        self.inside.append(0.0)
        start = time.perf_counter()
        result = call()
        seconds = time.perf_counter() - start
        row = row_name(call.name, self.depth), call.method
        self.seconds[row] += seconds - self.inside.pop()
        if self.inside:
            self.inside[-1] += seconds
        return result


def median_time(call: Callable[[], object], seconds: float = 1.0, least: int = 3) -> float:
    """Return the median time of a call that is repeated for about `seconds`."""
    call()
    times: list[float] = []
    while len(times) < least or sum(times) < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def layer_times(config: ViTConfig, B: int, repeats: int = 7) -> dict[str, Times]:
    """Return the times of one micro-batch of B images on one thread, by row of the table.

    To be called inside `with Workers(...)`, which sets what a worker thread finds.
    """
    model, rng = ViT(config), np.random.default_rng(0)
    params = model.init()
    grads = params.zeros_like()
    images = rng.standard_normal((B, *config.image, config.channels), np.float32)
    labels = rng.integers(0, config.classes, B)
    runs: list[dict[tuple[str, str], float]] = []
    for _ in range(repeats + 1):
        stopwatch = Stopwatch(config.depth)
        with watch(model, stopwatch):
            logits, cache = model.forward(params, images)
            _, dlogits = cross_entropy(logits, labels)
            model.backward(dlogits, cache, grads)
        runs.append(dict(stopwatch.seconds))
    warm = runs[1:]
    limits = product_times(config, B, {name for name, _ in warm[0]})
    rows = dict.fromkeys(name for name, method in warm[0] if method == "forward")

    def median(name: str, method: str) -> float:
        return float(np.median([run.get((name, method), 0.0) for run in warm]))

    return {
        name: (
            median(name, "forward"),
            median(name, "backward"),
            limits[name, "forward"],
            limits[name, "backward"],
        )
        for name in rows
    }


def product_times(config: ViTConfig, B: int, rows: set[str]) -> dict[tuple[str, str], float]:
    """Return the seconds that the matrix products of each row take alone, by row and method.

    The products of a layer that has no row, because a shortcut replaces it, count for the
    layer around it.
    """
    calls: dict[tuple[str, str], list[Callable[[], object]]] = defaultdict(list)
    for product in record_products(config, B):
        row = row_name(product.layer, config.depth)
        if row not in rows:
            row = row.rpartition(".")[0]
        calls[row, product.method].append(product.replay())
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    for key, replays in calls.items():
        seconds[key] = median_time(partial(run_all, replays), 0.05)
    return seconds


def run_all(calls: list[Callable[[], object]]) -> None:
    """Call each of them."""
    for call in calls:
        call()


def limit(config: ViTConfig, batch: int, workers: Workers) -> Callable[[], object]:
    """Return a function that runs the matrix products of a whole batch on these workers.

    No step of the model without shortcuts can be faster.
    """
    size = workers.micro_batch or micro_batch_size(config.tokens, batch)
    free: SimpleQueue[list[Callable[[], object]]] = SimpleQueue()
    products = record_products(config, size)
    for _ in range(workers.workers):  # each thread has its own arrays
        free.put([product.replay() for product in products])

    def micro_batch(i: int) -> None:
        calls = free.get()
        run_all(calls)
        free.put(calls)

    return lambda: workers.map(micro_batch, range(-(-batch // size)))


def profile(
    config: ViTConfig, batch: int, workers: int | None = None, micro_batch: int | None = None
) -> str:
    """Return the table of `numpyvit info --time` as text; its steps use all patches."""
    model = ViT(config)
    params, rng = model.init(), np.random.default_rng(0)
    images = rng.standard_normal((batch, *config.image, config.channels), np.float32)
    labels = rng.integers(0, config.classes, batch)
    with Workers(model, workers=workers, micro_batch=micro_batch) as threads:
        B = threads.micro_batch or micro_batch_size(config.tokens, batch)
        rows = layer_times(config, B)
        step = median_time(lambda: threads.loss_and_grad(params, images, labels))
        evaluation = median_time(lambda: threads.predict(params, images))
        least = median_time(limit(config, batch, threads))
    lines = [
        f"one micro-batch of {B} images on one thread, in ms; products: the matrix products "
        "alone, without shortcuts",
        f"{'layer':30}{'forward':>10}{'backward':>10}{'fraction':>10}{'products':>10}"
        f"{'products / time':>17}",
    ]
    total = tuple(sum(column) for column in zip(*rows.values(), strict=True))
    for name, (f, b, products_f, products_b) in [*rows.items(), ("all", total)]:
        fraction = (f + b) / (total[0] + total[1])
        products = products_f + products_b
        ratio = f"{products / (f + b):17.0%}" if products else ""
        lines.append(
            f"{name:30}{f * 1e3:10.3f}{b * 1e3:10.3f}{fraction:10.1%}{products * 1e3:10.3f}{ratio}"
        )
    last = [times for name, times in rows.items() if name.startswith("last block")]
    if config.pooling == "cls" and any(p_f + p_b > f + b for f, b, p_f, p_b in last):
        lines.append(
            "above 100%: the last block leaves products out, as it computes only the row of the "
            "class token"
        )
    lines.append(
        f"batches of {batch}, {threads.workers} workers: training {batch / step:,.0f} images/s "
        f"({least / step:.0%} of the time is that of the products alone), "
        f"evaluation {batch / evaluation:,.0f} images/s"
    )
    return "\n".join(lines)
