"""Softmax cross-entropy from logits, and accuracy."""

from typing import Any

from .backend.arrays import Array, fused, get_xp, on_host, row_dot, row_sum
from .errors import UserError

Cache = tuple[Array, Array, int]


def as_probabilities(logits: Array, targets: Array) -> Array:
    """targets (B,) whole numbers or (B, K) probabilities  ->  (B, K), a new array of logits' dtype. Raises UserError."""
    xp, (B, K) = get_xp(logits), logits.shape
    if on_host(logits) != on_host(targets):
        raise UserError(
            "logits and targets are on different devices: data.to(device) moves images and labels"
        )
    if targets.ndim == 1 and len(targets) == B and targets.dtype.kind in "iu":
        if B and on_host(targets) and not (targets.min() >= 0 and targets.max() < K):
            raise UserError(
                f"labels go from {targets.min()} to {targets.max()}, the model has {K} classes: 0 to {K - 1}"
            )
        t = xp.zeros(logits.shape, logits.dtype)
        t[xp.arange(B), targets] = 1
        return t
    if targets.shape == logits.shape and targets.dtype.kind == "f":
        return targets.astype(logits.dtype)
    raise UserError(
        f"targets are {targets.dtype} of shape {tuple(targets.shape)}: "
        f"wanted {B} whole numbers, or floats of shape ({B}, {K})"
    )


def cross_entropy_forward(
    logits: Array, targets: Array, *, smoothing: float = 0.0, count: int | None = None
) -> tuple[Any, Cache]:
    """logits (B, K), targets (B,) whole numbers or (B, K) probabilities  ->  loss (a scalar of logits' dtype), cache.

    loss = sum_b sum_k t_bk (log sum_j exp(x_bj) - x_bk) / count: the mean over the batch, or, where the batch is a part
    of a larger one, its share in the mean over `count` images. The logarithm is taken of the sum and never of a
    probability that may have become 0, and the row's maximum is taken off first, so +-1e4 is as good as any value.

    smoothing: this much of each target is spread evenly over the K classes (Szegedy et al., 2016, section 7).
    Raises UserError for labels outside 0..K-1 and for shapes that do not fit.
    """
    xp, (B, K), t = get_xp(logits), logits.shape, as_probabilities(logits, targets)
    if smoothing:
        t = t * (1 - smoothing) + smoothing / K
    count = max(B, 1) if count is None else count
    centred = logits - logits.max(-1, keepdims=True)
    e = xp.exp(centred)
    total = row_sum(e)  # (B, 1)
    loss = (xp.log(total) * row_sum(t) - row_dot(t, centred)).sum() / count
    return loss, (e / total, t, count)


def cross_entropy_backward(dloss: Any, cache: Cache) -> Array:
    """dloss (a scalar)  ->  dlogits (B, K).

    d/dx_k of log sum_j exp(x_j) is softmax(x)_k, so dlogits = (softmax(x) sum(t) - t) / count. (sum(t) is 1 for
    probabilities.) What each row is pushed by is simply what it said minus what was right.
    """
    probabilities, t, count = cache
    return (probabilities * row_sum(t) - t) * (dloss / count)


def cross_entropy(
    logits: Array, targets: Array, *, smoothing: float = 0.0, count: int | None = None
) -> tuple[Any, Array]:
    """Both at once, as the trainer wants them: loss, dlogits. Arguments as cross_entropy_forward."""
    loss, cache = fused(cross_entropy_forward, logits)(
        logits, targets, smoothing=smoothing, count=count
    )
    return loss, fused(cross_entropy_backward, logits)(1.0, cache)


def accuracy(logits: Array, labels: Array) -> float:
    """Share of the rows of logits (n, K) whose largest entry is at labels (n,); 0 for no rows; NaN is never right.

    Raises UserError where the shapes do not fit."""
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise UserError(
            f"logits have shape {logits.shape} and labels {labels.shape}: wanted (n, K) and (n,)"
        )
    right = (logits.argmax(-1) == labels) & (logits == logits).all(-1)
    return float(right.mean()) if len(labels) else 0.0
