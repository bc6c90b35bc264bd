import dataclasses
import gzip
import hashlib
import http.server
import io
import os
import struct
import tarfile
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from numpyvit import UserError, data
from numpyvit.data.readers import LOADERS
from numpyvit.data.registry import IDX_FILES, KNOWN, data_folder

# A folder that contains the real files, in mnist/, fashion-mnist/ and so on.
REAL = os.environ.get("NUMPYVIT_TEST_DATA")


def checksums(content):
    return {name: (len(c), hashlib.sha256(c).hexdigest()) for name, c in content.items()}


def idx(array):
    """Return the bytes of an IDX file."""
    lengths = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes((0, 0, 8, array.ndim)) + lengths + array.tobytes()


@pytest.fixture
def mnist_like(tmp_path, monkeypatch):
    """Small files in MNIST's format, whose checksums are registered.

    Returns (the data folder, {file: bytes}).
    """
    rng = np.random.default_rng(0)
    arrays = [
        rng.integers(0, 256, (30, 28, 28), np.uint8),
        np.arange(30, dtype=np.uint8) % 10,
        rng.integers(0, 256, (20, 28, 28), np.uint8),
        np.arange(20, dtype=np.uint8) % 10,
    ]
    content = {name: idx(a) for name, a in zip(IDX_FILES, arrays, strict=True)}
    monkeypatch.setitem(
        KNOWN, "mnist", dataclasses.replace(KNOWN["mnist"], content=checksums(content))
    )
    (tmp_path / "mnist").mkdir()
    for name, c in content.items():
        (tmp_path / "mnist" / f"{name}.gz").write_bytes(gzip.compress(c))
    return tmp_path, content


def test_the_digits():
    train, test = data.digits()
    assert train.images.shape == (1438, 8, 8, 1)
    assert test.images.shape == (359, 8, 8, 1)
    counts = np.bincount(np.concatenate([train.labels, test.labels]))
    uci_counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # of their test set
    assert counts.tolist() == uci_counts
    for k in range(10):
        assert abs(np.mean(train.labels == k) - np.mean(test.labels == k)) < 0.003
    assert np.array_equal(train.mean, test.mean)
    in_train = {image.tobytes() for image in train.images}
    in_test = {image.tobytes() for image in test.images}
    assert not in_train & in_test
    assert np.array_equal(data.digits()[1].images, test.images)


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_packed_and_unpacked(mnist_like, packed):
    folder, content = mnist_like
    if not packed:
        for name, c in content.items():
            (folder / "mnist" / f"{name}.gz").unlink()
            (folder / "mnist" / name).write_bytes(c)
    train, test = data.mnist(folder)
    assert train.images.shape == (30, 28, 28, 1)
    assert test.labels.tolist() == [*range(10), *range(10)]
    assert train.images.tobytes() == content[IDX_FILES[0]][16:]
    assert np.array_equal(train.std, test.std)


def damage(folder, content, how):
    """Damage the files and return a part of the expected message."""

    def put(name, data):
        (folder / f"{name}.gz").write_bytes(gzip.compress(data))

    images, labels, test_images, test_labels = IDX_FILES
    if how == "missing":
        (folder / f"{images}.gz").unlink()
        return "there is no network in tests); or get train-images-idx3-ubyte.gz, "
    if how == "truncated gzip":
        path = folder / f"{images}.gz"
        path.write_bytes(path.read_bytes()[:-1000])
        return "cannot be unpacked"
    if how == "corrupt gzip":
        path = folder / f"{images}.gz"
        broken = bytearray(path.read_bytes())
        broken[500:600] = bytes(100)
        path.write_bytes(broken)
        return "download it again"
    if how == "not gzip":
        (folder / f"{images}.gz").write_bytes(content[images])
        return "cannot be unpacked"
    if how == "truncated":
        put(images, content[images][:-1])
        return "has 23,535 bytes with SHA-256"
    if how == "too long":
        put(images, content[images] + b"x")
        return "has more than 23,536 bytes with SHA-256"
    if how == "a decompression bomb":
        put(images, content[images] + bytes(100_000_000))
        return "has more than 23,536 bytes with SHA-256"
    if how == "empty":
        put(images, b"")
        return "has 0 bytes with SHA-256"
    if how == "images for labels":
        put(images, content[labels])
        put(labels, content[images])
        return "is train-labels-idx1-ubyte of mnist, not the file that its name says: put the right"
    if how == "train and test":
        put(images, content[test_images])
        put(labels, content[test_labels])
        return "is t10k-images-idx3-ubyte of mnist, not the file that its name says: put the right"
    if how == "a flipped bit":
        flipped = bytearray(content[images])
        flipped[5000] ^= 1
        put(images, flipped)
        return "it is damaged or belongs to another data set"
    raise AssertionError(how)


@pytest.mark.parametrize(
    "how",
    [
        "missing",
        "truncated gzip",
        "corrupt gzip",
        "not gzip",
        "truncated",
        "too long",
        "a decompression bomb",
        "empty",
        "images for labels",
        "train and test",
        "a flipped bit",
    ],
)
def test_damaged_or_swapped_files_raise_one_line(mnist_like, how):
    folder, content = mnist_like
    message = damage(folder / "mnist", content, how)
    tracemalloc.start()
    with pytest.raises(UserError) as error:
        data.mnist(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
    assert message in str(error.value)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_of_another_data_set_is_recognised(mnist_like, monkeypatch):
    folder, _ = mnist_like
    monkeypatch.setitem(KNOWN, "fashion-mnist", KNOWN["mnist"])
    other = dict.fromkeys(IDX_FILES, (1, "0" * 64))
    monkeypatch.setitem(KNOWN, "mnist", dataclasses.replace(KNOWN["mnist"], content=other))
    for name in IDX_FILES:  # unpacked, and of equal length
        packed = folder / "mnist" / f"{name}.gz"
        (folder / "mnist" / name).write_bytes(gzip.decompress(packed.read_bytes())[:2])
        packed.unlink()
    monkeypatch.setitem(
        KNOWN,
        "fashion-mnist",
        dataclasses.replace(
            KNOWN["mnist"],
            content=checksums({name: (folder / "mnist" / name).read_bytes() for name in IDX_FILES}),
        ),
    )
    with pytest.raises(
        UserError,
        match=r"is train-images-idx3-ubyte of fashion-mnist, not.*or load 'fashion-mnist' instead",
    ):
        data.mnist(folder)


def cifar_like(name, monkeypatch, n=7):
    """Register small files in CIFAR's format.

    Returns ({file: bytes}, the bytes of their archive).
    """
    rng = np.random.default_rng(0)
    labels = {"cifar10": 1, "cifar100": 2}[name]
    content = {}
    for file in KNOWN[name].content:
        records = rng.integers(0, 256, (n, labels + 3072), np.uint8)
        records[:, :labels] %= 10
        content[file] = records.tobytes()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for file, c in {"readme.html": b"hello", **content}.items():
            member = tarfile.TarInfo(f"{KNOWN[name].folder}/{file}")
            member.size = len(c)
            tar.addfile(member, io.BytesIO(c))
    remote = next(iter(KNOWN[name].remote))
    register(
        name,
        monkeypatch,
        content=checksums(content),
        remote=checksums({remote: archive.getvalue()}),
    )
    return content, archive.getvalue()


def register(name, monkeypatch, **changes):
    monkeypatch.setitem(KNOWN, name, dataclasses.replace(KNOWN[name], **changes))


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("form", ["archive", "folder", "loose"])
def test_cifar_as_an_archive_a_folder_or_loose_files(tmp_path, monkeypatch, name, form):
    content, archive = cifar_like(name, monkeypatch)
    folder = tmp_path / name / (KNOWN[name].folder if form == "folder" else "")
    folder.mkdir(parents=True)
    if form == "archive":
        (folder / next(iter(KNOWN[name].remote))).write_bytes(archive)
    else:
        for file, c in content.items():
            (folder / file).write_bytes(c)
    train, test = data.load(name, tmp_path)
    assert train.images.shape == (7 * (len(content) - 1), 32, 32, 3)
    assert len(train.classes) == len(set(train.classes)) == {"cifar10": 10, "cifar100": 100}[name]
    n = {"cifar10": 1, "cifar100": 2}[name]  # labels of an image
    last = list(content.values())[-1]
    record = last[3 * (3072 + n) : 4 * (3072 + n)]
    assert test.labels[3] == record[n - 1]  # the fine label is the second
    assert test.images[3, 5, 7].tolist() == [record[n + c * 1024 + 5 * 32 + 7] for c in range(3)]
    first = next(iter(content.values()))
    assert train.images[0, 0, 0, 0] == first[n]
    names = [p.name for p in (tmp_path / name).rglob("*")]
    assert not any(n.endswith((".part", ".tmp")) for n in names)


def test_damaged_cifar_files(tmp_path, monkeypatch):
    content, archive = cifar_like("cifar10", monkeypatch)
    folder = tmp_path / "cifar10"
    folder.mkdir()
    for file, c in content.items():
        (folder / file).write_bytes(c)
    (folder / "data_batch_3.bin").write_bytes(content["data_batch_3.bin"][:-5])
    with pytest.raises(
        UserError, match=r"data_batch_3.bin is not cifar10's data_batch_3.bin: it has 21,506 bytes"
    ):
        data.cifar10(tmp_path)
    (folder / "data_batch_3.bin").write_bytes(content["test_batch.bin"])
    with pytest.raises(
        UserError,
        match=r"is test_batch.bin of cifar10, not the file that its name says: put.*there$",
    ):
        data.cifar10(tmp_path)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(
        UserError,
        match=r"or get cifar-10-binary.tar.gz elsewhere, .* https://www.cs.toronto.edu/.* into",
    ):
        data.cifar10(tmp_path)
    (folder / "cifar-10-binary.tar.gz").write_bytes(archive[:-1] + b"x")
    with pytest.raises(UserError, match=r"cifar-10-binary.tar.gz is not the original archive"):
        data.cifar10(tmp_path)


@pytest.mark.parametrize(
    "evil", ["../../evil.bin", "/tmp/evil.bin", "cifar-10-batches-bin/../../evil.bin"]
)
def test_an_archive_with_a_member_that_points_outside_is_refused(tmp_path, monkeypatch, evil):
    """This holds even if its checksum is right. Nothing is unpacked in any case."""
    content, _ = cifar_like("cifar10", monkeypatch)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for file, c in [
            (evil, b"evil"),
            *((f"cifar-10-batches-bin/{f}", c) for f, c in content.items()),
        ]:
            member = tarfile.TarInfo(file)
            member.size = len(c)
            tar.addfile(member, io.BytesIO(c))
    register(
        "cifar10", monkeypatch, remote=checksums({"cifar-10-binary.tar.gz": archive.getvalue()})
    )
    (tmp_path / "a" / "b" / "cifar10").mkdir(parents=True)
    (tmp_path / "a" / "b" / "cifar10" / "cifar-10-binary.tar.gz").write_bytes(archive.getvalue())
    with pytest.raises(UserError, match="contains a file that points outside of it"):
        data.cifar10(tmp_path / "a" / "b")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["cifar-10-binary.tar.gz"]


def test_links_in_an_archive_are_not_followed(tmp_path, monkeypatch):
    content, _ = cifar_like("cifar10", monkeypatch)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for file in content:
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{file}")
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(member)
    register(
        "cifar10", monkeypatch, remote=checksums({"cifar-10-binary.tar.gz": archive.getvalue()})
    )
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "cifar-10-binary.tar.gz").write_bytes(archive.getvalue())
    with pytest.raises(UserError, match=r"is not cifar10's data_batch_1.bin: it has 0 bytes"):
        data.cifar10(tmp_path)


def test_a_data_set_is_downloaded_once(tmp_path, monkeypatch):
    _, archive = cifar_like("cifar10", monkeypatch)
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "cifar-10-binary.tar.gz").write_bytes(archive)
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=tmp_path / "host")

        def log_message(self, *args):
            requests.append(args)

    monkeypatch.setenv("NUMPYVIT_DATA", str(tmp_path / "cache"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as host:
        threading.Thread(
            target=host.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        register("cifar10", monkeypatch, hosts=(f"http://127.0.0.1:{host.server_port}/",))
        for _ in range(2):
            train, _ = data.load("cifar10")
            assert train.images.shape == (35, 32, 32, 3)
        host.shutdown()
    assert len(requests) == 1
    assert [p.name for p in (tmp_path / "cache" / "cifar10").iterdir()] == [
        "cifar-10-binary.tar.gz"
    ]


@pytest.mark.parametrize("sub", ["cifar-10-batches-py", "."])
def test_pickled_cifar10_is_refused_with_the_name_of_the_right_file(tmp_path, sub):
    folder = tmp_path / "cifar10" / sub
    folder.mkdir(parents=True)
    (folder / "data_batch_1").write_bytes(b"\x80\x02}q\x01.")
    with pytest.raises(UserError, match=r"binary version there instead, cifar-10-binary.tar.gz"):
        data.cifar10(tmp_path)


def test_the_folder_of_the_data(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMPYVIT_DATA", str(tmp_path / "env"))
    assert data_folder(tmp_path) == tmp_path
    assert data_folder() == tmp_path / "env"
    monkeypatch.delenv("NUMPYVIT_DATA")
    assert data_folder().is_absolute()
    assert "numpyvit" in data_folder().name
    with pytest.raises(
        UserError, match="is not a folder that exists: create it, or choose another data_dir"
    ):
        data.mnist(tmp_path / "none")


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match="'mnits' is unknown: did you mean 'mnist'"):
        data.load("mnits", ".")
    with pytest.raises(UserError, match=r"neither a folder nor an .npz file"):
        data.load("photos/of/nobody")
    with pytest.raises(UserError, match="'digits' is unknown: "):
        data.download("digits")
    assert data.names == ("digits", "mnist", "fashion-mnist", "cifar10", "cifar100")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mnist", (60000, 28, 28, 1)),
        ("fashion-mnist", (60000, 28, 28, 1)),
        ("cifar10", (50000, 32, 32, 3)),
        ("cifar100", (50000, 32, 32, 3)),
    ],
)
def test_the_real_files(name, shape):
    if not REAL or not (Path(REAL) / name).exists():
        pytest.skip(
            f"needs the real {name}: set NUMPYVIT_TEST_DATA to a folder that contains {name}/"
        )
    train, test = data.load(name, REAL)
    assert train.images.shape == shape
    assert test.images.shape == (10000, *shape[1:])
    K = len(test.classes)
    assert np.bincount(test.labels, minlength=K).min() > 0.8 * 10000 / K


def test_the_registry_is_complete():
    assert set(LOADERS) == set(KNOWN)
    for name, known in KNOWN.items():
        for size, sha256 in [*known.content.values(), *known.remote.values()]:
            assert size > 1000
            assert len(sha256) == 64
        assert all(host.startswith("http") and host.endswith("/") for host in known.hosts), name
        assert len(known.hosts) > 1
