"""Loading a data set by its name, or by the path of your own images."""

from collections.abc import Callable
from pathlib import Path

from ..errors import UserError, check_choice
from . import image_folder
from .dataset import Dataset
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
    test: float = 0.2,
    say: Callable[[str], None] = print,
    bar: bool = False,
) -> tuple[Dataset, Dataset]:
    """Return the training set and the test set called `name`.

    name: one of `names`, or the path of an image folder (see `folder`) or of an .npz
        file (see `npz`).
    data_dir: where the files of known data sets are, or are downloaded to; None means
        the default of registry.data_folder.
    size: (H, W), the size that the images of a folder are fitted into.
    test: the fraction to hold out from your own images if they have no test set.
    say: is called with remarks about your own images.
    bar: whether to show progress.

    Raises UserError for an unknown name, and if the data set cannot be downloaded or
    read.
    """
    if name == "digits":
        return digits()
    if name in LOADERS:
        return LOADERS[name](data_dir, bar)
    if not is_path(name):
        check_choice(
            "data set", name, [*names, "or the path of an image folder or of an .npz file"]
        )
    if Path(name).is_dir():
        return image_folder.folder(name, size, test, say, bar)
    if Path(name).suffix == ".npz" and Path(name).is_file():
        return image_folder.npz(name, test)
    raise UserError(
        f"{name} is neither a folder nor an .npz file: give the path of your own images, or one of "
        f"{', '.join(names)}"
    )
