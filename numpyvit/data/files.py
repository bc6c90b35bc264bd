"""The data sets that ship or that lie in their canonical files in DIR/NAME. Nothing here opens a pickle."""

import gzip
import hashlib
import struct
import zlib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np

from ..backend import Array
from ..errors import UserError, check_choice
from .dataset import Dataset, hold_out, make_dataset

DIGITS = tuple("0123456789")
FASHION = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CIFAR10_FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")

# MD5 of the uncompressed files: how we tell the sets apart, and damaged files from whole ones.
MD5 = {
    "mnist": dict(zip(IDX_FILES, (
        "6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637"), strict=True)),
    "fashion-mnist": dict(zip(IDX_FILES, (
        "f4a8712d7a061bf5bd6d2ca38dc4d50a", "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a", "15d484375f8d13e6eb1aabb0c3f46965"), strict=True)),
    "cifar10": dict(zip(CIFAR10_FILES, (
        "5dd7e06a14cb22eb9f671a540d1b7c25", "5ea93a67294ea407fff1d09f752e9692", "942cd6a4bcdd0dd3c604fbe906cb4421",
        "ae636b3ba5c66a11e91e8cb52e771fcb", "53f37980c15c3d472c316c40844f3f0d", "803d5f7f4d78ea53de84dbe85f74fb6d"),
        strict=True)),
}


def load(name: str, data_dir: str | Path | None = None) -> tuple[Dataset, Dataset]:
    """(training set, test set) by name; all but the digits need DIR, which holds their files in DIR/NAME."""
    check_choice("data set", name, names)
    if name == "digits":
        return digits()
    if data_dir is None:
        raise UserError(f"{name} does not ship with the package: give --data-dir DIR, with its files in DIR/{name}")
    return LOADERS[name](data_dir)


def digits() -> tuple[Dataset, Dataset]:
    """1,797 real handwritten digits of 8x8 pixels, which ship with the package (credits in digits.md beside them),
    split 80/20 by class with a fixed seed."""
    with np.load(str(files(__package__) / "digits.npz"), allow_pickle=False) as f:
        everything = make_dataset("digits", f["images"], f["labels"], DIGITS)
    train, test = hold_out(everything, 0.2, seed=0)
    train = make_dataset("digits", train.images, train.labels, DIGITS)   # mean and std of these alone
    return train, Dataset("digits", test.images, test.labels, train.mean, train.std, DIGITS)


def mnist(data_dir: str | Path) -> tuple[Dataset, Dataset]:
    """MNIST (LeCun et al., 1998) from its four IDX files, gzipped or not, in data_dir/mnist: (60,000, 10,000)."""
    return idx_set("mnist", Path(data_dir), DIGITS)


def fashion_mnist(data_dir: str | Path) -> tuple[Dataset, Dataset]:
    """Fashion-MNIST (Xiao et al., 2017), in data_dir/fashion-mnist, in files of the same names as MNIST's."""
    return idx_set("fashion-mnist", Path(data_dir), FASHION)


def cifar10(data_dir: str | Path) -> tuple[Dataset, Dataset]:
    """CIFAR-10 (Krizhevsky, 2009), the binary version, in data_dir/cifar10 or cifar-10-batches-bin in it."""
    folder = Path(data_dir) / "cifar10"
    for sub in ("cifar-10-batches-bin", "cifar-10-batches-py"):
        if (folder / sub).is_dir():
            folder = folder / sub
            break
    if (folder / "data_batch_1").exists() and not (folder / "data_batch_1.bin").exists():
        raise UserError(f"{folder} holds CIFAR-10's pickled Python batches, and a pickle can run code: "
                        "get the binary version, cifar-10-binary.tar.gz, and unpack it there")
    parts = [read_cifar(folder / name) for name in CIFAR10_FILES]
    images, labels = (np.concatenate(a) for a in zip(*parts[:5], strict=True))
    train = make_dataset("cifar10", images, labels, CIFAR10)
    return train, Dataset("cifar10", *parts[5], train.mean, train.std, CIFAR10)


LOADERS: dict[str, Callable[[str | Path], tuple[Dataset, Dataset]]] = {
    "mnist": mnist, "fashion-mnist": fashion_mnist, "cifar10": cifar10}
names = ("digits", *LOADERS)


def idx_set(name: str, data_dir: Path, classes: tuple[str, ...]) -> tuple[Dataset, Dataset]:
    arrays = [read_idx(name, data_dir / name, file) for file in IDX_FILES]
    train = make_dataset(name, arrays[0][..., None], arrays[1], classes)
    return train, Dataset(name, arrays[2][..., None], arrays[3].astype(np.int64), train.mean, train.std, classes)


def read_idx(name: str, folder: Path, file: str) -> Array:
    """One IDX file of uint8, gzipped or not: images (n, H, W), or labels (n,), as its name says. It begins with 0, 0, 8
    (for uint8), the number of axes, and their lengths, big-endian."""
    path = next((p for p in (folder / f"{file}.gz", folder / file) if p.is_file()), None)
    if path is None:
        raise UserError(f"{folder / file}(.gz) is missing: put the four files {', '.join(IDX_FILES)} (gzipped or not) "
                        f"into {folder}")
    data = read(path)
    ndim, wanted = (3, "images") if "images" in file else (1, "labels")
    found = {b"\0\0\x08\3": "images", b"\0\0\x08\1": "labels"}.get(data[:4])
    if found is None:
        raise UserError(f"{path} is not an IDX file of {wanted}: it begins with {data[:4].hex() or 'nothing'}, "
                        f"wanted {bytes((0, 0, 8, ndim)).hex()}; get it again")
    if found != wanted:
        raise UserError(f"{path} holds {found} where {wanted} are wanted: are the files swapped?")
    start = 4 + 4 * ndim
    shape = struct.unpack(f">{ndim}I", data[4:start]) if len(data) >= start else None
    size = None if shape is None else start + int(np.prod(shape, dtype=object))
    if size != len(data):
        raise UserError(f"{path} has {len(data):,} bytes where its header promises "
                        f"{'more' if size is None else f'{size:,}'}: it is damaged, get it again")
    check_md5(name, path, MD5[name][file], data)
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def read_cifar(path: Path) -> tuple[Array, Array]:
    """One binary batch of 10,000 records: a byte of label, then 3 x 32 x 32 of pixels  ->  (n, 32, 32, 3), (n,)."""
    if not path.is_file():
        raise UserError(f"{path} is missing: put {', '.join(CIFAR10_FILES)}, from cifar-10-binary.tar.gz, into "
                        f"{path.parent}")
    data = read(path)
    if len(data) != 10000 * 3073:
        raise UserError(f"{path} has {len(data):,} bytes, wanted 30,730,000: it is damaged or another file, get it again")
    check_md5("cifar10", path, MD5["cifar10"][path.name], data)
    records = np.frombuffer(data, np.uint8).reshape(-1, 3073)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0].astype(np.int64)


def read(path: Path) -> bytes:
    """The file's bytes, unpacked if it is gzipped."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as f:
                return f.read()
        return path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be unpacked ({error}): it is damaged, get it again") from None


def check_md5(name: str, path: Path, md5: str, data: bytes) -> None:
    """Raise UserError unless `data` is the file that it should be; say so if it is another one that we know."""
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found == md5:
        return
    for other, sums in MD5.items():
        for file, known in sums.items():
            if known == found:
                hint = f", or use --data {other}" if other != name else ""
                raise UserError(f"{path} is {file} of {other}, not of what its name says: put the right file there{hint}")
    raise UserError(f"{path} is not {name}'s file: its content has MD5 {found}, wanted {md5}; it is damaged or of another "
                    "data set, get it again")
