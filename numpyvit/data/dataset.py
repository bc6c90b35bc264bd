"""A labelled data set in memory, and the normalisation of its pixels."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..backend.arrays import Array, as_array, check_array, check_dtype, get_xp, is_array, on_host
from ..backend.device import to
from ..errors import UserError, check_int, check_number, check_type, shown
from ..seeds import HELD_OUT


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images with labels. make_dataset makes one from your own arrays.

    images: (n, H, W, C) uint8.
    labels: (n,) int64, 0 to K - 1.
    mean, std: (C,), of the pixels of the training set divided by 255.
    classes: the K names of the classes.

    data[:1000], data[index] and data[mask] are Datasets of some of the images.

    Raises UserError if the parts do not fit each other.
    """

    name: str
    images: Array
    labels: Array
    mean: Array
    std: Array
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        check_type("name", self.name, str, "the name of the data set")
        check_array("images", self.images, "uint8", ("n", "H", "W", "C"))
        check_array("labels", self.labels, "integers", (len(self.images),))
        C = self.images.shape[-1]
        check_array("mean", self.mean, "floats", (C,))
        check_array("std", self.std, "floats", (C,))
        check_moments(self.mean, self.std)
        object.__setattr__(self, "classes", check_classes(self.classes))
        check_range(self.labels, len(self.classes))

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        n, H, W, C = self.images.shape
        classes = f"{len(self.classes)} classes"
        return f"<Dataset {self.name!r} of {n:,} images of {H}x{W}x{C}, {classes}>"

    def __getitem__(self, index: Any) -> "Dataset":
        return self.take(index)

    def take(self, index: Any) -> "Dataset":
        """Return a Dataset of the images at `index`.

        index: a slice, an array or a list of integers, or a mask of n bools. Raises
        UserError for an index that the data set does not have, and for a single integer.
        """
        n = len(self)
        if isinstance(index, int | np.integer):
            raise UserError(
                f"index is {index}: for one image use data.images[{index}] and data.labels[{index}]"
            )
        if not isinstance(index, slice):
            index = as_array("index", index)
            if index.shape == (0,):
                index = index.astype(np.int64)  # that of an empty list is float64
            is_mask = index.dtype.kind == "b" and index.shape == (n,)
            is_index = index.dtype.kind in "iu" and index.ndim == 1
            if not (is_mask or is_index):
                raise UserError(f"index is {shown(index)}: it must be integers, or {n} bools")
            index = get_xp(self.images).asarray(index)
        try:
            return replace(self, images=self.images[index], labels=self.labels[index])
        except (IndexError, TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"index does not fit the {n} images: {error}") from None

    def to(self, device: str) -> "Dataset":
        """Return a Dataset with the images and labels on `device`.

        device: "cpu", "cuda" or "cuda:1". Raises UserError if it is not available.
        """
        return replace(self, images=to(self.images, device), labels=to(self.labels, device))


def make_dataset(
    name: str,
    images: Array,
    labels: Array,
    classes: tuple[str, ...] | None = None,
    like: Dataset | None = None,
) -> Dataset:
    """Make a Dataset from your own arrays.

    images: (n, H, W) or (n, H, W, C), uint8.
    labels: (n,), integers from 0.
    classes: the names of the classes; by default the labels as strings.
    like: the training set, if this is a test set. Its mean, std and classes are used;
        without it mean and std are computed.

    Raises UserError if the arrays do not fit each other or `like`.
    """
    check_type("name", name, str, "the name of the data set")
    images = check_images(name, as_array("images", images))
    labels = check_labels(name, as_array("labels", labels), len(images))
    if like is not None:
        check_type("like", like, Dataset, "the Dataset to train on")
        classes = like.classes
    elif classes is None:
        classes = default_classes(name, labels)
    classes = check_classes(classes)
    if len(set(classes)) < max(len(classes), 2):
        raise UserError(
            f"{name}: the classes are {', '.join(classes[:20])}: "
            "wanted at least two, with different names"
        )
    if labels.min() < 0 or labels.max() >= len(classes):
        raise UserError(
            f"{name}: labels go from {labels.min()} to {labels.max()}, "
            f"wanted 0 to {len(classes) - 1}"
        )
    if like is not None and images.shape[1:] != like.images.shape[1:]:
        raise UserError(
            f"{name}: test images have shape {images.shape[1:]}, but the training images "
            f"{like.images.shape[1:]}: give both the same shape"
        )
    mean, std = (like.mean, like.std) if like is not None else moments(images)
    return Dataset(name, images, labels.astype(np.int64), mean, std, classes)


def check_moments(mean: Array, std: Array) -> None:
    """Raise UserError unless mean and std are finite and std is above 0."""
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
        raise UserError(f"mean is {mean} and std {std}: they must be finite, and std above 0")


def check_classes(classes: Any) -> tuple[str, ...]:
    """Return the names of the classes as a tuple. Raises UserError unless they are strings."""
    is_list = isinstance(classes, tuple | list)
    if not (is_list and classes and all(isinstance(name, str) for name in classes)):
        raise UserError(f"classes is {shown(classes)}: it must be a tuple of names, strings")
    return tuple(classes)


def check_range(labels: Array, classes: int) -> None:
    """Raise UserError unless labels, where they can be read, are below the number of classes."""
    if len(labels) and on_host(labels) and not (labels.min() >= 0 and labels.max() < classes):
        raise UserError(
            f"labels go from {labels.min()} to {labels.max()}, but there are {classes} classes: "
            f"use labels from 0 to {classes - 1}"
        )


def check_images(name: str, images: Array) -> Array:
    """Return the images as (n, H, W, C). Raises UserError if they cannot be images."""
    if images.dtype != np.uint8:
        if images.dtype.kind == "f":
            hint = "if they go from 0 to 1, use np.round(255 * images).astype(np.uint8)"
        elif images.dtype == np.uint16:
            hint = "if they go from 0 to 65535, use np.round(images / 257).astype(np.uint8)"
        else:
            hint = "if they go from 0 to 255, use images.astype(np.uint8)"
        raise UserError(f"{name}: images are {images.dtype}, wanted uint8 (0 to 255): {hint}")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise UserError(
            f"{name}: images have shape {images.shape}, wanted (n, H, W) or (n, H, W, C)"
        )
    if images.shape[1] <= 4 < min(images.shape[2:]):
        raise UserError(
            f"{name}: images have shape {images.shape} and look channels-first: "
            "use images.transpose(0, 2, 3, 1)"
        )
    if len(images) == 0:
        raise UserError(f"{name}: there are no images")
    return images


def check_labels(name: str, labels: Array, images: int) -> Array:
    """Return the labels as (n,). Raises UserError if they do not fit n images."""
    if labels.ndim == 2 and labels.shape[1] == 1:  # Keras' labels of CIFAR
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(
            f"{name}: labels are {labels.dtype} of shape {labels.shape}, wanted integers "
            "of shape (n,)"
        )
    if len(labels) and labels.min() < 0:
        raise UserError(
            f"{name}: labels go from {labels.min()} to {labels.max()}, wanted integers from 0"
        )
    if len(labels) != images:
        raise UserError(
            f"{name}: {images} images but {len(labels)} labels: they do not belong together"
        )
    return labels


def default_classes(name: str, labels: Array) -> tuple[str, ...]:
    """Return the labels up to the largest as strings.

    Raises UserError if that is more classes than images, which is surely a mistake.
    """
    largest = int(labels.max())
    if largest >= len(labels):
        raise UserError(
            f"{name}: labels go up to {largest}, but there are {len(labels)} images: number the "
            "classes 0, 1, 2, ..., for example with np.unique(labels, return_inverse=True)"
        )
    return tuple(str(k) for k in range(largest + 1))


def moments(images: Array) -> tuple[Array, Array]:
    """Return the mean and standard deviation of each channel over all pixels.

    images (n, H, W, C) uint8  ->  mean (C,), std (C,) of images / 255. The standard
    deviation is at least 1 / 255, so that a constant channel can be divided by it.
    """
    counts = np.zeros((images.shape[-1], 256))
    for start in range(0, len(images), 4096):  # bincount needs 8 bytes for each pixel
        block = images[start : start + 4096]
        for c, channel in enumerate(counts):
            channel += np.bincount(block[..., c].ravel(), minlength=256)
    p = counts / counts.sum(1, keepdims=True)
    value = np.arange(256) / 255
    mean = p @ value
    variance = np.maximum(p @ value**2 - mean**2, 0)
    return mean, np.maximum(np.sqrt(variance), 1 / 255)


def normalise(images: Array, mean: Array, std: Array, dtype: Any = np.float32) -> Array:
    """Return (images / 255 - mean) / std in dtype.

    images: (B, H, W, C) uint8.
    mean, std: (C,).

    Raises UserError if the images are not uint8, or mean and std do not fit them.
    """
    if not is_array(images):
        check_array("images", images, "uint8", ("B", "H", "W", "C"))
    if images.dtype != np.uint8:
        raise UserError(
            f"images are {images.dtype}, wanted uint8 (0 to 255): they may be normalised already"
        )
    mean, std = as_array("mean", mean), as_array("std", std)
    for name, values in (("mean", mean), ("std", std)):
        check_array(name, values, "numbers", images.shape[-1:])
    check_moments(mean, std)
    check_dtype("dtype", dtype)
    xp = get_xp(images)
    scale = 1 / (255 * np.asarray(std, np.float64))
    x = images.astype(dtype)
    x *= xp.asarray(scale, dtype)
    x -= xp.asarray(np.asarray(mean) / std, dtype)
    return x


def hold_out(data: Dataset, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Split a data set into (the rest, a random `fraction` of each class).

    At least one image of each class stays in the rest. Both parts keep the order of the
    images. Raises UserError if the fraction is not between 0 and 1, or leaves a part
    empty.
    """
    check_type("data", data, Dataset, "a Dataset, such as data.digits() and make_dataset return")
    check_number("fraction", fraction)
    seed = check_int("seed", seed, most=2**128)
    if not 0 < fraction < 1:
        raise UserError(f"a fraction of {fraction} cannot be held out: it must be between 0 and 1")
    rng = np.random.default_rng((seed, HELD_OUT))
    is_held_out = np.zeros(len(data), bool)
    for k in range(len(data.classes)):
        members = rng.permutation(np.flatnonzero(data.labels == k))
        at_most = max(len(members) - 1, 0)
        count = min(round(fraction * len(members)), at_most)
        is_held_out[members[:count]] = True
    if not is_held_out.any() or is_held_out.all():
        raise UserError(
            f"{data.name}: holding out {fraction} of {len(data)} images of {len(data.classes)} "
            "classes leaves one part empty: add images, at least two for each class, or choose "
            "another fraction"
        )
    return data.take(~is_held_out), data.take(is_held_out)
