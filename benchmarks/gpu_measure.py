"""Compute the rows of the tables of gpu.py, each by one function here in a separate process.

A function returns the cells of its row and a value that other parts of gpu.py need.
"""

import gc
import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from gpu_calls import DEVICE, MODELS, call_of, cpu_step, gpu_step, numpyvit_on_gpu
from processes import Found
from sides import processor, random_batch

import numpyvit as nv
from numpyvit.backend.device import module_of, to, to_float, to_host
from numpyvit.engine.process import cores
from numpyvit.look.costs import costs

MOST_ERROR = 1e-5  # of the GPU in float32, relative to the CPU
ROUND = 0.1  # seconds
STEPS = 50  # of training, whose losses are compared
SQUARE = 8192  # side of the matrices whose product tells the GPU's peak
FLOAT16_SCALE = 2.0**12  # of the gradients where they are compared: small ones would vanish


class Gpu(NamedTuple):
    """wait: wait for everything that the GPU was asked for. free: return its free bytes."""

    wait: Callable[[], object]
    free: Callable[[], int]


def gpu(library: str) -> Gpu:
    """Return the GPU as a library sees it, after releasing the memory that nothing uses."""
    gc.collect()
    if library == "PyTorch":
        import torch

        torch.cuda.empty_cache()
        return Gpu(torch.cuda.synchronize, lambda: torch.cuda.mem_get_info()[0])
    xp = module_of(DEVICE)
    xp.get_default_memory_pool().free_all_blocks()
    return Gpu(xp.cuda.Device().synchronize, lambda: xp.cuda.Device().mem_info[0])


@cache
def free_at_start(library: str) -> int:
    """Return the GPU's free bytes before this process computed anything."""
    return gpu(library).free()


def times(call: Callable[[], Any], wait: Callable[[], object], rounds: int) -> list[float]:
    """Return the seconds of one call, measured in each of `rounds` rounds of ROUND seconds."""

    def mean_time(calls: int) -> float:
        wait()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        wait()
        return (time.perf_counter() - start) / calls

    for _ in range(3):  # compile, capture, allocate memory
        call()
    calls = max(1, round(ROUND / mean_time(1)))
    found = [mean_time(calls) for _ in range(rounds + 1)]
    return found[1:]  # the GPU's clocks rise during the first


def about() -> Found:
    """Return a description of the machine as the value.

    Raises UserError if there is no GPU or no CuPy.
    """
    xp = module_of(DEVICE)
    runtime = xp.cuda.runtime
    query = "nvidia-smi --id=0 --query-gpu=driver_version --format=csv,noheader"
    status, driver = subprocess.getstatusoutput(query)
    major, minor = divmod(runtime.runtimeGetVersion() // 10, 100)
    return [], ", ".join(
        [
            runtime.getDeviceProperties(0)["name"].decode(),
            f"driver {'unknown' if status else driver}",
            f"CUDA {major}.{minor}",
            f"CuPy {xp.__version__}",
            f"NumPy {np.__version__}",
            f"PyTorch {version('torch')}" if find_spec("torch") else "no PyTorch",
            f"numpyvit {nv.__version__}",
            f"Python {sys.version.split()[0]}; {processor()}",
            f"{len(cores())} cores",
        ]
    )


class Example(NamedTuple):
    """A model with weights, images and labels, and what the CPU computes from them."""

    model: nv.ViT
    weights: nv.Buffer
    images: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    grads: nv.Buffer


@cache
def example(name: str, dtype: str) -> Example:
    """Return an example of a model, computed in `dtype`; no gradient of it is zero."""
    model = nv.ViT(MODELS[name])
    weights = model.init()
    noise = np.random.default_rng(0).normal(0, 0.02, weights.flat.shape)
    weights.flat += noise.astype(np.float32)
    batch = 2 if model.config.image_size == 224 else 16
    images, labels = random_batch(model.config, batch)
    params = weights.astype(dtype)
    x = images.astype(dtype)
    with nv.Workers(model) as workers:
        logits = workers.predict(params, x)
        _, grads = workers.loss_and_grad(params, x, labels)
    return Example(model, weights, images, labels, logits, grads)


def correct(name: str, library: str, precision: str, dtype: str) -> Found:
    """Compare a library on the GPU with numpyvit on the CPU in `dtype`.

    The cells are the relative errors of the outputs, of all gradients together, and of the
    worst weight's gradient. The value is whether they are small enough.
    """
    wanted = example(name, dtype)
    compute = torch_results if library == "PyTorch" else numpyvit_results
    logits, grads = compute(wanted, precision)
    names = list(wanted.grads)
    total = np.linalg.norm(wanted.grads.flat)
    wrong = {n: np.linalg.norm(grads[n] - wanted.grads[n]) for n in names}
    # A thousandth of all gradients is added, because that of the keys' bias is zero.
    relative = [wrong[n] / (np.linalg.norm(wanted.grads[n]) + 1e-3 * total) for n in names]
    errors = [
        np.linalg.norm(logits - wanted.logits) / np.linalg.norm(wanted.logits),
        np.linalg.norm(list(wrong.values())) / total,
        max(relative),
    ]
    cells = [f"{error:.1e}" for error in errors]
    if dtype != "float32":
        return [*cells, ""], True
    good = all(error <= MOST_ERROR for error in errors)  # NaN is not
    return [*cells, "ok" if good else "**too large**"], good


def numpyvit_results(e: Example, precision: str) -> tuple[Any, Any]:
    """Return the logits and the gradients of an example, computed by numpyvit on the GPU."""
    scale = FLOAT16_SCALE if precision == "float16" else 1.0
    loss = partial(scaled_cross_entropy, scale=scale)
    with numpyvit_on_gpu(e.model, precision, loss=loss) as workers:
        params = e.weights.to(DEVICE)
        x = to(e.images, DEVICE)
        logits, _ = e.model.forward(params, x, need_cache=False)
        _, grads = workers.loss_and_grad(params, x, to(e.labels, DEVICE))
        on_host = grads.to("cpu")
        return to_host(logits), {name: g / np.float32(scale) for name, g in on_host.items()}


def torch_results(e: Example, precision: str) -> tuple[Any, Any]:
    """Return the logits and the gradients of an example, computed by PyTorch on the GPU."""
    import torch
    import torch_side

    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    mode = "bf16" if precision == "bf16" else "eager"
    side = torch_side.Side(mode, e.model, e.weights, 1, DEVICE)
    return side.logits(e.images), side.gradients(e.images, e.labels)


def scaled_cross_entropy(
    logits: Any, targets: Any, count: int, scale: float = 1.0
) -> tuple[Any, Any]:
    """Return the cross-entropy, and its gradient multiplied by `scale`."""
    loss, dlogits = nv.cross_entropy(logits, targets, count=count)
    return loss, dlogits * scale


def digits(mode: str, precision: str) -> Found:
    """Train on the digits for STEPS steps, on the GPU and on the CPU, from the same seed.

    The cells are the largest relative difference of a loss, and the last losses of both.
    """
    model = nv.ViT(nv.presets["digits"])
    train, _ = nv.data.digits()
    batches = nv.data.batches(train, 128, epochs=STEPS, seed=0)
    data = list(itertools.islice(batches, STEPS))
    with nv.Workers(model) as workers:
        step = cpu_step(workers)
        cpu = [float(step(x, t, i)) for i, (x, t) in enumerate(data)]
    with numpyvit_on_gpu(model, precision) as workers, gpu_step(workers, precision, mode) as step:
        gpu = [to_float(step(to(x, DEVICE), to(t, DEVICE), i)) for i, (x, t) in enumerate(data)]
    worst = np.abs(np.divide(gpu, cpu) - 1).max()
    return [f"{worst:.1e}", f"{gpu[-1]:.6f}", f"{cpu[-1]:.6f}"], bool(worst < 1)


def peak(rounds: int, precision: str) -> Found:
    """Measure the FLOP/s of a large product in PyTorch; the cell is in TFLOP/s."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    dtype = {"float16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
    a, b, c = torch.randn(3, SQUARE, SQUARE, device=DEVICE).to(dtype)
    seconds = times(partial(torch.matmul, a, b, out=c), gpu("PyTorch").wait, rounds)
    rate = 2 * SQUARE**3 / float(np.median(seconds))
    return [f"{rate / 1e12:.1f}"], rate


def flops(config: nv.ViTConfig, task: str) -> int:
    """Return the FLOPs of the model's matrix products for one image.

    Backward has two products for each of forward's, except for the images' gradient.
    """
    layers = costs(config)
    forward = sum(layer.flops for layer in layers)
    if task != "step":
        return forward
    return 3 * forward - next(layer.flops for layer in layers if layer.name == "embed")


def speed(
    name: str,
    batch: int,
    side: str,
    rounds: int,
    others: dict[tuple, float],
    peaks: dict[str, float],
    task: str,
    precision: str,
) -> Found:
    """Time a training step or an evaluation; the value is its seconds.

    others: the seconds of the side to compare with, by (task, precision); float16 is compared
    with bf16. peaks: the FLOP/s that the GPU reaches, by precision.
    """
    library = side.partition(" ")[0]
    before = free_at_start(library)
    wait, free = gpu(library)
    with call_of(name, batch, side, task, precision) as call:
        seconds = times(call, wait, rounds)
        taken = before - free()
        y = call()
        if to_float((y - y).sum()) != 0:
            raise nv.UserError("the result is not finite")
    median = float(np.median(seconds))
    other = others.get((task, precision.replace("float16", "bf16")))
    rate = flops(MODELS[name], task) * batch / median
    return [
        f"{median * 1e3:.3f}",
        f"{(max(seconds) - min(seconds)) / 2 / median:.1%}",
        f"{batch / median:,.0f}",
        f"{other / median:.2f}" if other else "",
        f"{rate / 1e12:.2f}",
        f"{rate / peaks[precision]:.1%}" if precision in peaks else "",
        f"{taken / 2**20:,.0f}",
    ], median
