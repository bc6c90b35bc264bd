"""numpyvit against PyTorch and JAX on a CPU: `python benchmarks/speed.py`. What is not installed is skipped, and said so.

Every side runs in a process of its own, has the same weights, and must give the same outputs and gradients before anything
is timed. Then the sides take turns, so that a change in the machine's speed meets all of them; what counts are the ratios
within a round. --only picks sections, --models the models, --rounds the number of turns.
"""

import argparse
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
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
BATCH = {"ViT-Ti/16 at 224": 16}
SIDES = {
    "numpyvit": "numpy",
    "PyTorch eager": "torch",
    "torch.compile": "torch",
    "PyTorch bf16": "torch",
    "JAX jit": "jax",
}
RIVALS = ["PyTorch eager", "torch.compile", "JAX jit"]  # in float32; bf16 is shown beside
SECTIONS = ["step", "evaluate", "one", "memory", "import", "busy", "growth"]


def make_side(name: str, model: nv.ViT, weights: nv.Buffer, threads: int) -> Any:
    if name == "numpyvit":
        import numpyvit_side

        return numpyvit_side.Side(model, weights, threads)
    if name == "JAX jit":
        import jax_side

        return jax_side.Side(model, weights, threads)
    import torch_side

    return torch_side.Side(
        {"PyTorch eager": "eager", "torch.compile": "compile", "PyTorch bf16": "bf16"}[name],
        model,
        weights,
        threads,
    )


def draw(config: nv.ViTConfig, batch: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.standard_normal((batch, *config.image, config.channels), np.float32), rng.integers(
        0, config.classes, batch
    )


def serve(connection: Connection, name: str, config: nv.ViTConfig, threads: int) -> None:
    """One side's process: answers (what, batch, seconds) with the median seconds of one call, until it gets None."""
    model = nv.ViT(config)
    weights = model.init()
    rng = np.random.default_rng(0)
    for key in weights.names():
        weights[key][...] += rng.normal(0, 0.02, weights[key].shape)  # so that no gradient is zero
    side = limit = None
    while (order := connection.recv()) is not None:
        what, batch, seconds = order
        images, labels = draw(config, batch)
        if name == "products":
            from numpyvit.look.timing import limit as make_limit

            workers = nv.Workers(model, workers=threads).__enter__()
            limit = limit or make_limit(config, batch, workers)
            call: Callable[[], object] = limit
        else:
            side = side or make_side(name, model, weights, threads)
            if what == "check":
                connection.send((side.version, side.logits(images), side.gradients(images, labels)))
                continue
            call = (
                partial(side.step, images, labels)
                if what == "step"
                else partial(side.logits, images)
            )
        if seconds == 0:  # warm up, compile
            for _ in range(3):
                call()
            connection.send(0.0)
            continue
        times: list[float] = []
        while sum(times) < seconds:
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        connection.send(float(np.median(times)))


class Sides:
    """The processes of all sides for one model."""

    def __init__(self, names: list[str], config: nv.ViTConfig, threads: int) -> None:
        self.connections: dict[str, Connection] = {}
        self.processes = []
        context = multiprocessing.get_context("spawn")
        for name in names:
            self.connections[name], theirs = context.Pipe()
            process = context.Process(
                target=serve, args=(theirs, name, config, threads), daemon=True
            )
            process.start()
            self.processes.append(process)

    def __enter__(self) -> "Sides":
        return self

    def __exit__(self, *error: object) -> None:
        for connection, process in zip(self.connections.values(), self.processes, strict=True):
            connection.send(None)
            process.join()

    def ask(self, name: str, what: str, batch: int, seconds: float) -> Any:
        self.connections[name].send((what, batch, seconds))
        return self.connections[name].recv()

    def check(self, batch: int) -> list[str]:
        """Compare outputs and gradients with ours. Returns the versions; stops where they differ."""
        versions, ours = [], None
        for name in self.connections:
            if name == "products":
                continue
            version, logits, grads = self.ask(name, "check", batch, 0)
            versions.append(version)
            if ours is None:
                ours = logits, grads
                continue
            total = np.sqrt(sum(float((g**2).sum()) for g in ours[1].values()))
            error = max(
                np.linalg.norm(grads[n] - g) / (np.linalg.norm(g) + 1e-3 * total)
                for n, g in ours[1].items()
            )
            apart = np.abs(logits - ours[0]).max() / np.abs(ours[0]).max()
            print(
                f"    {name} against numpyvit: outputs within {apart:.0e}, gradients within {error:.0e}"
            )
            if max(error, apart) > (0.05 if "bf16" in name else 1e-4):
                sys.exit(f"{name} does not compute the same as numpyvit: nothing is timed")
        return versions

    def turns(self, what: str, batch: int, rounds: int, seconds: float) -> dict[str, np.ndarray]:
        """The seconds of one call, (rounds,) for each side, taken in turns."""
        for name in self.connections:
            self.ask(name, what, batch, 0)
        times = [
            [self.ask(name, what, batch, seconds) for name in self.connections]
            for _ in range(rounds)
        ]
        return dict(zip(self.connections, np.array(times).T, strict=True))


def ratio_to_best(times: dict[str, np.ndarray]) -> tuple[str, float]:
    """How many times faster numpyvit is than the fastest other side in float32: the median over the rounds."""
    rivals = [name for name in RIVALS if name in times]
    if not rivals:
        return "", float("nan")
    best = min(rivals, key=lambda name: float(np.median(times[name])))
    return best, float(np.median(times[best] / times["numpyvit"]))


def table(
    title: str,
    what: str,
    models: list[str],
    names: list[str],
    args: argparse.Namespace,
    batch_of: Callable[[str], int],
) -> None:
    print(f"\n{title}")
    columns = names + (["products"] if what == "step" else [])
    print(
        f"{'model':>20}{'batch':>7}"
        + "".join(f"{name:>15}" for name in columns)
        + f"{'to the best':>27}"
    )
    for model in models:
        config, batch = MODELS[model], batch_of(model)
        with Sides(columns, config, args.threads) as sides:
            sides.check(min(batch, 16))
            times = sides.turns(what, batch, args.rounds, args.seconds)
        best, ratio = ratio_to_best(times)
        median = {n: float(np.median(times[n])) for n in columns}
        digits = 1 if batch / min(median.values()) < 1000 else 0
        cells = [
            f"{batch / median[n]:,.{digits}f}/s" if batch > 1 else f"{median[n] * 1e3:.2f} ms"
            for n in columns
        ]
        row = f"{model:>20}{batch:>7}" + "".join(f"{cell:>15}" for cell in cells)
        print(row + (f"{ratio:>8.2f} of {best}" if best else ""), flush=True)
        if what == "step":
            share = np.median(times["products"] / times["numpyvit"])
            line = f"{'':>20} the plain model's products alone: {share:.0%} of numpyvit's time"
            if "PyTorch bf16" in names:
                line += f"; numpyvit is {np.median(times['PyTorch bf16'] / times['numpyvit']):.2f} times as fast as bf16"
            print(line)


def memory(names: list[str], args: argparse.Namespace) -> None:
    """Peak memory of a process that takes two training steps, by batch."""
    print(
        "\npeak memory of a process that trains the model of 65 tokens, D 192 (MB; in brackets: before the first step)"
    )
    print(f"{'batch':>8}" + "".join(f"{name:>22}" for name in names))
    for batch in (32, 128, 512):
        cells = []
        for name in names:
            out = subprocess.run(
                [sys.executable, __file__, "--peak", name, str(batch), str(args.threads)],
                check=True,
                capture_output=True,
                text=True,
            ).stdout.split()
            cells.append(f"{out[-1]} ({out[-2]})")
        print(f"{batch:>8}" + "".join(f"{cell:>22}" for cell in cells), flush=True)


def peak(name: str, batch: int, threads: int) -> None:
    import resource

    def megabytes() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (
            1 << 20 if sys.platform == "darwin" else 1 << 10
        )

    config = MODELS["65 tokens, D 192"]
    model = nv.ViT(config)
    side = make_side(name, model, model.init(), threads)
    images, labels = draw(config, batch)
    before = megabytes()
    for _ in range(2):
        side.step(images, labels)
    print(before, megabytes())
    sys.stdout.flush()
    os._exit(0)


def imports(args: argparse.Namespace) -> None:
    """What each import takes in a fresh process, over what starting Python takes."""
    modules = ["", "numpy", "numpyvit", *(m for m in ("torch", "jax") if find_spec(m))]
    times: dict[str, list[float]] = {m: [] for m in modules}
    for _ in range(11):
        for m in modules:
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {m}" if m else ""], check=True)
            times[m].append(time.perf_counter() - start)
    base = np.median(times[""])
    print(
        "\nimport, seconds over the start of Python: "
        + ", ".join(f"{m} {np.median(times[m]) - base:.3f}" for m in modules[1:])
    )
    print(
        f"numpyvit over numpy: {np.median(np.array(times['numpyvit']) - np.array(times['numpy'])):.3f} s"
    )


def busy(models: list[str], names: list[str], args: argparse.Namespace) -> None:
    """Training throughput with another process keeping one core busy, as a share of the quiet one."""
    print("\none core kept busy by another process: share of the throughput that is left")
    print(f"{'model':>20}" + "".join(f"{name:>15}" for name in names))
    for model in models:
        batch = BATCH.get(model, 128)
        with Sides(names, MODELS[model], args.threads) as sides:
            quiet = sides.turns("step", batch, args.rounds, args.seconds)
            other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            if hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(other.pid, {min(os.sched_getaffinity(0))})
            loud = sides.turns("step", batch, args.rounds, args.seconds)
            other.kill()
            other.wait()
        print(
            f"{model:>20}"
            + "".join(f"{np.median(quiet[n]) / np.median(loud[n]):>15.0%}" for n in names),
            flush=True,
        )


def growth(args: argparse.Namespace) -> None:
    """How the cost of a training step grows, from the 50-token model, one thing at a time."""
    base = {
        "image_size": 28,
        "patch_size": 4,
        "channels": 1,
        "width": 64,
        "depth": 6,
        "heads": 4,
        "mlp_width": 128,
    }
    print(
        "\nhow a training step grows, from the model of 50 tokens at batch 128; microseconds for an image"
    )

    def line(what: str, cells: list[tuple[str, dict[str, Any], int, int]]) -> None:
        out = []
        for label, changes, batch, threads in cells:
            config = nv.ViTConfig(**{**base, **changes})
            with Sides(["numpyvit"], config, threads) as sides:
                seconds = np.median(
                    sides.turns("step", batch, args.rounds, args.seconds / 2)["numpyvit"]
                )
            out.append(f"{label}: {seconds / batch * 1e6:,.0f}")
        print(f"{what:>9}   " + "   ".join(out), flush=True)

    t = args.threads
    line("batch", [(str(b), {}, b, t) for b in (1, 8, 32, 128, 512)])
    line("tokens", [(str((28 // p) ** 2 + 1), {"patch_size": p}, 128, t) for p in (14, 7, 4, 2)])
    line(
        "width",
        [
            (str(w), {"width": w, "mlp_width": 2 * w, "heads": w // 16}, 128, t)
            for w in (32, 64, 128, 256)
        ],
    )
    line("depth", [(str(d), {"depth": d}, 128, t) for d in (2, 4, 8, 16)])
    line("workers", [(str(n), {}, 128, n) for n in sorted({1, 2, t})])


def main() -> None:
    if sys.argv[1:2] == ["--peak"]:
        peak(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--only", default=",".join(SECTIONS), help="sections, of " + ", ".join(SECTIONS)
    )
    parser.add_argument(
        "--models", default=",".join(str(i) for i in range(len(MODELS))), help="by number, from 0"
    )
    parser.add_argument("--sides", default=",".join(SIDES), help="of " + ", ".join(SIDES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="a side's turn takes about so long"
    )
    parser.add_argument("--threads", type=int, default=len(nv.machine.cores()))
    args = parser.parse_args()
    models = [list(MODELS)[int(i)] for i in args.models.split(",")]
    names = []
    for name in args.sides.split(","):
        if find_spec(SIDES[name]):
            names.append(name)
        else:
            print(
                f"{name}: skipped, {SIDES[name]} is not installed (pip install 'numpyvit[benchmarks]')"
            )
    print(
        f"{processor()}, {args.threads} threads, Python {platform.python_version()}, {platform.system()}; load {load()}"
    )
    with Sides(names, MODELS["17 tokens"], args.threads) as sides:
        print("; ".join(dict.fromkeys(sides.check(16))))
    sections = args.only.split(",")
    exact = [name for name in names if name != "PyTorch bf16"]
    if "step" in sections:
        table(
            "training step: forward, backward, AdamW; images a second",
            "step",
            models,
            names,
            args,
            lambda m: BATCH.get(m, 128),
        )
    if "evaluate" in sections:
        table("evaluation; images a second", "predict", models[:3], exact, args, lambda m: 256)
    if "one" in sections:
        table("one image; milliseconds", "predict", models[:3], exact, args, lambda m: 1)
    if "memory" in sections:
        memory(exact, args)
    if "import" in sections:
        imports(args)
    if "busy" in sections:
        busy(models[:3], [n for n in names if n in ("numpyvit", "PyTorch eager")], args)
    if "growth" in sections:
        growth(args)
    print(f"\nload at the end: {load()}")


def load() -> str:
    return " ".join(f"{x:.2f}" for x in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"


def processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(
                line.split(":")[1].strip() for line in file if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
