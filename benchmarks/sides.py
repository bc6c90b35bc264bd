"""The libraries that speed.py compares, each in a separate process, and the models they run."""

import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

import numpyvit as nv

MODELS = {
    "17 tokens": nv.ViTConfig(28, 7, 1, 10, width=64, depth=4, heads=4, mlp_width=128),
    "50 tokens": nv.ViTConfig(28, 4, 1, 10, width=64, depth=6, heads=4, mlp_width=128),
    "65 tokens, D 192": nv.ViTConfig(32, 4, 3, 10, width=192, depth=9, heads=3, mlp_width=768),
    "ViT-Ti/16 at 224": nv.presets["ViT-Ti/16"],
}
# The libraries, and the package that each of them needs.
SIDES = {
    "numpyvit": "numpy",
    "PyTorch eager": "torch",
    "torch.compile": "torch",
    "PyTorch bf16": "torch",
    "JAX jit": "jax",
}
PRODUCTS = "products"  # not a library: the matrix products of the plain model alone
MOST_ERROR = 1e-4  # of outputs and gradients, relative to numpyvit's
MOST_ERROR_BF16 = 0.05


def make_side(name: str, model: nv.ViT, weights: nv.Buffer, threads: int) -> Any:
    """Return the model in one of SIDES, with methods step, gradients and logits."""
    if name == "numpyvit":
        import numpyvit_side

        return numpyvit_side.Side(model, weights, threads)
    if name == "JAX jit":
        import jax_side

        return jax_side.Side(model, weights, threads)
    import torch_side

    modes = {"PyTorch eager": "eager", "torch.compile": "compile", "PyTorch bf16": "bf16"}
    return torch_side.Side(modes[name], model, weights, threads)


def random_batch(config: nv.ViTConfig, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images (B, H, W, C) and labels (B,), the same at each call."""
    rng = np.random.default_rng(1)
    images = rng.standard_normal((batch, *config.image, config.channels), np.float32)
    return images, rng.integers(0, config.classes, batch)


def serve(connection: Connection, name: str, config: nv.ViTConfig, threads: int) -> None:
    """Run in a separate process and answer the orders (task, batch, seconds) of Sides.

    The task "check" is answered with the version, the logits and the gradients. For "step" and
    "predict" the answer is the median time of one call, of calls that take `seconds` together;
    if seconds is 0 the calls only warm up. None ends the process.
    """
    model = nv.ViT(config)
    weights = model.init()
    rng = np.random.default_rng(0)
    for weight in weights.values():
        weight += rng.normal(0, 0.02, weight.shape).astype(weight.dtype)  # no gradient is zero
    side = limit = None
    while (order := connection.recv()) is not None:
        task, batch, seconds = order
        images, labels = random_batch(config, batch)
        call: Callable[[], object]
        if name == PRODUCTS:
            limit = limit or make_limit(model, batch, threads)
            call = limit
        else:
            side = side or make_side(name, model, weights, threads)
            if task == "check":
                answer = side.version, side.logits(images), side.gradients(images, labels)
                connection.send(answer)
                continue
            if task == "step":
                call = partial(side.step, images, labels)
            else:
                call = partial(side.logits, images)
        connection.send(median_time(call, seconds))


def make_limit(model: nv.ViT, batch: int, threads: int) -> Callable[[], object]:
    """Return a function that runs the plain model's products for a batch on worker threads."""
    from numpyvit.look.timing import limit

    workers = nv.Workers(model, workers=threads)
    workers.__enter__()  # until the process ends
    return limit(model.config, batch, workers)


def median_time(call: Callable[[], object], seconds: float) -> float:
    """Return the median time of a call that is repeated for `seconds`; if that is 0, warm up."""
    if seconds == 0:
        for _ in range(3):  # the first compiles
            call()
        return 0.0
    times: list[float] = []
    while sum(times) < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


class Sides:
    """The processes of all sides for one model, as a context manager."""

    def __init__(self, names: list[str], config: nv.ViTConfig, threads: int) -> None:
        self.connections: dict[str, Connection] = {}
        self.processes = []
        context = multiprocessing.get_context("spawn")
        for name in names:
            self.connections[name], theirs = context.Pipe()
            args = (theirs, name, config, threads)
            process = context.Process(target=serve, args=args, daemon=True)
            process.start()
            self.processes.append(process)

    def __enter__(self) -> "Sides":
        return self

    def __exit__(self, *error: object) -> None:
        for connection, process in zip(self.connections.values(), self.processes, strict=True):
            connection.send(None)
            process.join()

    def ask(self, name: str, task: str, batch: int, seconds: float) -> Any:
        """Give one side an order, and return its answer; see serve."""
        self.connections[name].send((task, batch, seconds))
        return self.connections[name].recv()

    def check(self, batch: int) -> list[str]:
        """Compare outputs and gradients with those of the first side, and return the versions.

        Ends the program if they differ too much.
        """
        versions: list[str] = []
        reference = None
        for name in self.connections:
            if name == PRODUCTS:
                continue
            version, logits, grads = self.ask(name, "check", batch, 0)
            versions.append(version)
            if reference is None:
                reference = logits, grads
                continue
            output_error = np.abs(logits - reference[0]).max() / np.abs(reference[0]).max()
            error = gradient_error(grads, reference[1])
            print(
                f"    {name} compared to numpyvit: outputs within {output_error:.0e}, "
                f"gradients within {error:.0e}"
            )
            most = MOST_ERROR_BF16 if "bf16" in name else MOST_ERROR
            if max(error, output_error) > most:
                sys.exit(f"{name} does not compute the same as numpyvit: nothing is timed")
        return versions

    def turns(self, task: str, batch: int, rounds: int, seconds: float) -> dict[str, np.ndarray]:
        """Return the times of one call, (rounds,) for each side; the sides take turns."""
        for name in self.connections:
            self.ask(name, task, batch, 0)
        times = [
            [self.ask(name, task, batch, seconds) for name in self.connections]
            for _ in range(rounds)
        ]
        return dict(zip(self.connections, np.array(times).T, strict=True))


def gradient_error(grads: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> float:
    """Return the largest relative error of a weight's gradient.

    A thousandth of the norm of all gradients is added to that of each, because the gradient of
    the keys' bias is zero.
    """
    total = np.sqrt(sum(float((g**2).sum()) for g in reference.values()))
    return max(
        float(np.linalg.norm(grads[name] - g) / (np.linalg.norm(g) + 1e-3 * total))
        for name, g in reference.items()
    )


def load() -> str:
    """Return the load averages of the machine."""
    return " ".join(f"{x:.2f}" for x in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"


def processor() -> str:
    """Return the name of the processor."""
    try:
        with open("/proc/cpuinfo") as file:
            names = (line for line in file if line.startswith("model name"))
            return next(names).split(":")[1].strip()
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
