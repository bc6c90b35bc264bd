"""Your own images: a folder of pictures by class, or the arrays of an .npz."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..backend.arrays import Array
from ..errors import UserError
from ..storage.files import read_arrays
from .dataset import Dataset, hold_out, make_dataset
from .image import FORMATS, is_grey, read_picture, readable

TEST_FOLDERS = ("test", "val", "valid", "validation")
ARRAYS = (
    ("images", "labels", "test_images", "test_labels"),
    ("x_train", "y_train", "x_test", "y_test"),
)
Say = Callable[[str], None]


def folder(
    path: str | Path,
    size: tuple[int, int] = (64, 64),
    test: float = 0.2,
    say: Say = print,
    bar: bool = False,
) -> tuple[Dataset, Dataset]:
    """(training set, test set) of a folder of pictures, made to fit size (H, W): PATH/train/CLASS/*, PATH/test/CLASS/*, or
    PATH/CLASS/*, of each class of which the share `test` is then held out, always the same.

    Pictures may be of any sizes and kinds; they are grey where all of them are grey, else RGB. Files of other kinds are
    passed over, which is said. Raises UserError for a picture that cannot be read, and for folders of another order.
    """
    path = Path(path)
    parts, subs = [path], {sub.name.lower(): sub for sub in folders(path)}
    if "train" in subs and folders(subs["train"]):  # else it is a class of trains
        parts = [subs["train"], *(subs[name] for name in TEST_FOLDERS if name in subs)][:2]
        if others := [str(sub) for sub in subs.values() if sub not in parts]:
            say(
                f"{path}: {', '.join(others)[:300]} passed over: only {' and '.join(str(part) for part in parts)} count"
            )
    listed = [list_pictures(part, say) for part in parts]
    classes = tuple(sorted(listed[0]))
    if len(classes) < 2:
        raise UserError(
            f"{parts[0]} holds {len(classes)} folders of pictures: wanted one for each class, two at least "
            f"({path}/CLASS/PICTURE, or {path}/train/CLASS/PICTURE and {path}/test/CLASS/PICTURE)"
        )
    if unknown := set(listed[-1]) - set(classes):
        raise UserError(
            f"{parts[-1]} has a folder {min(unknown)!r}, which {parts[0]} has not: the classes must be the same"
        )
    grey = all(
        is_grey(mode_of(file))
        for of_class in listed
        for files in of_class.values()
        for file in files
    )
    read = [read_all(files, classes, size, 1 if grey else 3, bar) for files in listed]
    if len(read) == 2:
        train = make_dataset(path.name, *read[0], classes)
        return train, make_dataset(path.name, *read[1], classes, like=train)
    return split(path.name, *read[0], classes, test)


def list_pictures(folder: Path, say: Say) -> dict[str, list[Path]]:
    """class: its files, sorted. Hidden ones do not count."""
    from PIL import Image

    readable()  # has Pillow know its endings
    endings = {ending for ending, kind in Image.EXTENSION.items() if kind in FORMATS}
    found, passed = dict[str, list[Path]](), list[Path]()
    for sub in folders(folder):
        inside = sorted(p for p in sub.iterdir() if not p.name.startswith("."))
        found[sub.name] = []
        for p in inside:
            (found[sub.name] if p.suffix.lower() in endings and p.is_file() else passed).append(p)
        if not found[sub.name]:
            raise UserError(
                f"{sub} holds no pictures: wanted a folder for each class, with the class's pictures in it"
            )
    if passed:
        say(
            f"{folder}: {len(passed)} things that are no pictures are passed over, {passed[0]} for one"
        )
    return found


def folders(path: Path) -> list[Path]:
    """Those in it, sorted, but for hidden ones."""
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def mode_of(file: Path) -> str:
    """Pillow's mode, from the file's first bytes; of a file that is none, read_picture will complain."""
    from PIL import Image

    try:
        with Image.open(file, formats=readable()) as image:
            return image.mode
    except Exception:  # whatever a damaged file makes a decoder raise
        return "L"


def read_all(
    files: dict[str, list[Path]],
    classes: tuple[str, ...],
    size: tuple[int, int],
    channels: int,
    bar: bool,
) -> tuple[Array, Array]:
    from tqdm import tqdm

    named = [(file, classes.index(name)) for name, of_class in files.items() for file in of_class]
    images = np.empty((len(named), *size, channels), np.uint8)
    for i, (file, _) in enumerate(
        tqdm(named, unit="picture", leave=False, disable=None if bar else True)
    ):
        images[i], _ = read_picture(file, size, channels)
    return images, np.array([k for _, k in named])


def split(
    name: str, images: Array, labels: Array, classes: tuple[str, ...] | None, test: float
) -> tuple[Dataset, Dataset]:
    """Hold out a test set, always the same; the training set's mean and deviation are of its images alone."""
    whole = make_dataset(name, images, labels, classes)
    train, held = hold_out(whole, test)
    train = make_dataset(name, train.images, train.labels, whole.classes)
    return train, make_dataset(name, held.images, held.labels, like=train)


def npz(path: str | Path, test: float = 0.2) -> tuple[Dataset, Dataset]:
    """(training set, test set) of an .npz with the arrays images and labels, as make_dataset wants them, and, if you like,
    test_images and test_labels (else the share `test` is held out), and classes, the names. Keras' names, x_train, y_train,
    x_test and y_test, will do too. Raises UserError for a file that holds something else."""
    path = Path(path)
    arrays = read_arrays(path)
    names = next((n for n in ARRAYS if n[0] in arrays and n[1] in arrays), None)
    if names is None:
        raise UserError(
            f"{path} holds {', '.join(arrays)[:200] or 'nothing'}: wanted arrays called images and labels"
        )
    images, labels, test_images, test_labels = (arrays.get(name) for name in names)
    assert images is not None  # names says so
    assert labels is not None
    classes = None
    if "classes" in arrays:
        if arrays["classes"].dtype.kind != "U" or arrays["classes"].ndim != 1:
            raise UserError(f"{path}: classes must be an array of strings, (K,)")
        classes = tuple(str(name) for name in arrays["classes"])
    if (test_images is None) != (test_labels is None):
        raise UserError(
            f"{path}: only one of {names[2]} and {names[3]} is there: wanted both or none"
        )
    if test_images is None or test_labels is None:
        return split(path.stem, images, labels, classes, test)
    train = make_dataset(path.stem, images, labels, classes)
    return train, make_dataset(path.stem, test_images, test_labels, like=train)
