"""Reading the known data sets: the packaged digits, MNIST, Fashion-MNIST and CIFAR.

Only bytes with the right checksum are interpreted. Archives are not unpacked to the
disk, and pickles are never opened.
"""

import gzip
import hashlib
import tarfile
import zlib
from importlib.resources import as_file, files
from pathlib import Path, PurePosixPath

import numpy as np

from ..backend.arrays import Array
from ..errors import UserError, check_choice
from ..storage.archives import read_arrays, reason
from ..storage.files import open_file
from .dataset import Dataset, hold_out, make_dataset
from .registry import DIGITS, IDX_FILES, KNOWN, data_folder

names = ("digits", *KNOWN)
# The exceptions that damaged archives raise.
BROKEN = (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError)


def digits() -> tuple[Dataset, Dataset]:
    """Return the training set and the test set of the packaged handwritten digits.

    They are 1,797 images of 8x8x1 (credits in digits.md), split 80/20 by class with a
    fixed seed.
    """
    with as_file(files(__package__) / "digits.npz") as path:
        arrays = read_arrays(path, ("images", "labels"))
    everything = make_dataset("digits", arrays["images"], arrays["labels"], DIGITS)
    rest, held_out = hold_out(everything, 0.2, seed=0)
    train = make_dataset("digits", rest.images, rest.labels, DIGITS)  # with its own mean and std
    return train, make_dataset("digits", held_out.images, held_out.labels, DIGITS, like=train)


def mnist(data_dir: str | Path | None = None, bar: bool = True) -> tuple[Dataset, Dataset]:
    """Return the training set and the test set of MNIST (LeCun et al., 1998).

    They are 60,000 and 10,000 images of 28x28x1. Missing files are downloaded to
    data_dir/mnist (see `download`).
    """
    return read_idx_set("mnist", data_dir, bar)


def fashion_mnist(data_dir: str | Path | None = None, bar: bool = True) -> tuple[Dataset, Dataset]:
    """Return the training set and the test set of Fashion-MNIST (Xiao et al., 2017).

    They are 60,000 and 10,000 images of 28x28x1. Missing files are downloaded to
    data_dir/fashion-mnist (see `download`).
    """
    return read_idx_set("fashion-mnist", data_dir, bar)


def cifar10(data_dir: str | Path | None = None, bar: bool = True) -> tuple[Dataset, Dataset]:
    """Return the training set and the test set of CIFAR-10 (Krizhevsky, 2009).

    They are 50,000 and 10,000 images of 32x32x3. A missing archive is downloaded to
    data_dir/cifar10 (see `download`).
    """
    return read_cifar_set("cifar10", data_dir, bar, test_file="test_batch.bin", labels=1)


def cifar100(data_dir: str | Path | None = None, bar: bool = True) -> tuple[Dataset, Dataset]:
    """Return the training set and the test set of CIFAR-100 (Krizhevsky, 2009).

    They are like CIFAR-10, but with 100 classes (the fine labels).
    """
    return read_cifar_set("cifar100", data_dir, bar, test_file="test.bin", labels=2)


LOADERS = {"mnist": mnist, "fashion-mnist": fashion_mnist, "cifar10": cifar10, "cifar100": cifar100}


def read_idx_set(name: str, data_dir: str | Path | None, bar: bool) -> tuple[Dataset, Dataset]:
    """Return the training set and the test set of a data set of IDX files.

    An IDX file starts with the bytes 0, 0, 8 (for uint8) and the number of axes,
    followed by the length of each axis, big-endian in 4 bytes: a header of 16 bytes for
    images and 8 for labels.
    """
    content = read_content(name, data_dir, bar)
    images, labels, test_images, test_labels = (
        np.frombuffer(content[file], np.uint8, offset=16 if "images" in file else 8)
        for file in IDX_FILES
    )
    classes = KNOWN[name].classes
    train = make_dataset(name, images.reshape(-1, 28, 28), labels, classes)
    test = make_dataset(name, test_images.reshape(-1, 28, 28), test_labels, classes, like=train)
    return train, test


def read_cifar_set(
    name: str, data_dir: str | Path | None, bar: bool, test_file: str, labels: int
) -> tuple[Dataset, Dataset]:
    """Return the training set and the test set of CIFAR's binary version.

    A file consists of records without a header. Each has `labels` bytes of labels, of
    which the last is used, and 3 x 32 x 32 bytes of pixels.
    """
    content = read_content(name, data_dir, bar)
    classes = KNOWN[name].classes

    def read(file_names: list[str]) -> tuple[Array, Array]:
        records = np.concatenate(
            [
                np.frombuffer(content.pop(file), np.uint8).reshape(-1, labels + 3072)
                for file in file_names
            ]
        )
        images = records[:, labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(images), records[:, labels - 1]

    test_images, test_labels = read([test_file])
    train_images, train_labels = read(list(content))
    train = make_dataset(name, train_images, train_labels, classes)
    return train, make_dataset(name, test_images, test_labels, classes, like=train)


def download(name: str, data_dir: str | Path | None = None, bar: bool = True) -> Path:
    """Download the missing files of a known data set and return its folder.

    data_dir: an existing folder, or None for the default of registry.data_folder.
    bar: whether to show progress.

    Raises UserError if the download fails; the message says which files can be put into
    the folder by hand.
    """
    from .fetch import fetch  # imported here, because it imports HTTP and SSL

    check_choice("data set", name, KNOWN)
    known = KNOWN[name]
    folder = data_folder(data_dir) / name
    if data_dir and not Path(data_dir).is_dir():
        raise UserError(
            f"{data_dir} is not a folder that exists: create it, or choose another data_dir"
        )
    if all(find(name, folder, file) for file in known.content):
        return folder
    if known.folder and any(folder.rglob("data_batch_1")):
        raise UserError(
            f"{folder} contains CIFAR's pickled Python batches, and a pickle can run code: put "
            f"the binary version there instead, {next(iter(known.remote))}, without unpacking it"
        )
    for file, (size, sha256) in known.remote.items():
        unpacked = folder / file.removesuffix(".gz")
        if (folder / file).is_file() or (file.endswith(".gz") and unpacked.is_file()):
            continue
        try:
            fetch([host + file for host in known.hosts], folder / file, size, sha256, bar)
        except UserError as error:
            them = "it" if len(known.remote) == 1 else "them"
            raise UserError(
                f"{error}; or get {', '.join(known.remote)} elsewhere, for example from "
                f"{known.hosts[0]}, and put {them} into {folder}"
            ) from None
    return folder


def find(name: str, folder: Path, file: str) -> Path | None:
    """Return the path of the file, of its .gz, or of the archive that contains it.

    Returns None if none of them exists.
    """
    known = KNOWN[name]
    archives = [folder / archive for archive in known.remote if archive.endswith(".tar.gz")]
    candidates = [
        folder / file,
        folder / f"{file}.gz",
        folder / known.folder / file,
        *archives,
    ]
    return next((path for path in candidates if path.is_file()), None)


def read_content(name: str, data_dir: str | Path | None, bar: bool) -> dict[str, bytes]:
    """Return every file of a known data set, downloaded if needed and checked.

    Raises UserError for files that cannot be downloaded, or are not the right ones.
    """
    folder = download(name, data_dir, bar)
    content: dict[str, bytes] = {}
    for file, (size, _) in KNOWN[name].content.items():
        path = find(name, folder, file)
        if path and file not in content:
            try:
                if path.name.endswith(".tar.gz"):
                    content |= read_archive(name, path)
                else:
                    with open_file(path) as raw:
                        f = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
                        content[file] = f.read(size + 1)  # a longer file is wrong in any case
            except BROKEN as error:
                raise UserError(
                    f"{path} cannot be unpacked ({reason(error)}): it is damaged; download it again"
                ) from None
        check(name, file, path or folder / file, content.get(file, b""))
    return {file: content[file] for file in KNOWN[name].content}


def read_archive(name: str, path: Path) -> dict[str, bytes]:
    """Return the files of a data set from its archive.

    The archive is opened only if its checksum is right. Raises UserError if it is not,
    or if a member's name points outside of the archive.
    """
    known = KNOWN[name]
    size, sha256 = known.remote[path.name]
    content: dict[str, bytes] = {}
    with open_file(path) as f:
        length = path.stat().st_size
        if length != size or hashlib.file_digest(f, "sha256").hexdigest() != sha256:
            raise UserError(
                f"{path} is not the original archive: it has {length:,} bytes, wanted {size:,} "
                f"with SHA-256 {sha256[:12]}...; it is damaged or another file; download it again"
            )
        f.seek(0)
        with tarfile.open(fileobj=f, mode="r|gz") as archive:
            for member in archive:
                inside = PurePosixPath(member.name)
                if inside.is_absolute() or ".." in inside.parts:
                    raise UserError(
                        f"{path} contains a file that points outside of it ({member.name!r}): "
                        "it is not used; download it again"
                    )
                is_known = inside.name in known.content and str(inside.parent) == known.folder
                if is_known and member.isreg() and member.size == known.content[inside.name][0]:
                    opened = archive.extractfile(member)
                    content[inside.name] = opened.read() if opened else b""
    return content


def check(name: str, file: str, path: Path, data: bytes) -> None:
    """Raise UserError unless `data` is the right content of a file.

    If it is a file of another known data set, the message says which.
    """
    size, sha256 = KNOWN[name].content[file]
    found = hashlib.sha256(data).hexdigest()
    if found == sha256:
        return
    for other, known in KNOWN.items():
        for known_file, (_, known_sha256) in known.content.items():
            if known_sha256 == found:
                hint = f", or load {other!r} instead" if other != name else ""
                raise UserError(
                    f"{path} is {known_file} of {other}, not the file that its name says: "
                    f"put the right file there{hint}"
                )
    length = f"{len(data):,}" if len(data) <= size else f"more than {size:,}"
    raise UserError(
        f"{path} is not {name}'s {file}: it has {length} bytes with SHA-256 {found[:12]}..., "
        f"wanted {size:,} with {sha256[:12]}...; it is damaged or belongs to another data set; "
        "download it again"
    )
