"""Softmax cross-entropy, the loss of classification, and accuracy.

The loss compares the probabilities that softmax makes of the scores with the target: 1 for
the right class and 0 for the others. It is -ln of the probability of the right class, so it
is 0 for a certain and right answer and grows without bound for a certain and wrong one. The
backward pass of the whole model begins here.

>>> import numpy as np
>>> logits, labels = np.array([[1.0, 2.0, 3.0]]), np.array([2])
>>> loss, dlogits = cross_entropy(logits, labels)
>>> round(float(loss), 3)  # -ln 0.665, with 0.665 = softmax(logits)[2]
0.408
>>> dlogits.round(3)  # the probabilities minus the target [0, 0, 1]
array([[ 0.09 ,  0.245, -0.335]])
"""

from typing import Any

import numpy as np

from .backend.arrays import Array, as_array, check_array, get_xp, on_host
from .backend.ops import on_gpu, row_dot, row_sum
from .errors import UserError, check_int, check_number, shown

Cache = tuple[Array, Array, int]


@on_gpu
def cross_entropy_forward(
    logits: Array, t: Array, *, smoothing: float = 0.0, count: int | None = None
) -> tuple[Any, Cache]:
    """logits (B, K), targets t (B, K), probabilities  ->  loss (a scalar), cache.

    With x for the logits, b for the image, and j and k for classes,

    loss = (1/count) Σ_b ((Σ_k t_bk) ln Σ_j exp(x_bj) - Σ_k t_bk x_bk)

    This is -Σ t ln softmax(x), averaged over the batch. Σ_k t_bk is 1; it stays in the
    formula, so that backward is exact for any t. The logarithm is taken of the sum,
    never of a probability that may have become 0, and the maximum of the row is subtracted
    first, so logits of ±10,000 are no problem. Where t_bk is 0, x_bk is left out of the last
    sum, so a logit of -inf does no harm there (0 times infinity would be NaN).

    smoothing: this fraction of each target is spread evenly over the K classes (Szegedy et
    al., 2016, section 7). count: what the sum is divided by, by default B. If a batch is
    computed in pieces (micro-batches), it is the size of the whole batch, so that the
    gradients of the pieces add up to those of the whole batch.
    """
    B, K = logits.shape
    if smoothing:
        t = t * (1 - smoothing) + smoothing / K
    count = max(B, 1) if count is None else count
    centred = logits - logits.max(-1, keepdims=True)
    e = get_xp(logits).exp(centred)
    total = row_sum(e)  # (B, 1)
    of_targets = get_xp(logits).where(t == 0, 0, centred)
    losses = get_xp(logits).log(total) * row_sum(t) - row_dot(t, of_targets)  # (B, 1)
    return mean_loss(losses, count), (e / total, t, count)


def mean_loss(losses: Array, count: int) -> Any:
    """Return losses.sum() / count, also if only the sum overflows."""
    loss = losses.sum() / count
    if on_host(losses) and np.isinf(loss):
        loss = (losses / count).sum()
    return loss


@on_gpu
def cross_entropy_backward(dloss: Any, cache: Cache) -> Array:
    """dloss (a number, 1 at the beginning of the backward pass)  ->  dlogits (B, K).

    ∂/∂x_k ln Σ_j exp(x_j) = exp(x_k) / Σ_j exp(x_j) = softmax(x)_k, so

        ∂loss/∂x_bk = (softmax(x_b)_k Σ_j t_bj - t_bk) / count

    and Σ_j t_bj = 1. The gradient of a score is the model's probability minus the target,
    divided by the number of images.
    Training moves the score against it: up for the right class, down for the others.
    """
    probabilities, t, count = cache
    return (probabilities * row_sum(t) - t) * (dloss / count)


def cross_entropy(
    logits: Array, targets: Array, *, smoothing: float = 0.0, count: int | None = None
) -> tuple[Any, Array]:
    """Return the loss and dlogits at once, as training needs them.

    targets: labels (B,), integers, or probabilities (B, K). smoothing, count: as for
    cross_entropy_forward, smoothing from 0 to below 1 and count from 1. Raises UserError for
    labels outside 0..K-1, for probabilities that are negative or not finite, and for shapes
    that do not fit.
    """
    check_number("smoothing", smoothing, least=0, below=1)
    if count is not None:
        check_int("count", count, least=1)
    t = as_probabilities(logits, targets)
    with np.errstate(over="ignore"):  # of logits near the largest float: the loss is infinite
        loss, cache = cross_entropy_forward(logits, t, smoothing=smoothing, count=count)
        return loss, cross_entropy_backward(1.0, cache)


def as_probabilities(logits: Array, targets: Array) -> Array:
    """Return targets (B,), integers, or (B, K), probabilities, as a new array (B, K).

    It has the dtype of the logits. Raises UserError for targets that do not fit them.
    """
    check_array("logits", logits, "floats", ("B", "K"))
    xp = get_xp(logits)
    B, K = logits.shape
    targets = as_array("targets", targets)
    if on_host(logits) != on_host(targets):
        raise UserError(
            "logits and targets are on different devices: data.to(device) moves images and labels"
        )
    if targets.shape == (B,) and targets.dtype.kind in "iu":
        check_labels(targets, K)
        t = xp.zeros(logits.shape, logits.dtype)
        t[xp.arange(B), targets] = 1
        return t
    if targets.shape == logits.shape and targets.dtype.kind == "f":
        if targets.size and on_host(targets) and not 0 <= targets.min() <= targets.max() < np.inf:
            raise UserError(
                f"targets go from {targets.min()} to {targets.max()}: they must be probabilities"
            )
        return targets.astype(logits.dtype)
    raise UserError(
        f"targets are {targets.dtype} of shape {tuple(targets.shape)}: "
        f"use {B} integers, or floats of shape ({B}, {K})"
    )


def check_labels(labels: Array, K: int) -> None:
    """Raise UserError unless labels (n,) on the host are from 0 to K - 1."""
    if len(labels) and on_host(labels) and not (labels.min() >= 0 and labels.max() < K):
        raise UserError(
            f"labels go from {labels.min()} to {labels.max()}, but the model has {K} "
            f"classes: use labels from 0 to {K - 1}"
        )


def accuracy(logits: Array, labels: Array) -> float:
    """Return the fraction of rows of logits (n, K) whose largest entry is at the label.

    labels (n,), integers. The result is 0 if there are no rows, and a row with NaN is never
    right.
    Raises UserError if the shapes do not fit.
    """
    check_array("logits", logits, "numbers", ("n", "K"))
    labels = as_array("labels", labels)
    if labels.shape != logits.shape[:1] or (len(labels) and labels.dtype.kind not in "iu"):
        raise UserError(
            f"logits have shape {logits.shape} and labels are {shown(labels)}: labels must be "
            f"{len(logits)} integers"
        )
    check_labels(labels, logits.shape[1])
    right = (logits.argmax(-1) == labels) & (logits == logits).all(-1)
    return float(right.mean()) if len(labels) else 0.0
