"""numpyvit on a GPU, against the CPU and against PyTorch: `python benchmarks/gpu.py`; tables in Markdown, as they come.

First what is computed, then how fast, in processes of their own, one at a time. --only picks parts, --models the models,
--sides the sides, --rounds how often each is timed. `--train DIR` does nothing but train on CIFAR-10, which it finds in DIR
or brings there, as TRAIN says; options of `numpyvit train` that come with it overrule that.
"""

import argparse
import gc
import itertools
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from functools import cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from processes import Found, ask, table
from speed import MODELS as CPU_MODELS
from speed import draw, processor

import numpyvit as nv
from numpyvit.backend.device import module_of, number, stream, to, to_host
from numpyvit.backend.kernels import gemm as products
from numpyvit.engine.cuda_graph import GraphStep
from numpyvit.engine.loss_scale import LossScale
from numpyvit.look.costs import costs

DEVICE = "cuda"
PARTS = ["correct", "peak", "step", "evaluate", "cpu"]
MODELS = {**CPU_MODELS, "ViT-B/16 at 224": nv.presets["ViT-B/16"]}
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
WANTED = 1e-5  # how near the GPU is to be to the CPU, in float32
ROUND, LR, STEPS = 0.1, 1e-3, 50  # seconds; the rate; steps of training whose losses are compared
SQUARE = 8192  # side of the matrices whose product tells the GPU's peak
SCALE = 2.0**12  # of the gradients in float16 where they are compared: small ones vanish otherwise
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
TARGET = 0.9  # the test accuracy wanted of it


@contextmanager
def numpyvit_on_gpu(model: nv.ViT, precision: str, **settings: Any) -> Iterator[nv.Workers]:
    with stream(DEVICE), products.precision(precision), nv.Workers(model, **settings) as workers:
        yield workers


@contextmanager
def gpu_step(workers: nv.Workers, precision: str, mode: str) -> Iterator[Callable[..., Any]]:
    warnings.filterwarnings("error", ".*cannot be captured")  # it would go on without
    params = workers.model.init().to(DEVICE)
    scale = LossScale(module_of(DEVICE)) if precision == "float16" else None
    with closing(
        GraphStep(
            workers,
            params,
            nv.AdamW(params, weight_decay=0.05),
            clip=1.0,
            capture=mode == "graph",
            scale=scale,
        )
    ) as step:
        yield lambda images, labels, index: step(images, labels, index, LR)[0]


def cpu_step(workers: nv.Workers) -> Callable[..., Any]:
    params = workers.model.init()
    optimizer = nv.AdamW(params, weight_decay=0.05)

    def step(images: np.ndarray, labels: np.ndarray, index: int) -> Any:
        loss, grads = workers.loss_and_grad(params, images, labels, step=index)
        optimizer.step(params, grads, LR, clip=1.0, each=workers.each)
        return np.asarray(loss)

    return step


@contextmanager
def numpyvit_call(
    config: nv.ViTConfig, batch: int, mode: str, what: str, precision: str
) -> Iterator[Callable[[], Any]]:
    """What there is to time, `what` being "step" or "evaluate"; mode "": on the CPU."""
    model, data, index = nv.ViT(config), draw(config, batch), itertools.count()
    with numpyvit_on_gpu(model, precision) if mode else nv.Workers(model) as workers:
        images, labels = (to(x, DEVICE if mode else "cpu") for x in data)
        if what == "step":
            with (
                gpu_step(workers, precision, mode)
                if mode
                else nullcontext(cpu_step(workers)) as step
            ):
                yield lambda: step(images, labels, next(index))
        else:
            params = model.init().to(DEVICE)
            yield lambda: model.forward(params, images, need_cache=False)[0]


@contextmanager
def torch_call(
    config: nv.ViTConfig, batch: int, mode: str, what: str, precision: str
) -> Iterator[Callable[[], Any]]:
    import torch_side

    model = nv.ViT(config)
    yield torch_side.gpu_call(
        mode, model, model.init(), *draw(config, batch), DEVICE, precision, what == "step"
    )


def gpu(library: str) -> tuple[Callable[[], object], Callable[[], int]]:
    """Functions that wait for all that the GPU was asked for, and that say how many bytes it has left."""
    gc.collect()  # so that nothing is kept of what came before
    if library == "PyTorch":
        import torch

        torch.cuda.empty_cache()
        return torch.cuda.synchronize, lambda: torch.cuda.mem_get_info()[0]
    xp = module_of(DEVICE)
    xp.get_default_memory_pool().free_all_blocks()
    return xp.cuda.Device().synchronize, lambda: xp.cuda.Device().mem_info[0]


@cache
def at_start(library: str) -> int:
    """The bytes that the GPU had left before this process computed anything."""
    return gpu(library)[1]()


def times(call: Callable[[], Any], wait: Callable[[], object], rounds: int) -> list[float]:
    """Seconds of one call, in so many rounds of some ROUND seconds, each from one wait to the next."""

    def one(calls: int) -> float:
        wait()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        wait()
        return (time.perf_counter() - start) / calls

    for _ in range(3):  # compile, capture, find memory
        call()
    calls = max(1, round(ROUND / one(1)))
    return [one(calls) for _ in range(rounds + 1)][
        1:
    ]  # without the first, in which the clocks rise


def about() -> Found:
    """Raises UserError where there is no GPU or no CuPy."""
    xp = module_of(DEVICE)
    runtime = xp.cuda.runtime
    status, driver = subprocess.getstatusoutput(
        "nvidia-smi --id=0 --query-gpu=driver_version --format=csv,noheader"
    )
    major, minor = divmod(runtime.runtimeGetVersion() // 10, 100)
    torch = f"PyTorch {version('torch')}" if find_spec("torch") else "no PyTorch"
    return [], (
        f"{runtime.getDeviceProperties(0)['name'].decode()}, driver {'unknown' if status else driver}, "
        f"CUDA {major}.{minor}, CuPy {xp.__version__}, NumPy {np.__version__}, {torch}, numpyvit {nv.__version__}, "
        f"Python {sys.version.split()[0]}; {processor()}, {len(nv.machine.cores())} cores"
    )


@cache
def example(name: str, dtype: str) -> tuple[Any, ...]:
    """A model, weights that leave no gradient zero, a few images and labels; the CPU's outputs and gradients in dtype."""
    model, rng = nv.ViT(MODELS[name]), np.random.default_rng(0)
    weights = model.init()
    weights.flat += rng.normal(0, 0.02, weights.flat.shape).astype(np.float32)
    images, labels = draw(model.config, 2 if model.config.image_size == 224 else 16)
    params, x = weights.astype(dtype), images.astype(dtype)
    with nv.Workers(model) as workers:
        return (
            model,
            weights,
            images,
            labels,
            workers.predict(params, x),
            workers.loss_and_grad(params, x, labels)[1],
        )


def correct(name: str, library: str, precision: str, dtype: str) -> Found:
    """Relative errors of the outputs, of all gradients together and of the worst weight's. Value: whether they will do."""
    model, weights, images, labels, right_logits, right = example(name, dtype)
    if library == "PyTorch":
        import torch
        import torch_side

        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        side = torch_side.Side(
            "bf16" if precision == "bf16" else "eager", model, weights, 1, DEVICE
        )
        logits, grads = side.logits(images), side.gradients(images, labels)
    else:
        scale = SCALE if precision == "float16" else 1.0
        with numpyvit_on_gpu(model, precision, loss=partial(scaled, scale=scale)) as workers:
            params, x, t = weights.to(DEVICE), to(images, DEVICE), to(labels, DEVICE)
            logits = to_host(model.forward(params, x, need_cache=False)[0])
            there = workers.loss_and_grad(params, x, t)[1].to("cpu")
            grads = {n: there[n] / np.float32(scale) for n in there.names()}
    total, outputs = (
        np.linalg.norm(right.flat),
        np.linalg.norm(logits - right_logits) / np.linalg.norm(right_logits),
    )
    wrong = {n: np.linalg.norm(grads[n] - right[n]) for n in right.names()}
    worst = max(w / (np.linalg.norm(right[n]) + 1e-3 * total) for n, w in wrong.items())
    errors = [outputs, np.linalg.norm(list(wrong.values())) / total, worst]
    good = dtype != "float32" or all(e <= WANTED for e in errors)  # NaN is not
    return [
        *(f"{e:.1e}" for e in errors),
        "" if dtype != "float32" else "ok" if good else "**too far**",
    ], good


def scaled(logits: Any, targets: Any, count: int, scale: float) -> tuple[Any, Any]:
    loss, dlogits = nv.cross_entropy(logits, targets, count=count)
    return loss, dlogits * scale


def digits(mode: str, precision: str) -> Found:
    """The largest relative difference of STEPS losses to the CPU's, from the same seed; the last losses of both."""
    model, train = nv.ViT(nv.presets["digits"]), nv.data.digits()[0]
    data = list(itertools.islice(nv.data.batches(train, 128, epochs=STEPS, seed=0), STEPS))
    with nv.Workers(model) as workers:
        step = cpu_step(workers)
        here = [float(step(x, t, i)) for i, (x, t) in enumerate(data)]
    with numpyvit_on_gpu(model, precision) as workers, gpu_step(workers, precision, mode) as step:
        there = [number(step(to(x, DEVICE), to(t, DEVICE), i)) for i, (x, t) in enumerate(data)]
    worst = np.abs(np.divide(there, here) - 1).max()
    return [f"{worst:.1e}", f"{there[-1]:.6f}", f"{here[-1]:.6f}"], bool(worst < 1)


def peak(rounds: int, precision: str) -> Found:
    """TFLOP/s of a large square product, by PyTorch. Value: FLOP/s."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    kind = {"float16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
    a, b, c = torch.randn(3, SQUARE, SQUARE, device=DEVICE).to(kind)
    rate = (
        2
        * SQUARE**3
        / float(np.median(times(partial(torch.matmul, a, b, out=c), gpu("PyTorch")[0], rounds)))
    )
    return [f"{rate / 1e12:.1f}"], rate


def flops(config: nv.ViTConfig, what: str) -> int:
    """Of the plain model's products for an image. Backward makes two for each of forward's, but for the images' gradient."""
    rows = costs(config)
    forward = sum(r[3] for r in rows)
    return (
        3 * forward - next(r[3] for r in rows if r[0].startswith("patches"))
        if what == "step"
        else forward
    )


def speed(
    name: str,
    batch: int,
    side: str,
    rounds: int,
    others: dict[tuple, float],
    peaks: dict[str, float],
    what: str,
    precision: str,
) -> Found:
    """The time of one call. Value: its seconds. others: seconds to compare with, by what and precision."""
    library, _, mode = side.partition(" ")
    before = at_start(library)
    wait, free = gpu(library)
    with (torch_call if library == "PyTorch" else numpyvit_call)(
        MODELS[name], batch, mode, what, precision
    ) as call:
        seconds, taken, y = times(call, wait, rounds), before - free(), call()
        if number((y - y).sum()) != 0:
            raise nv.UserError("what it computes is not finite")
    t, other = float(np.median(seconds)), others.get((what, precision.replace("float16", "bf16")))
    rate = flops(MODELS[name], what) * batch / t
    return [
        f"{t * 1e3:.3f}",
        f"{(max(seconds) - min(seconds)) / 2 / t:.1%}",
        f"{batch / t:,.0f}",
        f"{other / t:.2f}" if other else "",
        f"{rate / 1e12:.2f}",
        f"{rate / peaks[precision]:.1%}" if precision in peaks else "",
        f"{taken / 2**20:,.0f}",
    ], t


def correctness(args: argparse.Namespace) -> bool:
    """Whether the GPU computes in float32 what the CPU does."""
    near: dict[tuple, Any] = {}
    table(
        args.limit,
        f"## Relative errors on the GPU; of numpyvit in float32, within {WANTED:g} is wanted",
        "model, side, precision, against the CPU in, outputs, gradients, worst weight's gradient, ",
        [
            (
                (name, side),
                correct,
                (name, side),
                [("float32", "float32")] * (side == "numpyvit")
                + [(p, "float64") for p in PRECISIONS[side]],
            )
            for name in args.models
            for side in ("numpyvit", "PyTorch")
        ],
        near,
    )
    alike: dict[tuple, Any] = {}
    table(
        args.limit,
        f"### {STEPS} training steps on the digits, from the same seed, against the CPU in float32",
        "numpyvit, precision, largest relative difference of a loss, last loss, on the CPU",
        [
            (
                (),
                digits,
                (),
                [(mode, p) for mode in ("kernels", "graph") for p in PRECISIONS["numpyvit"]],
            )
        ],
        alike,
    )
    return all(alike.values()) and all(good for key, good in near.items() if key[1] == "numpyvit")


def speeds(
    args: argparse.Namespace,
    whats: list[str],
    sides: list[str],
    precisions: list[str],
    peaks: dict[str, float],
) -> None:
    """A table for each model and batch; each side is so many times as fast as the first of them."""

    def lines(name: str, batch: int, values: dict[tuple, Any]) -> Iterator[tuple]:
        for side in sides:
            first = {key[1:]: t for key, t in values.items() if key[0] == sides[0] and t}
            items = [
                (what, p)
                for what in whats
                for p in PRECISIONS[side.split()[0]]
                if p in precisions and (what, side) != ("evaluate", "numpyvit graph")
            ]  # it captures steps only
            yield (side,), speed, (name, batch, side, args.rounds, first, peaks), items

    for name, batch in ((n, b) for n in args.models for b in BATCHES[n]):
        values: dict[tuple, Any] = {}
        table(
            args.limit,
            f"### {name}, batch {batch}",
            f"side, what, precision, ms, ±, images/s, of {sides[0]}, TFLOP/s, of peak, MB",
            lines(name, batch, values),
            values,
        )


def train(folder: str, out: str, options: list[str]) -> int:
    """Returns an exit code."""
    recipe = [
        *itertools.chain.from_iterable((f"--{name}", str(value)) for name, value in TRAIN.items()),
        *options,
    ]
    command = [
        "numpyvit",
        "train",
        "--data",
        "cifar10",
        *recipe,
        "--data-dir",
        folder,
        "--device",
        DEVICE,
        "--out",
        out,
    ]
    print(f"\n## CIFAR-10\n\n```\n$ {' '.join(command)}", flush=True)
    code = subprocess.run([sys.executable, "-m", *command]).returncode
    print("```", flush=True)
    if code == 0:
        last = json.loads((Path(out) / "metrics.jsonl").read_text().splitlines()[-1])
        print(
            f"\n{last['test_accuracy']:.2%} after {last['seconds'] / 60:.1f} minutes; wanted: {TARGET:.0%}"
        )
    return code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument(
        "--only",
        nargs="+",
        default=PARTS,
        choices=PARTS,
        metavar="PART",
        help=f"of {', '.join(PARTS)}",
    )
    parser.add_argument(
        "--models",
        nargs="+",
        type=int,
        default=range(len(MODELS)),
        choices=range(len(MODELS)),
        metavar="N",
        help="by number, from 0: " + ", ".join(MODELS),
    )
    parser.add_argument(
        "--sides",
        nargs="+",
        default=SIDES,
        choices=SIDES,
        metavar="SIDE",
        help=f"of {', '.join(SIDES)}",
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--limit", type=float, default=300, help="seconds that a line may take")
    parser.add_argument(
        "--train", metavar="DIR", help="train on CIFAR-10 in DIR, and do nothing else"
    )
    parser.add_argument("--out", default="runs/gpu-cifar10", help="the folder of that run")
    args, options = parser.parse_known_args()
    if options and not args.train:
        parser.error(f"unknown: {' '.join(options)}")
    args.models = [list(MODELS)[i] for i in args.models]
    cells, header = next(ask(args.limit, about, items=[()]))
    if header is None:
        print(*cells, file=sys.stderr)
        sys.exit(2)
    print(f"`python {' '.join(sys.argv)}`\n\n{header}", flush=True)
    if args.train:
        sys.exit(train(args.train, args.out, options))
    good = "correct" not in args.only or correctness(args)
    rates: dict[tuple, Any] = {}
    if "peak" in args.only:
        table(
            args.limit,
            f"## The GPU's peak: the product of two matrices of {SQUARE}x{SQUARE}, by PyTorch",
            "precision, TFLOP/s",
            [((), peak, (args.rounds,), [("float32",), ("tf32",), ("float16",), ("bf16",)])],
            rates,
        )
    if whats := [what for what in ("step", "evaluate") if what in args.only]:
        print(f"""
## Speed: steps of training (forward, backward, clipping, AdamW), evaluation (forward); images on the device

Medians of {args.rounds} rounds, and half their range. float16 is compared with bf16. TFLOP/s: of the plain model's products;
numpyvit makes fewer, since in the last block the class token alone asks. Of peak: of that measured above. MB: what it takes
of the GPU's memory in all, with what allocators keep for later, the libraries' code and workspaces.""")
        speeds(
            args,
            whats,
            args.sides,
            [*PRECISIONS["numpyvit"], "bf16"],
            {p: rate for (p,), rate in rates.items() if rate},
        )
    if "cpu" in args.only:
        print("\n## The CPU, all cores, against the GPU")
        speeds(args, ["step"], ["CPU", "numpyvit graph"], ["float32"], {})
    sys.exit(not good)


if __name__ == "__main__":
    main()
