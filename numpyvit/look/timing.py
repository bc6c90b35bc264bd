"""Where the time of a step goes, layer by layer, and what share of it the matrix products need: `numpyvit info --time`."""

import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np

from ..engine.workers import Workers, micro_batch_size
from ..losses import cross_entropy
from ..vit import ViT, ViTConfig

Runs = dict[str, list[Callable[[], object]]]


def products(config: ViTConfig, B: int, dtype: Any = np.float32) -> tuple[Runs, Runs]:
    """The matrix products of the plain model for B images, forward and backward, by layer: functions to call.

    No shortcut is taken: all tokens ask in the last block too. Each product finds its inputs in the layout that suits it
    best and writes to memory that is there. What else a model computes comes on top of this time.
    """
    c = config
    forward: Runs = defaultdict(list)
    backward: Runs = defaultdict(list)
    N, D, E = c.tokens, c.width, c.width // c.heads

    def product(
        runs: Runs, name: str, a: tuple[int, ...], b: tuple[int, ...], swap: str = ""
    ) -> None:
        """a @ b, of arrays whose memory holds a' or b' where `swap` says so."""
        x, y = (
            np.ones(shape if n not in swap else (*shape[:-2], shape[-1], shape[-2]), dtype)
            for n, shape in (("a", a), ("b", b))
        )
        x, y = x.swapaxes(-1, -2) if "a" in swap else x, y.swapaxes(-1, -2) if "b" in swap else y
        out = np.empty((*a[:-1], b[-1]), dtype)
        runs[name].append(lambda: np.matmul(x, y, out=out))

    def linear(name: str, rows: int, d_in: int, d_out: int, need_dx: bool = True) -> None:
        product(forward, name, (rows, d_in), (d_in, d_out))
        product(backward, name, (d_in, rows), (rows, d_out), "a")
        if need_dx:
            product(backward, name, (rows, d_out), (d_out, d_in), "b")

    patches = N - (c.pooling == "cls")
    linear("embed", B * patches, c.window[0] * c.window[1] * c.channels, D, need_dx=False)
    for i in range(c.depth):
        b, heads = block_name(i, c.depth), (B, c.heads)
        linear(f"{b}.attention.qkv", B * N, D, 3 * D)
        for runs, times in ((forward, 1), (backward, 2)):  # q k' and a v; da, dv, dq and dk
            for _ in range(times):
                product(runs, f"{b}.attention", (*heads, N, E), (*heads, E, N))
                product(runs, f"{b}.attention", (*heads, N, N), (*heads, N, E))
        linear(f"{b}.attention.proj", B * N, D, D)
        linear(f"{b}.mlp.fc1", B * N, D, c.mlp_width)
        linear(f"{b}.mlp.fc2", B * N, c.mlp_width, D)
    if c.head_hidden:
        linear("head.hidden", B, D, c.head_hidden)
    linear("head.out", B, c.head_hidden or D, c.classes)
    return forward, backward


def block_name(i: int, depth: int) -> str:
    """Blocks are one row of the table, but for the last: there the class token alone may ask."""
    return "last block" if i == depth - 1 else "other blocks"


class Stopwatch:
    """Seconds by name, where what a timed call spends in other timed calls counts for those."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.inner: list[float] = []

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            self.inner.append(0.0)
            start = time.perf_counter()
            result = call(*args, **kwargs)
            seconds = time.perf_counter() - start
            self.seconds[name] += seconds - self.inner.pop()
            if self.inner:
                self.inner[-1] += seconds
            return result

        return run


def time_layers(model: ViT, forward: Stopwatch, backward: Stopwatch) -> None:
    """Make this model's layers report to the two stopwatches."""

    def walk(layer: Any, name: str) -> None:
        for key, part in vars(layer).items():
            if key == "blocks":
                for i, block in enumerate(part):
                    walk(block, block_name(i, len(part)))
            elif hasattr(part, "forward"):
                walk(part, f"{name}.{key}" if name else key)
        layer.forward = forward.timed(name or "everything else", layer.forward)
        layer.backward = backward.timed(name or "everything else", layer.backward)

    walk(model, "")


def median_time(call: Callable[[], object], seconds: float = 1.0, least: int = 3) -> float:
    """The median time of a call, repeated for about so long."""
    call()
    times: list[float] = []
    while len(times) < least or sum(times) < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def layer_times(
    config: ViTConfig, B: int, repeats: int = 7
) -> dict[str, tuple[float, float, float, float]]:
    """By layer: seconds forward and backward for one micro-batch of B images on one thread, and those of the products alone.

    To be called while Workers are at work: they set what a worker finds.
    """
    model, rng = ViT(config), np.random.default_rng(0)
    params = model.init()
    grads = params.zeros_like()
    images = rng.standard_normal((B, *config.image, config.channels), np.float32)
    labels = rng.integers(0, config.classes, B)
    runs: list[tuple[dict[str, float], dict[str, float]]] = []
    forward, backward = Stopwatch(), Stopwatch()
    time_layers(model, forward, backward)
    for _ in range(repeats + 1):
        forward.seconds.clear()
        backward.seconds.clear()
        logits, cache = model.forward(params, images)
        model.backward(cross_entropy(logits, labels)[1], cache, grads)
        runs.append((dict(forward.seconds), dict(backward.seconds)))
    limits: list[dict[str, float]] = [defaultdict(float), defaultdict(float)]
    for part, its_limits in zip(products(config, B), limits, strict=True):
        for name, calls in part.items():
            row = (
                name if name in runs[0][0] else name.rpartition(".")[0]
            )  # last block: attention makes q itself
            its_limits[row] += median_time(partial(run_all, calls), 0.05)
    return {
        name: (
            float(np.median([f[name] for f, _ in runs[1:]])),
            float(np.median([b.get(name, 0) for _, b in runs[1:]])),
            limits[0][name],
            limits[1][name],
        )
        for name in runs[0][0]
    }


def run_all(calls: list[Callable[[], object]]) -> None:
    for call in calls:
        call()


def limit(config: ViTConfig, batch: int, workers: Workers) -> Callable[[], object]:
    """A function that runs the products of a whole batch, forward and backward, by these workers: what no step of the plain
    model can be faster than."""
    size = workers.micro_batch or micro_batch_size(config.tokens, batch)
    free: SimpleQueue[list[Callable[[], object]]] = SimpleQueue()
    for _ in range(workers.workers):
        free.put(
            [call for runs in products(config, size) for calls in runs.values() for call in calls]
        )

    def piece(i: int) -> None:
        calls = free.get()
        run_all(calls)
        free.put(calls)

    return lambda: workers.each(piece, range(-(-batch // size)))


def profile(
    config: ViTConfig, batch: int, workers: int | None = None, micro_batch: int | None = None
) -> str:
    """The table of `numpyvit info --time`, as text; of steps without patch dropout."""
    model = ViT(config)
    params, rng = model.init(), np.random.default_rng(0)
    images = rng.standard_normal((batch, *config.image, config.channels), np.float32)
    labels = rng.integers(0, config.classes, batch)
    with Workers(model, workers=workers, micro_batch=micro_batch) as threads:
        B = threads.micro_batch or micro_batch_size(config.tokens, batch)
        rows = layer_times(config, B)
        step = median_time(lambda: threads.loss_and_grad(params, images, labels, all_patches=True))
        evaluation = median_time(lambda: threads.predict(params, images))
        least = median_time(limit(config, batch, threads))
    total = [sum(column) for column in zip(*rows.values(), strict=True)]
    lines = [
        f"one micro-batch of {B} images, one thread; ms; products: the plain model's matrix products alone",
        f"{'layer':30}{'forward':>10}{'backward':>10}{'share':>8}{'products':>10}{'products / time':>17}",
    ]
    for name, (f, b, pf, pb) in [*rows.items(), ("all", tuple(total))]:
        share, part = (f + b) / (total[0] + total[1]), f"{(pf + pb) / (f + b):17.0%}" if pf else ""
        lines.append(
            f"{name:30}{f * 1e3:10.3f}{b * 1e3:10.3f}{share:8.1%}{(pf + pb) * 1e3:10.3f}{part}"
        )
    whole = ", all patches" if config.patch_dropout else ""
    lines.append(
        f"batches of {batch}, {threads.workers} workers{whole}: training {batch / step:,.0f} images/s "
        f"({least / step:.0%} of the products alone), evaluation {batch / evaluation:,.0f} images/s"
    )
    return "\n".join(lines)
