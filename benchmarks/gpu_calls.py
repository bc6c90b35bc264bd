"""Training steps and evaluations, on a GPU and on the CPU, as functions to time."""

import itertools
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any

import numpy as np
from sides import MODELS as CPU_MODELS
from sides import random_batch

import numpyvit as nv
from numpyvit.backend.device import module_of, stream, to
from numpyvit.backend.kernels import gemm
from numpyvit.engine.cuda_graph import GraphEngine
from numpyvit.engine.loss_scale import LossScale

DEVICE = "cuda"
MODELS = {**CPU_MODELS, "ViT-B/16 at 224": nv.presets["ViT-B/16"]}
LR = 1e-3

Step = Callable[[Any, Any, int], Any]  # (images, labels, index) -> loss


@contextmanager
def numpyvit_on_gpu(model: nv.ViT, precision: str, **options: Any) -> Iterator[nv.Workers]:
    """Yield Workers whose products have this precision, while a stream of their own is used."""
    with stream(DEVICE), gemm.precision(precision), nv.Workers(model, **options) as workers:
        yield workers


@contextmanager
def gpu_step(workers: nv.Workers, precision: str, mode: str) -> Iterator[Step]:
    """Yield a training step on the GPU; mode: "kernels", or "graph" for a captured step."""
    # The engine would only warn, and run kernel by kernel.
    warnings.filterwarnings("error", ".*cannot be captured")
    params = workers.model.init().to(DEVICE)
    engine = GraphEngine(
        workers,
        params,
        nv.AdamW(params, weight_decay=0.05),
        clip=1.0,
        device=DEVICE,
        precision=precision,
        loss_scale=LossScale(module_of(DEVICE)) if precision == "float16" else None,
        capture=mode == "graph",
    )
    with closing(engine):
        yield lambda images, labels, index: engine.step(images, labels, index, LR)[0]


def cpu_step(workers: nv.Workers) -> Step:
    """Return a training step on the CPU."""
    params = workers.model.init()
    optimizer = nv.AdamW(params, weight_decay=0.05)

    def step(images: np.ndarray, labels: np.ndarray, index: int) -> np.ndarray:
        loss, grads = workers.loss_and_grad(params, images, labels, step=index)
        optimizer.step(params, grads, LR, clip=1.0, map=workers.map)
        return np.asarray(loss)

    return step


@contextmanager
def cpu_call(config: nv.ViTConfig, batch: int) -> Iterator[Callable[[], Any]]:
    """Yield a function that takes a training step on the CPU."""
    index = itertools.count()
    images, labels = random_batch(config, batch)
    with nv.Workers(nv.ViT(config)) as workers:
        step = cpu_step(workers)
        yield lambda: step(images, labels, next(index))


@contextmanager
def numpyvit_call(
    config: nv.ViTConfig, batch: int, mode: str, task: str, precision: str
) -> Iterator[Callable[[], Any]]:
    """Yield a function that takes a training step ("step") or evaluates a batch, on the GPU."""
    model = nv.ViT(config)
    index = itertools.count()
    with numpyvit_on_gpu(model, precision) as workers:
        images, labels = (to(x, DEVICE) for x in random_batch(config, batch))
        if task == "step":
            with gpu_step(workers, precision, mode) as step:
                yield lambda: step(images, labels, next(index))
        else:
            params = model.init().to(DEVICE)
            yield lambda: model.forward(params, images, need_cache=False)[0]


@contextmanager
def torch_call(
    config: nv.ViTConfig, batch: int, mode: str, task: str, precision: str
) -> Iterator[Callable[[], Any]]:
    """Yield a function that does the same in PyTorch."""
    import torch_side

    model = nv.ViT(config)
    images, labels = random_batch(config, batch)
    train = task == "step"
    yield torch_side.gpu_call(mode, model, model.init(), images, labels, DEVICE, precision, train)


def call_of(
    name: str, batch: int, side: str, task: str, precision: str
) -> AbstractContextManager[Callable[[], Any]]:
    """Return a context manager that yields the function to be timed."""
    library, _, mode = side.partition(" ")
    config = MODELS[name]
    if library == "CPU":
        return cpu_call(config, batch)
    if library == "PyTorch":
        return torch_call(config, batch, mode, task, precision)
    return numpyvit_call(config, batch, mode, task, precision)
