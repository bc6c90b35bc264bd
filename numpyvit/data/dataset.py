"""A data set in memory, and what makes its pixels into a model's input."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..backend.arrays import Array, get_xp
from ..backend.device import to
from ..errors import UserError
from ..params import HELD_OUT


@dataclass(frozen=True)
class Dataset:
    """Images with labels. mean and std are those of the training set, in units of the brightest pixel (255 is 1)."""

    name: str
    images: Array  # (n, H, W, C) uint8
    labels: Array  # (n,) int64
    mean: Array  # (C,)
    std: Array  # (C,)
    classes: tuple[str, ...]  # (K,) names

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: Array) -> "Dataset":
        """The images at `index`, as a Dataset."""
        return replace(self, images=self.images[index], labels=self.labels[index])

    def to(self, device: str) -> "Dataset":
        """Its images and labels on a device, "cpu", "cuda" or "cuda:1". Raises UserError where that is not to be had."""
        return replace(self, images=to(self.images, device), labels=to(self.labels, device))


def make_dataset(
    name: str,
    images: Array,
    labels: Array,
    classes: tuple[str, ...] | None = None,
    like: Dataset | None = None,
) -> Dataset:
    """Your arrays as a Dataset: images (n, H, W) or (n, H, W, C) uint8, labels (n,) whole numbers from 0, classes: their
    names (by default the numbers). mean and std are computed, or, for a test set, taken from `like`, the training set, which
    then also tells the classes. Raises UserError for arrays that do not fit each other, or `like`.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8:
        hint = (
            "np.round(255 * images).astype(np.uint8), if they go from 0 to 1"
            if images.dtype.kind == "f"
            else "as uint8"
        )
        raise UserError(f"{name}: images are {images.dtype}, wanted uint8, 0 to 255: {hint}")
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise UserError(
            f"{name}: images have shape {images.shape}, wanted (n, H, W) or (n, H, W, C)"
        )
    if images.shape[1] <= 4 < min(images.shape[2:]):
        raise UserError(
            f"{name}: images have shape {images.shape} and look channels-first: images.transpose(0, 2, 3, 1)"
        )
    if len(images) == 0:
        raise UserError(f"{name}: no images")
    labels = (
        labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    )  # as Keras has CIFAR's
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(
            f"{name}: labels are {labels.dtype} of shape {labels.shape}, wanted whole numbers, (n,)"
        )
    if len(images) != len(labels):
        raise UserError(
            f"{name}: {len(images)} images but {len(labels)} labels: these files do not belong together"
        )
    if like:
        classes = like.classes
    elif classes is None:
        if labels.max() >= len(labels):
            raise UserError(
                f"{name}: labels go up to {labels.max()}, of {len(labels)} images: wanted 0, 1, 2 ..., as "
                "np.unique(labels, return_inverse=True) numbers them"
            )
        classes = tuple(str(k) for k in range(int(labels.max()) + 1))
    if len(set(classes)) < max(len(classes), 2):
        raise UserError(
            f"{name}: the classes are {', '.join(classes[:20])}: wanted two at least, of different names"
        )
    if labels.min() < 0 or labels.max() >= len(classes):
        raise UserError(
            f"{name}: labels go from {labels.min()} to {labels.max()}, wanted 0 to {len(classes) - 1}"
        )
    if like and images.shape[1:] != like.images.shape[1:]:
        raise UserError(
            f"{name}: test images are {images.shape[1:]}, the training images {like.images.shape[1:]}: make "
            "them alike"
        )
    mean, std = (like.mean, like.std) if like else moments(images)
    return Dataset(name, images, labels.astype(np.int64), mean, std, classes)


def moments(images: Array) -> tuple[Array, Array]:
    """images (n, H, W, C) uint8  ->  mean and deviation (C,) over all of their pixels, with 255 as 1."""
    counts = np.zeros((images.shape[-1], 256))
    for start in range(0, len(images), 4096):  # bincount makes 8 bytes of each pixel
        for c, channel in enumerate(counts):
            channel += np.bincount(images[start : start + 4096, ..., c].ravel(), minlength=256)
    p, value = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
    mean = p @ value
    std = np.sqrt(np.maximum(p @ value**2 - mean**2, 0))
    return mean, np.maximum(std, 1 / 255)


def normalise(images: Array, mean: Array, std: Array, dtype: Any = np.float32) -> Array:
    """uint8 images (B, H, W, C), mean and std (C,)  ->  (images / 255 - mean) / std, in dtype."""
    if images.dtype != np.uint8:
        raise UserError(
            f"images are {images.dtype}, wanted uint8 (0 to 255): these may be normalised already"
        )
    xp, scale = get_xp(images), 1 / (255 * np.asarray(std, np.float64))
    x = images.astype(dtype)
    x *= xp.asarray(scale, dtype)
    x -= xp.asarray(np.asarray(mean) / std, dtype)
    return x


def hold_out(data: Dataset, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Split into (the rest, `fraction` of each class, but never all of it), at random by the seed, each part in its old
    order."""
    if not 0 < fraction < 1:
        raise UserError(f"a fraction of {fraction} cannot be held out: it must lie between 0 and 1")
    rng = np.random.default_rng((seed, HELD_OUT))
    held = np.zeros(len(data), bool)
    for k in range(len(data.classes)):
        members = rng.permutation(np.flatnonzero(data.labels == k))
        held[members[: min(round(fraction * len(members)), max(len(members) - 1, 0))]] = (
            True  # one at least stays
        )
    if not held.any() or held.all():
        raise UserError(f"holding out {fraction} of {len(data)} images leaves one part empty")
    return data.take(~held), data.take(held)
