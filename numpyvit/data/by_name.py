"""A data set by what the command line calls it."""

from pathlib import Path

from ..errors import UserError, check_choice
from . import image_folder as own
from .dataset import Dataset
from .readers import LOADERS, digits, names


def is_own(name: str) -> bool:
    """Whether it is the path of somebody's own images, and not the name of a known data set."""
    return name not in names and (
        Path(name).is_dir() or Path(name).suffix == ".npz" or "/" in name or "\\" in name
    )


def load(
    name: str,
    data_dir: str | Path | None = None,
    size: tuple[int, int] = (64, 64),
    test: float = 0.2,
    say: own.Say = print,
    bar: bool = False,
) -> tuple[Dataset, Dataset]:
    """(training set, test set): one of `names`, which is looked for in data_dir (see known.data_folder) and fetched where it
    is not there; or the path of a folder of pictures, which are made to fit size (H, W), or of an .npz. Of those that have
    no test set the share `test` is held out. bar: show progress."""
    if name == "digits":
        return digits()
    if name in LOADERS:
        return LOADERS[name](data_dir, bar)
    if not is_own(name):
        check_choice(
            "data set", name, [*names, "or the path of a folder of pictures, or of an .npz file"]
        )
    if Path(name).is_dir():
        return own.folder(name, size, test, say, bar)
    if Path(name).suffix == ".npz" and Path(name).is_file():
        return own.npz(name, test)
    raise UserError(
        f"{name} is neither a folder nor an .npz file: give the path of your own images, or one of "
        f"{', '.join(names)}"
    )
