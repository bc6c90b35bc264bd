"""The attention weights of a model: which tokens each token collects information from.

`attention_weights` and `attention_gradients` run the model. `rollout` and
`gradient_rollout` combine the weights of all blocks into one matrix, and `patch_map`
reads from such a matrix what each patch gives to the classification.

Such maps are hints and not explanations. They leave out the MLPs, the values and the
layer norms, and a large weight on a token whose value is small passes little on.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend.arrays import Array
from ..config import ViTConfig
from ..errors import UserError
from ..layers.attention import Attention, attention_forward, split_heads
from ..params import Buffer
from ..vit import ViT
from ..watch import Call, watch


def attention_weights(model: ViT, params: Buffer, images: Array) -> dict[str, Array]:
    """Return the attention weights of each block, {"blocks.0": (B, h, N, N), ...}.

    images (B, H, W, C), normalised. Row i of a matrix has the weights with which token i
    averages the values of all tokens; it sums to 1. The model is run without shortcuts.
    """
    plain = ViT(model.config, shortcuts=False)
    found: dict[str, Array] = {}

    def hook(call: Call) -> Any:
        result = call()
        if isinstance(call.layer, Attention):
            found[call.name.removesuffix(".attention")] = weights_and_values(result)[0]
        return result

    with watch(plain, hook):
        plain.forward(Buffer(plain.params, params.flat), np.asarray(images))
    return found


def attention_gradients(
    model: ViT, params: Buffer, images: Array, classes: Array
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return attention weights, and how the logits of given classes depend on them.

    images (B, H, W, C), normalised; classes (B,), the index of one class for each image.
    Both results are dicts such as {"blocks.0": (B, h, N, N), ...}: the weights A, and
    ∂logit/∂A, where the logit is that of the image's class and where all that follows A
    in the model takes part. The model is run without shortcuts, forward and backward.

    Raises UserError for images that do not fit the model or classes that it does not have.
    """
    plain = ViT(model.config, shortcuts=False)
    weights: dict[str, Array] = {}
    values: dict[str, Array] = {}
    gradients: dict[str, Array] = {}

    def hook(call: Call) -> Any:
        result = call()
        block, _, part = call.name.partition(".attention")
        if isinstance(call.layer, Attention) and call.method == "forward":
            weights[block], values[block] = weights_and_values(result)
        elif part == ".proj" and call.method == "backward":
            do = split_heads(result, 1, model.config.heads)[0]  # (B, h, N, E)
            gradients[block] = do @ values[block].swapaxes(-1, -2)  # o = A v
        return result

    buffer = Buffer(plain.params, params.flat)
    with watch(plain, hook):
        logits, cache = plain.forward(buffer, np.asarray(images))
        plain.backward(one_hot(classes, logits), cache, buffer.zeros_like())
    return weights, {block: gradients[block] for block in weights}


def weights_and_values(result: Any) -> tuple[Array, Array]:
    """Return A (B, h, N, N) and v (B, h, N, E) from the result of Attention.forward.

    The fast twin stores A in another layout, and a GPU's kernel not at all, so that A is
    computed again, by the textbook form.
    """
    _, cache = result
    *_, c_attention, _ = cache
    q, k, v = c_attention[:3]
    _, (*_, weights, _, _) = inspect.unwrap(attention_forward)(q, k, v)
    return weights, v


def one_hot(classes: Array, logits: Array) -> Array:
    """classes (B,), logits (B, K)  ->  (B, K): 1 for the class of each image, otherwise 0."""
    B, K = logits.shape
    classes = np.asarray(classes)
    if classes.shape != (B,) or classes.dtype.kind not in "iu":
        raise UserError(
            f"classes are {classes.dtype} of shape {classes.shape}: give one integer for each of "
            f"the {B} images"
        )
    if classes.min(initial=0) < 0 or classes.max(initial=0) >= K:
        raise UserError(
            f"classes go from {classes.min()} to {classes.max()}: the model has 0 to {K - 1}"
        )
    dlogits = np.zeros_like(logits)
    dlogits[np.arange(B), classes] = 1
    return dlogits


def rollout(weights: Sequence[Array]) -> Array:
    """weights (B, h, N, N) of each block  ->  (B, N, N): how tokens mix over all blocks.

    Attention rollout (Abnar and Zuidema, 2020, "Quantifying Attention Flow in
    Transformers", section 3). The mean over the heads and the identity, which stands for
    the residual stream, have equal parts in a block: (A + I) / 2. The matrices are
    multiplied from the first block to the last, so that row i tells from which patches of
    the image the final token i comes. Rows sum to 1.

    Rows are divided by their sums, which need keepdims: a matrix (N, N) divided by sums of
    shape (N,) has its columns divided, with no error. A script that is often copied does
    this; it matters once small weights are set to zero, so that rows no longer sum to 1.
    """
    identity = np.eye(weights[0].shape[-1], dtype=weights[0].dtype)
    total = identity
    for a in weights:
        step = (a.mean(-3) + identity) / 2
        step = step / step.sum(-1, keepdims=True)
        total = step @ total
    return total


def gradient_rollout(weights: Sequence[Array], gradients: Sequence[Array]) -> Array:
    """weights, gradients (B, h, N, N) of each block  ->  (B, N, N): relevance for a class.

    Rule 6 of Chefer et al. (2021), "Generic Attention-model Explainability for
    Interpreting Bi-Modal and Encoder-Decoder Transformers": R begins as the identity, and
    each block from the first to the last adds max(A ∂logit/∂A, 0) R, averaged over the
    heads. The result is R - I, what attention has added. (The identity would give each
    patch the same where the mean of all tokens is read.) Rows do not sum to 1.
    """
    identity = np.eye(weights[0].shape[-1], dtype=weights[0].dtype)
    total = identity
    for a, da in zip(weights, gradients, strict=True):
        step = np.maximum(a * da, 0).mean(-3)
        total = total + step @ total
    return total - identity


def patch_map(matrix: Array, config: ViTConfig) -> Array:
    """matrix (..., N, N)  ->  (..., rows, columns): what each patch gives to the output.

    With a class token that is the token's row, without the token's own column. With mean
    pooling, where the head reads all tokens alike, it is the average of all rows.
    """
    row = matrix[..., 0, :] if config.pooling == "cls" else matrix.mean(-2)  # (..., N)
    return row[..., config.prefix :].reshape(*matrix.shape[:-2], *config.grid)
