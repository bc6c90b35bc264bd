"""The engine protocol, and the one place where an engine is chosen."""

from collections.abc import Callable
from typing import Any, Protocol

from ..backend.arrays import Array
from ..data import Dataset
from ..errors import UserError, check_choice
from ..optim.base import Optimizer
from ..params import Buffer
from ..vit import ViT
from .loss_scale import LossScale
from .threads import ThreadEngine
from .workers import Workers


class Engine(Protocol):
    """Trains one set of weights with one optimizer, and makes predictions with them.

    An engine is given the weights and the optimizer when it is made. It may hold
    threads, memory and process-wide settings until `close` is called, so use it inside
    `with contextlib.closing(engine):`.
    """

    def step(
        self, images: Array, labels: Array, index: int, lr: float, patches: int | None = None
    ) -> tuple[Any, Any]:
        """Train the weights on one batch: images (B, H, W, C), labels (B,) or (B, K).

        index is the number of the step, which seeds dropout; lr is the learning rate;
        patches is the number of patches of each image that take part, or None for all.
        Returns the mean loss of the batch and the norm of its gradients before
        clipping: two floats, or on a GPU two arrays without dimensions, for which
        nothing has waited yet. On the CPU the weights are not updated unless both are
        finite.
        """
        ...

    def predict(self, data: Dataset | Array) -> Array:
        """Return logits (n, K) in host memory, computed with the averaged weights.

        data is a Dataset, or normalised images (n, H, W, C).
        """
        ...

    def close(self) -> None:
        """Release the threads or the GPU memory, and undo process-wide settings."""
        ...


def make_engine(
    model: ViT,
    params: Buffer,
    optimizer: Optimizer,
    loss: Callable[..., tuple[Any, Array]],
    *,
    clip: float | None = None,
    seed: int = 0,
    workers: int | None = None,
    micro_batch: int | None = None,
    device: str = "cpu",
    precision: str = "float32",
    loss_scale: LossScale | None = None,
) -> Engine:
    """Return the engine for a device: "cpu", or a GPU, "cuda" or "cuda:N".

    clip is the largest norm of the gradients. workers is the number of threads (CPU
    only); precision and loss_scale are those of the matrix products (GPU only). The
    other arguments are those of Workers.
    """
    pool = Workers(model, loss, seed, workers, micro_batch)
    if device == "cpu":
        return ThreadEngine(pool, params, optimizer, clip)
    from .cuda_graph import GraphEngine  # not needed, and not read, on the CPU

    return GraphEngine(
        pool,
        params,
        optimizer,
        clip,
        device=device,
        precision=precision,
        loss_scale=loss_scale,
    )


def check_precision(precision: str, device: str) -> None:
    """Raise UserError unless the device offers this precision of matrix products."""
    if device == "cpu" and precision == "float32":
        return
    from ..backend.kernels.gemm import PRECISIONS  # not needed, and not read, on the CPU

    check_choice("precision", precision, PRECISIONS)
    if device == "cpu":
        raise UserError(
            f"precision {precision} is for GPUs: choose the device cuda, or leave it at float32"
        )
