"""Loading a data set by its name, or by the path of your own images."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import numpy as np

from ..backend.arrays import Array
from ..errors import UserError, check_choice, check_path, say
from . import image_folder
from .dataset import Dataset
from .image import fit
from .readers import LOADERS, digits, names


def is_path(name: str) -> bool:
    """Return whether `name` is a path rather than the name of a known data set."""
    if name in names:
        return False
    return Path(name).is_dir() or Path(name).suffix == ".npz" or "/" in name or "\\" in name


def load(
    name: str,
    data_dir: str | Path | None = None,
    size: tuple[int, int] = (64, 64),
    test: float | None = 0.2,
    say: Callable[[str], None] = say,
    bar: bool = False,
    left_out: list[str] | None = None,
) -> tuple[Dataset, Dataset]:
    """Return the training set and the test set called `name`.

    name: one of `names`, or the path of an image folder (see `folder`) or of an .npz
        file (see `npz`).
    data_dir: where the files of known data sets are, or are downloaded to; None means
        the default of registry.data_folder.
    size: (H, W), the size that the images of a folder are fitted into.
    test: the fraction to hold out from your own images if they have no test set; None to
        return one Dataset of all of them twice.
    say: is called with remarks about your own images.
    bar: whether to show progress.
    left_out: see `folder`.

    Raises UserError for an unknown name, and if the data set cannot be downloaded or
    read.
    """
    check_path("name", name)
    if data_dir is not None:
        check_path("data_dir", data_dir)
    name = str(name)
    if name == "digits":
        return digits()
    if name in LOADERS:
        return LOADERS[name](data_dir, bar)
    if not is_path(name):
        path = "or the path of an image folder or of an .npz file"
        here = f"(the current folder contains no folder {name!r})"
        check_choice("data set", name, [*names, f"{path} {here}"])
    if Path(name).is_dir():
        return image_folder.folder(name, size, test, say, bar, left_out)
    if Path(name).suffix == ".npz" and Path(name).is_file():
        return image_folder.npz(name, test, say)
    raise UserError(
        f"{name} is neither a folder nor an .npz file: give the path of your own images, or one of "
        f"{', '.join(names)}"
    )


def has_test_set(path: str) -> bool:
    """Return whether one's own images, which have been loaded before, contain a test set."""
    if Path(path).is_dir():
        return len(image_folder.find_parts(Path(path), lambda line: None)) > 1
    with ZipFile(path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()}
    return any(images in names for _, _, images, _ in image_folder.ARRAYS)


def for_model(
    data: Dataset, size: tuple[int, int], mean: Array, std: Array, classes: tuple[str, ...]
) -> Dataset:
    """Return `data` as the test set of a model that was trained on other images.

    Its images are scaled into size (H, W) and become grey or RGB, as image files do, and
    are normalised by mean and std (C,). Its labels become those of the same names in
    `classes`, which need not all occur. Raises UserError if the model does not know a
    class, or the numbers of channels do not fit.
    """
    occurring = {data.classes[k] for k in np.unique(data.labels)}
    if unknown := sorted(occurring - set(classes)):
        raise UserError(
            f"{data.name} has images of the classes {', '.join(unknown)[:300]}, which the model "
            f"does not know: it was trained on the classes {', '.join(classes)[:300]}"
        )
    index = np.array([classes.index(name) if name in classes else -1 for name in data.classes])
    images = fit_all(data, size, len(mean))
    labels = index[data.labels]
    return replace(data, images=images, labels=labels, mean=mean, std=std, classes=classes)


def fit_all(data: Dataset, size: tuple[int, int], channels: int) -> Array:
    """Return the images of `data`, scaled into (H, W), as (n, H, W, C) uint8.

    Raises UserError if they have another shape, and other channels than grey or RGB.
    """
    from PIL import Image

    n, *shape, C = data.images.shape
    if tuple(shape) == size and channels == C:
        return data.images
    if not {C, channels} <= {1, 3}:
        raise UserError(
            f"{data.name} has images of {data.images.shape[1:]}, but the model expects "
            f"{(*size, channels)}: only grey and RGB images can be converted"
        )
    images = np.empty((n, *size, channels), np.uint8)
    for i, pixels in enumerate(data.images):
        image = Image.fromarray(pixels[..., 0] if C == 1 else pixels)
        images[i] = fit(image.convert("L" if channels == 1 else "RGB"), size)
    return images
