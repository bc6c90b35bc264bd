import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from numpyvit import UserError, data
from numpyvit.data import files
from numpyvit.data.files import CIFAR10_FILES, IDX_FILES

REAL = os.environ.get("NUMPYVIT_TEST_DATA")           # a folder with mnist/, fashion-mnist/, cifar10/: the real files


def idx(array):
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def mnist_like(tmp_path, monkeypatch):
    """Small files in MNIST's format, known to the package by their checksum. Returns (data dir, {file: bytes})."""
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (30, 28, 28), np.uint8), np.arange(30, dtype=np.uint8) % 10,
              rng.integers(0, 256, (20, 28, 28), np.uint8), np.arange(20, dtype=np.uint8) % 10]
    content = {name: idx(a) for name, a in zip(IDX_FILES, arrays, strict=True)}
    monkeypatch.setitem(files.MD5, "mnist", {n: hashlib.md5(c).hexdigest() for n, c in content.items()})
    (tmp_path / "mnist").mkdir()
    for name, c in content.items():
        (tmp_path / "mnist" / f"{name}.gz").write_bytes(gzip.compress(c))
    return tmp_path, content


def test_the_digits_are_all_there():
    train, test = data.digits()
    assert train.images.shape == (1438, 8, 8, 1)
    assert test.images.shape == (359, 8, 8, 1)
    # The counts that the UCI repository gives for its test set, by class
    assert np.bincount(np.concatenate([train.labels, test.labels])).tolist() == [178, 182, 177, 183, 181, 182, 181, 179,
                                                                                 174, 180]
    assert all(abs(np.mean(train.labels == k) - np.mean(test.labels == k)) < 0.003 for k in range(10))
    assert np.array_equal(train.mean, test.mean)
    together = {image.tobytes() for image in train.images} & {image.tobytes() for image in test.images}
    assert not together
    assert np.array_equal(data.digits()[1].images, test.images)


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_gzipped_or_not(mnist_like, packed):
    folder, content = mnist_like
    if not packed:
        for name, c in content.items():
            (folder / "mnist" / f"{name}.gz").unlink()
            (folder / "mnist" / name).write_bytes(c)
    train, test = data.mnist(folder)
    assert train.images.shape == (30, 28, 28, 1)
    assert test.labels.tolist() == [*range(10), *range(10)]
    assert train.images.tobytes() == content[IDX_FILES[0]][16:]


def damage(folder, content, how):
    """Damage the files; return what the message must hold."""
    def put(name, data):
        (folder / f"{name}.gz").write_bytes(gzip.compress(data))

    images, labels, test_images, test_labels = IDX_FILES
    if how == "missing":
        (folder / f"{images}.gz").unlink()
        return "is missing: put the four files"
    if how == "truncated gzip":
        path = folder / f"{images}.gz"
        path.write_bytes(path.read_bytes()[:-1000])
        return "cannot be unpacked"
    if how == "corrupt gzip":
        path = folder / f"{images}.gz"
        broken = bytearray(path.read_bytes())
        broken[500:600] = bytes(100)
        path.write_bytes(broken)
        return "cannot be unpacked"
    if how == "not gzip":
        (folder / f"{images}.gz").write_bytes(content[images])
        return "cannot be unpacked"
    if how == "truncated":
        put(images, content[images][:-1])
        return "its header promises 23,536"
    if how == "too long":
        put(images, content[images] + b"x")
        return "its header promises"
    if how == "header only":
        put(images, content[images][:9])
        return "its header promises more"
    if how == "empty":
        put(images, b"")
        return "begins with nothing"
    if how == "magic":
        put(images, b"\x89PNG" + content[images][4:])
        return "not an IDX file of images: it begins with 89504e47"
    if how == "images for labels":
        put(images, content[labels])
        put(labels, content[images])
        return "holds labels where images are wanted: are the files swapped?"
    if how == "counts":
        put(labels, content[test_labels])
        return "is t10k-labels-idx1-ubyte of mnist, not of what its name says: put the right file there"
    if how == "train and test":
        put(images, content[test_images])
        put(labels, content[test_labels])
        return "is t10k-images-idx3-ubyte of mnist, not of what its name says: put the right file there"
    if how == "a flipped bit":
        put(images, content[images][:5000] + bytes([content[images][5000] ^ 1]) + content[images][5001:])
        return "it is damaged or of another data set"
    raise AssertionError(how)


@pytest.mark.parametrize("how", [
    "missing", "truncated gzip", "corrupt gzip", "not gzip", "truncated", "too long", "header only", "empty", "magic",
    "images for labels", "counts", "train and test", "a flipped bit"])
def test_damaged_or_swapped_files_get_one_line(mnist_like, how):
    folder, content = mnist_like
    wanted = damage(folder / "mnist", content, how)
    with pytest.raises(UserError) as error:
        data.mnist(folder)
    assert wanted in str(error.value)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_another_known_set_is_named(mnist_like, monkeypatch):
    folder, _ = mnist_like
    monkeypatch.setitem(files.MD5, "fashion-mnist", files.MD5["mnist"])
    monkeypatch.setitem(files.MD5, "mnist", dict.fromkeys(IDX_FILES, "0" * 32))
    with pytest.raises(UserError, match=r"is train-images-idx3-ubyte of fashion-mnist, not.*or use --data fashion-mnist"):
        data.mnist(folder)


def write_cifar(folder, monkeypatch):
    folder.mkdir(parents=True)
    rng, sums = np.random.default_rng(0), {}
    for name in CIFAR10_FILES:
        records = rng.integers(0, 256, (10000, 3073), np.uint8)
        records[:, 0] %= 10
        (folder / name).write_bytes(records.tobytes())
        sums[name] = hashlib.md5(records.tobytes()).hexdigest()
    monkeypatch.setitem(files.MD5, "cifar10", sums)
    return records


def test_cifar10_and_its_mishaps(tmp_path, monkeypatch):
    folder = tmp_path / "cifar10" / "cifar-10-batches-bin"
    last = write_cifar(folder, monkeypatch)
    train, test = data.cifar10(tmp_path)
    assert train.images.shape == (50000, 32, 32, 3)
    assert test.labels.tolist() == last[:, 0].tolist()
    assert test.images[7, 3, 5].tolist() == [last[7, 1 + c * 1024 + 3 * 32 + 5] for c in range(3)]
    path = folder / "data_batch_3.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(UserError, match="has 30,729,995 bytes, wanted 30,730,000"):
        data.cifar10(tmp_path)
    path.write_bytes(whole[:-5] + b"aaaaa")
    with pytest.raises(UserError, match="damaged or of another data set"):
        data.cifar10(tmp_path)
    path.write_bytes((folder / "test_batch.bin").read_bytes())
    with pytest.raises(UserError, match=r"is test_batch.bin of cifar10, not of what its name says: put .* there$"):
        data.cifar10(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"data_batch_3.bin is missing: put .* from cifar-10-binary.tar.gz"):
        data.cifar10(tmp_path)


@pytest.mark.parametrize("sub", ["cifar-10-batches-py", "."])
def test_pickled_cifar10_is_answered_with_the_right_files(tmp_path, sub):
    folder = tmp_path / "cifar10" / sub
    folder.mkdir(parents=True)
    (folder / "data_batch_1").write_bytes(b"\x80\x02}q\x01.")
    with pytest.raises(UserError, match=r"get the binary version, cifar-10-binary.tar.gz"):
        data.cifar10(tmp_path)


def test_names():
    with pytest.raises(UserError, match="'mnits' is unknown: did you mean 'mnist'"):
        data.load("mnits", ".")
    with pytest.raises(UserError, match="does not ship with the package: give --data-dir"):
        data.load("mnist")
    assert data.names == ("digits", "mnist", "fashion-mnist", "cifar10")


@pytest.mark.parametrize(("name", "shape"), [
    ("mnist", (60000, 28, 28, 1)), ("fashion-mnist", (60000, 28, 28, 1)), ("cifar10", (50000, 32, 32, 3))])
def test_the_real_files(name, shape):
    if not REAL or not (Path(REAL) / name).exists():
        pytest.skip(f"the real {name} is not here: set NUMPYVIT_TEST_DATA to the folder that holds {name}/")
    train, test = data.load(name, REAL)
    assert train.images.shape == shape
    assert test.images.shape == (10000, *shape[1:])
    assert np.bincount(test.labels, minlength=10).min() > 800
