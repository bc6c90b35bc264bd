"""Your own images as a data set: a folder of image files, or an .npz of arrays."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..backend.arrays import Array
from ..backend.device import machine_memory
from ..errors import UserError, say
from ..storage.archives import array_names, read_arrays
from .dataset import Dataset, hold_out, make_dataset
from .image import FORMATS, is_grey, open_picture, read_picture, readable_formats

if TYPE_CHECKING:
    from tqdm import tqdm

TEST_FOLDERS = ("test", "val", "valid", "validation")
MOST_NAMES = 10  # of images that cannot be read, in one message
ARRAYS = (  # images, labels, test images, test labels
    ("images", "labels", "test_images", "test_labels"),
    ("x_train", "y_train", "x_test", "y_test"),  # the names that Keras uses
)


def folder(
    path: str | Path,
    size: tuple[int, int] = (64, 64),
    test: float | None = 0.2,
    say: Callable[[str], None] = say,
    bar: bool = False,
    left_out: list[str] | None = None,
) -> tuple[Dataset, Dataset]:
    """Read the training set and the test set from a folder of images.

    The files are PATH/train/CLASS/* and PATH/test/CLASS/*, or PATH/CLASS/*. In the
    second case the fraction `test` of each class is held out, which is the same at
    every call; if `test` is None, both sets are one Dataset of all images. Images may
    have any size, and are fitted into size (H, W). They become grey if all of them are
    grey, and RGB otherwise. Files that are not images are skipped, and images that
    cannot be read are left out.

    say: is called with a message about the files that were skipped or left out.
    bar: whether to show progress.
    left_out: a list that receives the message about images that cannot be read, if there
        are any, for a caller that wants to repeat it at the end of its work.

    Raises UserError if no image of a class can be read, and for a folder of another
    structure.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path} is not a folder that exists: give the path of a folder of images")
    parts = find_parts(path, say)
    files = [list_images(part, say) for part in parts]
    classes = tuple(sorted(files[0]))
    if len(classes) < 2:
        raise UserError(
            f"{parts[0]} contains {len(classes)} folders of images: wanted at least two, one "
            f"for each class ({path}/CLASS/IMAGE, or {path}/train/CLASS/IMAGE and "
            f"{path}/test/CLASS/IMAGE)"
        )
    if unknown := set(files[-1]) - set(classes):
        raise UserError(
            f"{parts[-1]} has a folder {min(unknown)!r}, but {parts[0]} does not: "
            "give both the same classes"
        )
    all_files = [file for part in files for of_class in part.values() for file in of_class]
    channels = channels_of(all_files, bar)
    check_memory(path, len(all_files), size, channels)
    broken: list[Path] = []
    arrays = [read_images(part, classes, size, channels, bar, broken) for part in files]
    if broken:
        names = ", ".join(str(file.relative_to(path)) for file in broken[:MOST_NAMES])
        more = f" and {len(broken) - MOST_NAMES:,} more" if len(broken) > MOST_NAMES else ""
        message = f"{path}: left out images that cannot be read ({len(broken):,}): {names}{more}"
        say(message)
        if left_out is not None:
            left_out.append(message)
    images, labels = arrays[0]
    if len(arrays) == 1:
        return split(path.name, images, labels, classes, test)
    test_images, test_labels = arrays[1]
    train = make_dataset(path.name, images, labels, classes)
    return train, make_dataset(path.name, test_images, test_labels, classes, like=train)


def find_parts(path: Path, say: Callable[[str], None]) -> list[Path]:
    """Return the folders of the training set and, if there is one, of the test set."""
    subfolders = {folder.name.lower(): folder for folder in list_folders(path)}
    # A folder "train" without folders in it is a class, of images of trains.
    if "train" not in subfolders or not list_folders(subfolders["train"]):
        return [path]
    tests = [subfolders[name] for name in TEST_FOLDERS if name in subfolders]
    parts = [subfolders["train"], *tests[:1]]
    if others := [str(folder) for folder in subfolders.values() if folder not in parts]:
        used = " and ".join(str(part) for part in parts)
        say(f"{path}: skipped {', '.join(others)[:300]}: only {used} are used")
    return parts


def list_images(folder: Path, say: Callable[[str], None]) -> dict[str, list[Path]]:
    """Return the sorted image files of each class, without hidden ones.

    `say` is called with a message about files that are not images. Raises UserError if
    a class has no images.
    """
    from PIL import Image

    readable_formats()  # makes Pillow register its file name extensions
    extensions = {name for name, format in Image.EXTENSION.items() if format in FORMATS}
    files: dict[str, list[Path]] = {}
    skipped: list[Path] = []
    for subfolder in list_folders(folder):
        images = []
        for path in sorted(subfolder.iterdir()):
            if path.name.startswith("."):
                continue
            if path.suffix.lower() in extensions and path.is_file():
                images.append(path)
            else:
                skipped.append(path)
        if not images:
            raise UserError(
                f"{subfolder} contains no images: wanted one folder for each class, "
                "with the images of that class in it"
            )
        files[subfolder.name] = images
    if skipped:
        say(f"{folder}: skipped files that are not images ({len(skipped)}, e.g. {skipped[0]})")
    return files


def list_folders(path: Path) -> list[Path]:
    """Return the folders in `path`, sorted, without hidden ones."""
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def channels_of(files: list[Path], bar: bool) -> int:
    """Return 1 if all images are grey, otherwise 3."""
    return 1 if all(is_grey(mode_of(file)) for file in progress(files, "looking", bar)) else 3


def mode_of(file: Path) -> str:
    """Return Pillow's mode of an image, which needs only the beginning of the file.

    Returns "L" for a file that cannot be read; read_picture will raise the error.
    """
    try:
        with open_picture(file) as image:
            return image.mode
    except Exception:  # decoders raise many kinds for a damaged file
        return "L"


def progress(files: list[Path], what: str, bar: bool) -> "tqdm[Path]":
    """Return an iterator over the files that shows a progress bar if `bar`."""
    from tqdm import tqdm

    return tqdm(files, what, unit="image", leave=False, disable=None if bar else True)


def check_memory(path: Path, n: int, size: tuple[int, int], channels: int) -> None:
    """Raise UserError if n images of this size need more than half of the memory."""
    H, W = size
    needed = n * H * W * channels
    if needed > machine_memory() / 2:
        raise UserError(
            f"{path}: {n:,} images of {H}x{W} need {needed:,} bytes, more than half of this "
            "machine's memory: choose a smaller size"
        )


def read_images(
    files: dict[str, list[Path]],
    classes: tuple[str, ...],
    size: tuple[int, int],
    channels: int,
    bar: bool,
    broken: list[Path],
) -> tuple[Array, Array]:
    """Read all files  ->  images (n, H, W, C) uint8, labels (n,).

    Files that cannot be read are appended to `broken`. Raises UserError if all files of
    a class are among them.
    """
    number = {name: k for k, name in enumerate(classes)}
    labelled = [(file, number[name]) for name, of_class in files.items() for file in of_class]
    images = np.empty((len(labelled), *size, channels), np.uint8)
    labels: list[int] = []  # of the images read so far
    last_error = ""
    for i, file in enumerate(progress([file for file, _ in labelled], "reading", bar)):
        try:
            images[len(labels)], _ = read_picture(file, size, channels)
        except UserError as error:
            broken.append(file)
            last_error = str(error)
        else:
            labels.append(labelled[i][1])
    if lost := {number[name] for name in files} - set(labels):
        raise UserError(f"no image of the class {classes[min(lost)]} can be read: {last_error}")
    return images[: len(labels)], np.array(labels)


def split(
    name: str, images: Array, labels: Array, classes: tuple[str, ...] | None, test: float | None
) -> tuple[Dataset, Dataset]:
    """Hold out a fraction `test` as the test set, the same at every call.

    If it is None, both parts are the same Dataset, which has all images.

    The mean and standard deviation are those of the remaining images alone.
    """
    everything = make_dataset(name, images, labels, classes)
    if test is None:
        return everything, everything
    rest, held_out = hold_out(everything, test)
    train = make_dataset(name, rest.images, rest.labels, everything.classes)
    return train, make_dataset(name, held_out.images, held_out.labels, like=train)


def npz(
    path: str | Path, test: float | None = 0.2, say: Callable[[str], None] = say
) -> tuple[Dataset, Dataset]:
    """Read the training set and the test set from an .npz file.

    It contains the arrays `images` and `labels`, in the form that make_dataset expects,
    and optionally `test_images` and `test_labels`, without which `test` is used as
    `folder` does, and `classes`, the names. The names of Keras (x_train, y_train, x_test,
    y_test) are accepted too. `say` is called with a message about classes without images.
    Raises UserError for a file that is damaged or has other contents.
    """
    path = Path(path)
    arrays = read_arrays(path, [name for names in ARRAYS for name in names] + ["classes"])
    names = next((names for names in ARRAYS if names[0] in arrays and names[1] in arrays), None)
    if names is None:
        contents = ", ".join(array_names(path))[:200] or "nothing"
        raise UserError(f"{path} contains {contents}: wanted arrays named images and labels")
    images = arrays[names[0]]
    labels = arrays[names[1]]
    test_images = arrays.get(names[2])
    test_labels = arrays.get(names[3])
    classes = None
    if "classes" in arrays:
        if arrays["classes"].dtype.kind != "U" or arrays["classes"].ndim != 1:
            raise UserError(f"{path}: classes must be an array of strings of shape (K,)")
        classes = tuple(str(name) for name in arrays["classes"])
    if (test_images is None) != (test_labels is None):
        raise UserError(
            f"{path} contains only one of {names[2]} and {names[3]}: give both or neither"
        )
    if test_images is None or test_labels is None:
        train, held_out = split(path.stem, images, labels, classes, test)
    else:
        train = make_dataset(path.stem, images, labels, classes)
        held_out = make_dataset(path.stem, test_images, test_labels, like=train)
    empty = len(train.classes) - len(np.unique(train.labels))
    if empty:
        say(
            f"{path}: {empty} of {len(train.classes)} classes have no training images; to number "
            "the classes without gaps, use np.unique(labels, return_inverse=True)"
        )
    return train, held_out
