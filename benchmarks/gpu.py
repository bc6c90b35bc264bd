"""Test and measure numpyvit on a GPU, compared to the CPU and to PyTorch; prints Markdown.

    python benchmarks/gpu.py                       (--only selects parts)
    python benchmarks/gpu.py --train DIR           (trains on CIFAR-10, with the data in DIR)

It has not run on a GPU yet, so how long it takes is not known; a row takes at most --limit
seconds, five minutes by default.

The parts are, in this order:

    correct    the errors of outputs and gradients, and of 50 training steps
    peak       the FLOP/s that the GPU reaches in a large matrix product
    step       the speed of training steps: forward, backward, clipping, AdamW
    evaluate   the speed of forward passes
    cpu        the speed of training steps on all cores of the CPU

Everything runs in separate processes, one at a time. --train does nothing else; it uses the
settings in TRAIN, unless options of `numpyvit train` that are given with it say otherwise. The
exit code is 1 if a result in float32 is wrong.
"""

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu_calls import DEVICE, MODELS
from gpu_measure import MOST_ERROR, SQUARE, STEPS, about, correct, digits, peak, speed
from processes import ask, table

PARTS = ["correct", "peak", "step", "evaluate", "cpu"]
BATCHES = {
    name: (64,) if config.image_size == 224 else (128, 512) for name, config in MODELS.items()
}
PRECISIONS = {
    "PyTorch": ["float32", "tf32", "bf16"],
    "numpyvit": ["float32", "tf32", "float16"],
    "CPU": ["float32"],
}
SIDES = [
    "PyTorch eager",
    "PyTorch compile",
    "PyTorch graph",
    "PyTorch compile+graph",
    "numpyvit kernels",
    "numpyvit graph",
]
TRAIN = {
    "recipe": "cifar10-best",
    "preset": "cifar10-large",
    "epochs": 200,
    "batch-size": 256,
    "warmup": 5,
    "randaugment": 2,
    "cutmix": 1,
    "precision": "tf32",
}
TARGET = 0.9  # the test accuracy that this training is to reach


def correctness(args: argparse.Namespace) -> bool:
    """Print the errors on the GPU; return whether numpyvit's are small enough in float32."""
    groups = []
    for name in args.models:
        for library in ("numpyvit", "PyTorch"):
            items = [(precision, "float64") for precision in PRECISIONS[library]]
            if library == "numpyvit":
                items.insert(0, ("float32", "float32"))
            groups.append(((name, library), correct, (name, library), items))
    near: dict[tuple, Any] = {}
    table(
        args.limit,
        f"## Relative errors on the GPU; those of numpyvit in float32 should be below "
        f"{MOST_ERROR:g}",
        "model, side, precision, compared to the CPU in, outputs, gradients, "
        "worst weight's gradient, ",
        groups,
        near,
    )
    steps = [(mode, p) for mode in ("kernels", "graph") for p in PRECISIONS["numpyvit"]]
    alike: dict[tuple, Any] = {}
    table(
        args.limit,
        f"### {STEPS} training steps on the digits from the same seed, compared to the CPU in "
        "float32",
        "numpyvit, precision, largest relative difference of a loss, last loss, on the CPU",
        [((), digits, (), steps)],
        alike,
    )
    return all(alike.values()) and all(good for key, good in near.items() if key[1] == "numpyvit")


def peaks(args: argparse.Namespace) -> dict[str, float]:
    """Print the FLOP/s that the GPU reaches, and return them by precision."""
    rates: dict[tuple, Any] = {}
    items = [(precision,) for precision in ("float32", "tf32", "float16", "bf16")]
    table(
        args.limit,
        f"## The GPU's peak: the product of two matrices of {SQUARE}x{SQUARE} in PyTorch",
        "precision, TFLOP/s",
        [((), peak, (args.rounds,), items)],
        rates,
    )
    return {precision: rate for (precision,), rate in rates.items() if rate}


def speeds(
    args: argparse.Namespace,
    tasks: list[str],
    sides: list[str],
    precisions: list[str],
    peaks: dict[str, float],
) -> None:
    """Print a table for each model and batch size; each side is compared to the first."""

    def groups(name: str, batch: int, values: dict[tuple, Any]) -> Iterator[tuple]:
        for side in sides:
            of_first = {key[1:]: t for key, t in values.items() if key[0] == sides[0] and t}
            items = [
                (task, precision)
                for task in tasks
                for precision in PRECISIONS[side.split()[0]]
                # Only steps are captured as graphs.
                if precision in precisions and (task, side) != ("evaluate", "numpyvit graph")
            ]
            yield (side,), speed, (name, batch, side, args.rounds, of_first, peaks), items

    for name in args.models:
        for batch in BATCHES[name]:
            values: dict[tuple, Any] = {}
            table(
                args.limit,
                f"### {name}, batch {batch}",
                f"side, task, precision, ms, ±, images/s, times {sides[0]}, TFLOP/s, of peak, MB",
                groups(name, batch, values),
                values,
            )


def train(folder: str, out: str, options: list[str]) -> int:
    """Train on CIFAR-10 with the settings in TRAIN, and return the exit code."""
    settings = itertools.chain.from_iterable((f"--{k}", str(v)) for k, v in TRAIN.items())
    where = ["--data", "cifar10", "--data-dir", folder, "--device", DEVICE, "--out", out]
    command = ["numpyvit", "train", *where, *settings, *options]
    print(f"\n## CIFAR-10\n\n```\n$ {' '.join(command)}", flush=True)
    code = subprocess.run([sys.executable, "-m", *command]).returncode
    print("```", flush=True)
    if code == 0:
        last = json.loads((Path(out) / "metrics.jsonl").read_text().splitlines()[-1])
        accuracy, minutes = last["test_accuracy"], last["seconds"] / 60
        print(f"\n{accuracy:.2%} after {minutes:.1f} minutes; the goal is {TARGET:.0%}")
    return code


def parse_args() -> tuple[argparse.Namespace, list[str]]:
    """Return the options, and those that are for `numpyvit train`."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=PARTS,
        choices=PARTS,
        metavar="PART",
        help=f"some of {', '.join(PARTS)}",
    )
    parser.add_argument(
        "--models",
        nargs="+",
        type=int,
        default=range(len(MODELS)),
        choices=range(len(MODELS)),
        metavar="N",
        help="numbers of models: " + ", ".join(f"{i} is {name}" for i, name in enumerate(MODELS)),
    )
    parser.add_argument(
        "--sides",
        nargs="+",
        default=SIDES,
        choices=SIDES,
        metavar="SIDE",
        help=f"some of {', '.join(SIDES)}",
    )
    parser.add_argument("--rounds", type=int, default=7, help="rounds of timing (default: 7)")
    parser.add_argument(
        "--limit", type=float, default=300, help="most seconds for a row (default: 300)"
    )
    parser.add_argument("--train", metavar="DIR", help="only train on CIFAR-10, with data in DIR")
    parser.add_argument("--out", default="runs/gpu-cifar10", help="the folder of that run")
    args, options = parser.parse_known_args()
    if options and not args.train:
        parser.error(f"unknown options: {' '.join(options)}")
    args.models = [list(MODELS)[i] for i in args.models]
    return args, options


def main() -> None:
    """Run the parts, and exit with 1 if a result is wrong, with 2 if there is no GPU."""
    args, options = parse_args()
    cells, description = next(ask(args.limit, about, items=[()]))
    if description is None:
        print(*cells, file=sys.stderr)
        sys.exit(2)
    print(f"`python {' '.join(sys.argv)}`\n\n{description}", flush=True)
    if args.train:
        sys.exit(train(args.train, args.out, options))
    good = "correct" not in args.only or correctness(args)
    peak_rates = peaks(args) if "peak" in args.only else {}
    if tasks := [task for task in ("step", "evaluate") if task in args.only]:
        print(
            "\n## Speed of training steps (forward, backward, clipping, AdamW) and evaluations "
            "(forward), with the images on the device\n\n"
            f"The times are medians of {args.rounds} rounds, and ± is half of their range. float16 "
            "is compared with bf16. TFLOP/s counts the products of the plain model; numpyvit "
            "computes fewer, because in the last block only the class token has a query. The "
            "column `of peak` refers to the peak measured above. MB is all memory of the GPU that "
            "is taken, including what allocators keep for later, and the code and the workspaces "
            "of the libraries."
        )
        precisions = [*PRECISIONS["numpyvit"], "bf16"]
        speeds(args, tasks, args.sides, precisions, peak_rates)
    if "cpu" in args.only:
        print("\n## The CPU, on all cores, compared to the GPU")
        speeds(args, ["step"], ["CPU", "numpyvit graph"], ["float32"], {})
    sys.exit(not good)


if __name__ == "__main__":
    main()
