"""Reading the known data sets: MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100. Only bytes whose checksum is right are ever
looked into, archives are not unpacked to the disk, and no pickle is opened."""

import gzip
import hashlib
import tarfile
import zlib
from importlib.resources import as_file, files
from pathlib import Path, PurePosixPath

import numpy as np

from ..backend.arrays import Array
from ..errors import UserError, check_choice
from ..storage.files import read_arrays, reason
from .dataset import Dataset, hold_out, make_dataset
from .registry import DIGITS, IDX_FILES, KNOWN, data_folder

names = ("digits", *KNOWN)
BROKEN = (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError)  # what damaged archives raise


def digits() -> tuple[Dataset, Dataset]:
    """1,797 real handwritten digits of 8x8 pixels, which ship with the package (credits in digits.md beside them),
    split 80/20 by class with a fixed seed."""
    with as_file(files(__package__) / "digits.npz") as path:
        arrays = read_arrays(path)
    everything = make_dataset("digits", arrays["images"], arrays["labels"], DIGITS)
    train, test = hold_out(everything, 0.2, seed=0)
    train = make_dataset(
        "digits", train.images, train.labels, DIGITS
    )  # mean and std of these alone
    return train, make_dataset("digits", test.images, test.labels, DIGITS, like=train)


def mnist(data_dir: str | Path | None = None, bar: bool = True) -> tuple[Dataset, Dataset]:
    """MNIST (LeCun et al., 1998): 60,000 training and 10,000 test images of 28x28x1."""
    return idx_set("mnist", data_dir, bar)


def fashion_mnist(data_dir: str | Path | None = None, bar: bool = True) -> tuple[Dataset, Dataset]:
    """Fashion-MNIST (Xiao et al., 2017): the same numbers and sizes as MNIST's, in files of the same names."""
    return idx_set("fashion-mnist", data_dir, bar)


def cifar10(data_dir: str | Path | None = None, bar: bool = True) -> tuple[Dataset, Dataset]:
    """CIFAR-10 (Krizhevsky, 2009): 50,000 training and 10,000 test images of 32x32x3."""
    return cifar_set("cifar10", data_dir, bar, test="test_batch.bin", labels=1)


def cifar100(data_dir: str | Path | None = None, bar: bool = True) -> tuple[Dataset, Dataset]:
    """CIFAR-100 (Krizhevsky, 2009): as CIFAR-10, in 100 classes (the fine labels)."""
    return cifar_set("cifar100", data_dir, bar, test="test.bin", labels=2)


LOADERS = {"mnist": mnist, "fashion-mnist": fashion_mnist, "cifar10": cifar10, "cifar100": cifar100}


def idx_set(name: str, data_dir: str | Path | None, bar: bool) -> tuple[Dataset, Dataset]:
    """IDX files begin with 0, 0, 8 (for uint8), the number of axes, and the axes' lengths, big-endian, in 4 bytes each."""
    found = content(name, data_dir, bar)
    arrays = [
        np.frombuffer(found[file], np.uint8, offset=16 if "images" in file else 8)
        for file in IDX_FILES
    ]
    classes = KNOWN[name].classes
    train = make_dataset(name, arrays[0].reshape(-1, 28, 28), arrays[1], classes)
    return train, make_dataset(name, arrays[2].reshape(-1, 28, 28), arrays[3], classes, like=train)


def cifar_set(
    name: str, data_dir: str | Path | None, bar: bool, test: str, labels: int
) -> tuple[Dataset, Dataset]:
    """Records of some bytes of labels, the last of which is ours, and 3 x 32 x 32 of pixels; no header."""
    found, classes = content(name, data_dir, bar), KNOWN[name].classes

    def read(wanted: list[str]) -> tuple[Array, Array]:
        records = np.concatenate(
            [np.frombuffer(found.pop(file), np.uint8).reshape(-1, labels + 3072) for file in wanted]
        )
        images = records[:, labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(images), records[:, labels - 1]

    test_images, test_labels = read([test])
    train = make_dataset(name, *read(list(found)), classes)
    return train, make_dataset(name, test_images, test_labels, classes, like=train)


def download(name: str, data_dir: str | Path | None = None, bar: bool = True) -> Path:
    """Fetch what is not there yet of a known data set; returns its folder. Raises UserError where that does not succeed,
    saying which files may be put there by hand."""
    from .fetch import fetch  # here: it imports all of HTTP and SSL

    check_choice("data set", name, KNOWN)
    known, folder = KNOWN[name], data_folder(data_dir) / name
    if data_dir and not Path(data_dir).is_dir():
        raise UserError(f"{data_dir} is not a folder that exists: make it, or leave out --data-dir")
    if all(find(name, folder, file) for file in known.content):
        return folder
    if known.folder and any(folder.rglob("data_batch_1")):
        raise UserError(
            f"{folder} holds CIFAR's pickled Python batches, and a pickle can run code: get the binary "
            f"version, {next(iter(known.remote))}, and put it there as it is"
        )
    for file, (size, sha256) in known.remote.items():
        if not (folder / file).is_file() and not (
            file.endswith(".gz") and (folder / file[:-3]).is_file()
        ):
            try:
                fetch([host + file for host in known.hosts], folder / file, size, sha256, bar)
            except UserError as error:
                raise UserError(
                    f"{error}; or get {', '.join(known.remote)} elsewhere, at {known.hosts[0]} say, and put "
                    f"{'it' if len(known.remote) == 1 else 'them'} into {folder}"
                ) from None
    return folder


def find(name: str, folder: Path, file: str) -> Path | None:
    """The file itself, its .gz, or the archive that it is in; None where none of them is there."""
    places = (
        folder / file,
        folder / f"{file}.gz",
        folder / KNOWN[name].folder / file,
        *(folder / archive for archive in KNOWN[name].remote if archive.endswith(".tar.gz")),
    )
    return next((path for path in places if path.is_file()), None)


def content(name: str, data_dir: str | Path | None, bar: bool) -> dict[str, bytes]:
    """Every file of a known set, fetched where need be, unpacked and checked."""
    folder, found = download(name, data_dir, bar), dict[str, bytes]()
    for file, (size, _) in KNOWN[name].content.items():
        path = find(name, folder, file)
        if path and file not in found:
            try:
                if path.name.endswith(".tar.gz"):
                    found |= read_archive(name, path)
                else:
                    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as f:
                        found[file] = f.read(size + 1)  # no more than can be right
            except BROKEN as error:
                raise UserError(
                    f"{path} cannot be unpacked ({reason(error)}): it is damaged, get it again"
                ) from None
        check(name, file, path or folder / file, found.get(file, b""))
    return {file: found[file] for file in KNOWN[name].content}


def read_archive(name: str, path: Path) -> dict[str, bytes]:
    """The set's files out of its one archive, which is not opened unless it is the canonical one, to the bit."""
    known, found = KNOWN[name], dict[str, bytes]()
    with open(path, "rb") as f:
        size, sha256 = known.remote[path.name]
        if path.stat().st_size != size or hashlib.file_digest(f, "sha256").hexdigest() != sha256:
            raise UserError(
                f"{path} is not the canonical one: it has {path.stat().st_size:,} bytes, wanted {size:,} of "
                f"SHA-256 {sha256[:12]}...; it is damaged or another file, get it again"
            )
        f.seek(0)
        with tarfile.open(fileobj=f, mode="r|gz") as archive:
            for member in archive:
                inside = PurePosixPath(member.name)
                if inside.is_absolute() or ".." in inside.parts:
                    raise UserError(
                        f"{path} holds a file that points outside of it ({member.name!r}): it is not used"
                    )
                wanted = known.content.get(inside.name)
                if (
                    wanted
                    and str(inside.parent) == known.folder
                    and member.isreg()
                    and member.size == wanted[0]
                ):
                    opened = archive.extractfile(member)
                    found[inside.name] = opened.read() if opened else b""
    return found


def check(name: str, file: str, path: Path, data: bytes) -> None:
    """Raise UserError unless `data` is the file that it should be; say so if it is another one that we know."""
    size, sha256 = KNOWN[name].content[file]
    found = hashlib.sha256(data).hexdigest()
    if found == sha256:
        return
    for other, known in KNOWN.items():
        for known_file, (_, known_sum) in known.content.items():
            if known_sum == found:
                hint = f", or use --data {other}" if other != name else ""
                raise UserError(
                    f"{path} is {known_file} of {other}, not of what its name says: put the right file "
                    f"there{hint}"
                )
    length = f"{len(data):,}" if len(data) <= size else f"more than {size:,}"
    raise UserError(
        f"{path} is not {name}'s {file}: it has {length} bytes of SHA-256 {found[:12]}..., wanted {size:,} of "
        f"{sha256[:12]}...; it is damaged or of another data set, get it again"
    )
