"""What the pictures show, as arrays: distances, components, similarities, mistakes."""

from typing import Any

import numpy as np

from ..backend.arrays import Array
from ..config import ViTConfig
from ..errors import UserError
from ..layers.positions import sinusoidal
from ..params import Buffer
from ..vit import ViT
from ..watch import Call, watch


def attention_distance(weights: Array, config: ViTConfig) -> Array:
    """weights (B, h, N, N) of one block  ->  (h,): the mean attention distance in pixels.

    The distance between the centres of two patches, averaged with the weights with which
    one attends to the other, over all patches and images (Dosovitskiy et al., 2021, figures
    7 and 11). A class token has no place. Its row and its column are left out, and what
    remains of each row is divided by its sum.
    """
    places = np.indices(config.grid).reshape(2, -1).T * config.patch  # (n, 2), in pixels
    distance = np.linalg.norm(places[:, None] - places, axis=-1)  # (n, n)
    a = weights[..., config.prefix :, config.prefix :].astype(np.float64)
    a /= np.maximum(a.sum(-1, keepdims=True), np.finfo(np.float64).tiny)
    return (a * distance).sum(-1).mean((0, 2))


def token_features(model: ViT, params: Buffer, images: Array) -> dict[str, Array]:
    """Return the tokens that enter the first block, and those that leave each block.

    images (B, H, W, C), normalised  ->  {"embedding": (B, N, D), "blocks.0": ..., ...}. The
    model is run without shortcuts.
    """
    plain = ViT(model.config, shortcuts=False)
    names = {f"blocks.{i}" for i in range(model.config.depth)}
    found: dict[str, Array] = {}

    def hook(call: Call) -> Any:
        y, cache = call()
        if call.name in names:
            found.setdefault("embedding", call.args[1])
            found[call.name] = y
        return y, cache

    with watch(plain, hook):
        plain.forward(Buffer(plain.params, params.flat), np.asarray(images), need_cache=False)
    return found


def principal_components(features: Array, k: int = 3) -> tuple[Array, Array]:
    """features (n, D)  ->  (n, k) coordinates, (k,) fractions of the variance.

    The columns are the coordinates of the centred features along the k directions in which
    they vary most. A direction has no sign of its own; here its largest entry is positive.
    Components that do not exist, since n or D is too small, are zero.
    """
    x = np.asarray(features, np.float64)
    x = x - x.mean(0)
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    u, s, vt = u[:, :k], s[:k], vt[:k]
    largest = np.abs(vt).argmax(1)[:, None]
    s_signed = s * np.sign(np.take_along_axis(vt, largest, 1))[:, 0]
    missing = k - len(s)
    coordinates = np.pad(u * s_signed, ((0, 0), (0, missing)))
    variance = (x**2).sum()
    fractions = np.pad(s**2 / variance if variance else s * 0, (0, missing))
    return coordinates, fractions


def added_positions(model: ViT, params: Buffer) -> Array:
    """Return the positions (N, D) that the model adds to its tokens.

    Raises UserError if the model adds none.
    """
    c = model.config
    if c.positions == "learned":
        return params["positions.w"]
    if c.positions == "sinusoidal":
        return sinusoidal(c.tokens, c.width)
    what = "has no positions" if c.positions == "none" else "rotates queries and keys instead"
    raise UserError(
        f"this model adds no positions to its tokens (it {what}): choose a model with learned or "
        "sinusoidal positions, such as that of the preset digits"
    )


def position_similarity(model: ViT, params: Buffer) -> Array:
    """Return the cosines between the positions of all pairs of patches, (n, n).

    The position of a class token is left out. Raises UserError if the model adds no
    positions.
    """
    x = np.asarray(added_positions(model, params), np.float64)[model.config.prefix :]
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    x = x / np.where(norms > 0, norms, 1)
    return x @ x.T


def embedding_filters(model: ViT, params: Buffer) -> Array:
    """Return the patch embedding's weights as images, (D, S1, S2, C).

    Feature d of a token is the sum of a patch's pixels times filter d, plus a bias. S1, S2
    are the sides of a patch, or of the window that it sees if patches overlap.
    """
    c = model.config
    s1, s2 = (side + 2 * c.patch_overlap for side in c.patch)
    return params["embed.w"].T.reshape(c.width, s1, s2, c.channels)


def confusion_matrix(labels: Array, predicted: Array, classes: int) -> Array:
    """labels, predicted (n,)  ->  (K, K): how many images of class i were taken for class j."""
    pairs = np.asarray(labels, np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def worst_mistakes(probabilities: Array, labels: Array) -> Array:
    """probabilities (n, K), labels (n,)  ->  indices of the wrong predictions, worst first.

    The worst are those in which the right class was given the lowest probability.
    """
    of_truth = probabilities[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(probabilities.argmax(-1) != labels)
    return wrong[np.argsort(of_truth[wrong], kind="stable")]
