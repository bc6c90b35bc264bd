"""Compare the speed and the memory of numpyvit with PyTorch and JAX on a CPU.

    python benchmarks/speed.py --rounds 5                  (17 minutes on two cores)
    python benchmarks/speed.py --only import               (10 seconds)

Libraries that are not installed are skipped. Each library runs in a separate process and
starts from the same weights, and must give the same outputs and gradients before anything is
timed. Then the libraries take turns, so that a change in the machine's speed affects all of
them; the ratios are medians of the ratios of the individual turns. The sections are

    step       training steps: forward, backward, AdamW
    evaluate   forward passes of batches of 256 images
    one        the forward pass of a single image
    memory     the peak memory of a process that trains
    import     the time that `import` takes
    busy       training while another process keeps one core busy
    growth     how the cost of a step grows with batch, tokens, width, depth and workers

The last results are in RESULTS.md.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from sides import MODELS, PRODUCTS, SIDES, Sides, load, make_side, processor, random_batch

import numpyvit as nv
from numpyvit.engine.process import cores

BATCH = {"ViT-Ti/16 at 224": 16}  # images in a training step; 128 for the other models
FLOAT32 = ["PyTorch eager", "torch.compile", "JAX jit"]  # the sides that the ratios are for
SECTIONS = ["step", "evaluate", "one", "memory", "import", "busy", "growth"]
MEMORY_MODEL = "65 tokens, D 192"


def ratio_to_best(times: dict[str, np.ndarray]) -> tuple[str, float]:
    """Return the fastest other side in float32, and how many times as fast numpyvit is.

    times: the seconds of each side, (rounds,). Without another side, "" and NaN.
    """
    rivals = [name for name in FLOAT32 if name in times]
    if not rivals:
        return "", float("nan")
    best = min(rivals, key=lambda name: float(np.median(times[name])))
    return best, float(np.median(times[best] / times["numpyvit"]))


def table(
    title: str,
    task: str,
    models: list[str],
    names: list[str],
    args: argparse.Namespace,
    batch_of: Callable[[str], int],
) -> None:
    """Print a table with a line for each model and a column for each side.

    task: "step" or "predict". batch_of returns the batch size of a model.
    """
    columns = [*names, PRODUCTS] if task == "step" else names
    heads = "".join(f"{name:>15}" for name in columns)
    print(f"\n{title}")
    print(f"{'model':>20}{'batch':>7}{heads}{'compared to the best':>27}")
    for model in models:
        batch = batch_of(model)
        with Sides(columns, MODELS[model], args.threads) as sides:
            sides.check(min(batch, 16))
            times = sides.turns(task, batch, args.rounds, args.seconds)
        median = {name: float(np.median(times[name])) for name in columns}
        digits = 1 if batch / min(median.values()) < 1000 else 0
        cells = [
            f"{batch / median[name]:,.{digits}f}/s" if batch > 1 else f"{median[name] * 1e3:.2f} ms"
            for name in columns
        ]
        row = f"{model:>20}{batch:>7}" + "".join(f"{cell:>15}" for cell in cells)
        best, ratio = ratio_to_best(times)
        print(row + (f"{ratio:>8.2f} times {best}" if best else ""), flush=True)
        if task == "step":
            print(f"{'':>20} {remark(times)}")


def remark(times: dict[str, np.ndarray]) -> str:
    """Return the second line of the table for a training step, from the times of its sides."""
    fraction = np.median(times[PRODUCTS] / times["numpyvit"])
    found = f"matrix products of the plain model alone: {fraction:.0%} of numpyvit's time"
    if "PyTorch bf16" in times:
        ratio = np.median(times["PyTorch bf16"] / times["numpyvit"])
        found += f"; numpyvit is {ratio:.2f} times as fast as PyTorch bf16"
    return found


def memory(names: list[str], args: argparse.Namespace) -> None:
    """Print the peak memory of a process that takes two training steps, by batch size."""
    print(
        "\npeak memory of a process that trains the model with 65 tokens and D 192, in MB "
        "(in parentheses: before the first step)"
    )
    print(f"{'batch':>8}" + "".join(f"{name:>22}" for name in names))
    for batch in (32, 128, 512):
        cells = []
        for name in names:
            command = [sys.executable, __file__, "--peak", name, str(batch), str(args.threads)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            *_, before, peak = done.stdout.split()
            cells.append(f"{peak} ({before})")
        print(f"{batch:>8}" + "".join(f"{cell:>22}" for cell in cells), flush=True)


def print_peak(name: str, batch: int, threads: int) -> None:
    """Take two training steps, print this process's peak memory before and after, and exit."""
    import resource

    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10  # of ru_maxrss, for megabytes

    def megabytes() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit

    config = MODELS[MEMORY_MODEL]
    model = nv.ViT(config)
    side = make_side(name, model, model.init(), threads)
    images, labels = random_batch(config, batch)
    before = megabytes()
    for _ in range(2):
        side.step(images, labels)
    print(before, megabytes())
    sys.stdout.flush()
    os._exit(0)  # without waiting for the side's threads


def imports() -> None:
    """Print the time that each import takes in a fresh process, without Python's own start."""
    modules = ["", "numpy", "numpyvit", *(name for name in ("torch", "jax") if find_spec(name))]
    times: dict[str, list[float]] = {module: [] for module in modules}
    for _ in range(11):
        for module in modules:
            start = time.perf_counter()
            code = f"import {module}" if module else ""
            subprocess.run([sys.executable, "-c", code], check=True)
            times[module].append(time.perf_counter() - start)
    base = np.median(times[""])
    found = [f"{module} {np.median(times[module]) - base:.3f}" for module in modules[1:]]
    print(f"\nimport time in seconds, without the start of Python: {', '.join(found)}")
    difference = np.median(np.array(times["numpyvit"]) - np.array(times["numpy"]))
    print(f"numpyvit without numpy: {difference:.3f} s")


def busy(models: list[str], names: list[str], args: argparse.Namespace) -> None:
    """Print the training throughput while a core is busy, as a fraction of the usual one."""
    print("\nfraction of the throughput that remains while another process keeps one core busy")
    print(f"{'model':>20}" + "".join(f"{name:>15}" for name in names))
    for model in models:
        batch = BATCH.get(model, 128)
        with Sides(names, MODELS[model], args.threads) as sides:
            quiet = sides.turns("step", batch, args.rounds, args.seconds)
            other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            if hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(other.pid, {min(os.sched_getaffinity(0))})
            loaded = sides.turns("step", batch, args.rounds, args.seconds)
            other.kill()
            other.wait()
        fractions = (np.median(quiet[name]) / np.median(loaded[name]) for name in names)
        print(f"{model:>20}" + "".join(f"{f:>15.0%}" for f in fractions), flush=True)


def growth(args: argparse.Namespace) -> None:
    """Print how the cost of a training step grows when one thing at a time changes."""
    print(
        "\ncost of a training step, one change at a time to the model with 50 tokens at batch "
        "128; microseconds per image"
    )

    def cost(batch: int = 128, threads: int = args.threads, **changes: Any) -> str:
        config = nv.ViTConfig(
            **{"image_size": 28, "patch_size": 4, "width": 64, "depth": 6, "mlp_width": 128}
            | changes
        )
        with Sides(["numpyvit"], config, threads) as sides:
            times = sides.turns("step", batch, args.rounds, args.seconds / 2)
        return f"{np.median(times['numpyvit']) / batch * 1e6:,.0f}"

    def row(name: str, cells: dict[int, str]) -> None:
        found = "   ".join(f"{label}: {microseconds}" for label, microseconds in cells.items())
        print(f"{name:>9}   {found}", flush=True)

    row("batch", {batch: cost(batch) for batch in (1, 8, 32, 128, 512)})
    row("tokens", {(28 // p) ** 2 + 1: cost(patch_size=p) for p in (14, 7, 4, 2)})
    widths = (32, 64, 128, 256)
    row("width", {w: cost(width=w, mlp_width=2 * w, heads=w // 16) for w in widths})
    row("depth", {depth: cost(depth=depth) for depth in (2, 4, 8, 16)})
    row("workers", {n: cost(threads=n) for n in sorted({1, 2, args.threads})})


def parse_args() -> argparse.Namespace:
    """Return the options; models and sides are lists of names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    numbers = ",".join(str(i) for i in range(len(MODELS)))
    parser.add_argument(
        "--only", default=",".join(SECTIONS), help="sections, separated by commas (default: all)"
    )
    parser.add_argument(
        "--models",
        default=numbers,
        help="numbers of models, separated by commas: "
        + ", ".join(f"{i} is {name}" for i, name in enumerate(MODELS)),
    )
    parser.add_argument("--sides", default=",".join(SIDES), help="of " + ", ".join(SIDES))
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side (default: 7)")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="length of a turn (default: 1 second)"
    )
    parser.add_argument(
        "--threads", type=int, default=len(cores()), help="default: one for each core"
    )
    args = parser.parse_args()
    args.only = args.only.split(",")
    args.models = [list(MODELS)[int(i)] for i in args.models.split(",")]
    args.sides = args.sides.split(",")
    return args


def main() -> None:
    """Run the sections, one after another."""
    if sys.argv[1:2] == ["--peak"]:  # called by memory
        print_peak(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return
    args = parse_args()
    names = [name for name in args.sides if find_spec(SIDES[name])]
    for name in args.sides:
        if name not in names:
            print(
                f"{name}: skipped, because {SIDES[name]} is not installed "
                "(pip install 'numpyvit[benchmarks]')"
            )
    print(
        f"{processor()}, {args.threads} threads, Python {platform.python_version()}, "
        f"{platform.system()}; load {load()}"
    )
    with Sides(names, MODELS["17 tokens"], args.threads) as sides:
        print("; ".join(dict.fromkeys(sides.check(16))))
    models = args.models
    exact = [name for name in names if name != "PyTorch bf16"]
    if "step" in args.only:
        title = "training step (forward, backward, AdamW), images per second"
        table(title, "step", models, names, args, lambda model: BATCH.get(model, 128))
    if "evaluate" in args.only:
        title = "evaluation, images per second"
        table(title, "predict", models[:3], exact, args, lambda model: 256)
    if "one" in args.only:
        table("one image, milliseconds", "predict", models[:3], exact, args, lambda model: 1)
    if "memory" in args.only:
        memory(exact, args)
    if "import" in args.only:
        imports()
    if "busy" in args.only:
        chosen = [name for name in names if name in ("numpyvit", "PyTorch eager")]
        busy(models[:3], chosen, args)
    if "growth" in args.only:
        growth(args)
    print(f"\nload at the end: {load()}")


if __name__ == "__main__":
    main()
