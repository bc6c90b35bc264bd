"""A thousand damaged copies of every kind of file that is read.

Each must load correctly, if the damage does no harm, or raise an error of one line.
None may take long, need more than twice the memory of the original, or change another
file.
"""

import dataclasses
import functools
import gzip
import hashlib
import io
import json
import random
import re
import subprocess
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from numpyvit import Classifier, UserError, ViT, ViTConfig, data
from numpyvit.data.registry import IDX_FILES, KNOWN
from numpyvit.storage.archives import load_npz
from numpyvit.train.checkpoint import CHECKPOINT, KIND, PREVIOUS, load_checkpoint
from numpyvit.train.config import TrainConfig
from numpyvit.train.loop import train as train_run
from numpyvit.train.recipe import Recipe
from numpyvit.train.run import Run

PER_KIND = 65  # damaged copies of each of 16 kinds
FORMATS = {  # of images, by file name extension
    "jpg": "JPEG",
    "png": "PNG",
    "gif": "GIF",
    "tiff": "TIFF",
    "webp": "WEBP",
    "bmp": "BMP",
}


def flip(b, rng):
    for _ in range(rng.choice([1, 1, 1, 5, 50])):
        b[rng.randrange(len(b))] ^= 1 << rng.randrange(8)


def truncate(b, rng):
    del b[rng.randrange(len(b)) :]


def fill(b, rng):
    at, value = rng.randrange(len(b)), rng.choice([0, 255, 127, 32])
    n = min(rng.choice([4, 8, 40, 400]), len(b) - at)
    b[at : at + n] = bytes([value]) * n


def garbage(b, rng):
    at = rng.randrange(len(b))
    n = min(rng.choice([4, 30, 300]), len(b) - at)
    b[at : at + n] = rng.randbytes(n)


def leave_out(b, rng):
    at = rng.randrange(len(b))
    del b[at : at + rng.choice([1, 10, 100])]


def repeat(b, rng):
    at = rng.randrange(len(b))
    b[at:at] = b[at : at + rng.choice([1, 10, 100])]


def append(b, rng):
    b += rng.choice([b"\0", b"x" * 1000, bytes(b)])


def swap(b, rng):
    i, j = rng.randrange(len(b)), rng.randrange(len(b))
    b[i : i + 20], b[j : j + 20] = b[j : j + 20], b[i : i + 20]


def change_numbers(b, rng):
    """Make a header declare a huge size, as digits or in binary."""
    before = (b"(", b" ", b"[", b":")
    digits = [i for i, c in enumerate(b) if chr(c) in "0123456789" and b[i - 1 : i] in before]
    if digits and rng.random() < 0.7:
        at = rng.choice(digits)
        b[at : at + 1] = rng.choice([b"9" * 12, b"-1", b"0", b"1e9"])
    else:
        at = rng.choice([rng.randrange(min(100, len(b))), max(0, len(b) - rng.randrange(1, 100))])
        sizes = [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0"]
        b[at : at + 4] = rng.choice(sizes)[: len(b) - at]


DAMAGES = (flip, truncate, fill, garbage, leave_out, repeat, append, swap, change_numbers)


def small_sets():
    train, test = data.digits()
    return train.take(np.arange(60)), test.take(np.arange(20))


def photograph(format):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:90, :120]
    pixels = np.stack([np.sin(x / 9) * 100 + 120, np.cos(y / 7) * 90 + 100, (x + y) / 1.5], -1)
    pixels += rng.normal(0, 8, pixels.shape)
    f = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(f, format)
    return f.getvalue()


def npz(savez, **arrays):
    f = io.BytesIO()
    savez(f, **arrays)
    return f.getvalue()


def sums(files):
    """Return {name: (length, SHA-256)} of {name: bytes}."""
    return {name: (len(c), hashlib.sha256(c).hexdigest()) for name, c in files.items()}


def tar_of(content):
    import tarfile

    f = io.BytesIO()
    with tarfile.open(fileobj=f, mode="w:gz") as tar:
        for file, c in content.items():
            member = tarfile.TarInfo(f"cifar-100-binary/{file}")
            member.size = len(c)
            tar.addfile(member, io.BytesIO(c))
    return f.getvalue()


def write_known_sets(root, patch):
    """Write small data sets in all formats, and register their checksums."""
    rng = np.random.default_rng(0)
    idx = {}
    for file in IDX_FILES:
        if "images" in file:
            idx[file] = b"\0\0\x08\3\0\0\0\x14\0\0\0\x1c\0\0\0\x1c" + rng.bytes(20 * 784)
        else:
            idx[file] = b"\0\0\x08\1\0\0\0\x14" + bytes(range(10)) * 2
    cifar10 = {
        file: b"".join(bytes([i]) + rng.bytes(3072) for i in range(10))
        for file in KNOWN["cifar10"].content
    }
    cifar100 = {
        file: b"".join(bytes([0, i]) + rng.bytes(3072) for i in range(10))
        for file in KNOWN["cifar100"].content
    }
    packed = {f"{file}.gz": gzip.compress(c) for file, c in idx.items()}
    archive = {"cifar-100-binary.tar.gz": tar_of(cifar100)}
    for name, content, stored in (
        ("mnist", idx, packed),
        ("fashion-mnist", idx, idx),
        ("cifar10", cifar10, cifar10),
        ("cifar100", cifar100, archive),
    ):
        (root / name).mkdir()
        for file, c in stored.items():
            (root / name / file).write_bytes(c)
        remote = sums(stored) if stored is archive else KNOWN[name].remote
        known = dataclasses.replace(KNOWN[name], content=sums(content), remote=remote)
        patch.setitem(KNOWN, name, known)


def contents(sets):
    return [(part.images.tobytes(), part.labels.tobytes(), part.classes) for part in sets]


def in_new_folder(root, name):
    folder = root / f"of {name}"
    folder.mkdir()
    return folder / name


def small_run(folder):
    """Train a tiny model in `folder`, and return its config."""
    config = TrainConfig(
        "digits",
        ViTConfig(8, 4, 1, 10, width=8, depth=1, heads=2, mlp_width=8),
        Recipe("digits", epochs=2, batch_size=16),
        micro_batch=8,
    )
    train_run(Run.start(config, folder, *small_sets()), workers=1, say=lambda line: None)
    return config


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """Return {kind: (path, load, must_be_right)}.

    path: the file to damage.
    load: reads it and returns something to compare.
    must_be_right: whether a damaged file that loads must give the same result.
    """
    root = tmp_path_factory.mktemp("kinds")
    patch = pytest.MonkeyPatch()
    write_known_sets(root, patch)
    found = {}

    def add(kind, path, load, must_be_right=True):
        found[kind] = path, load, must_be_right

    images, labels, *_ = IDX_FILES
    add("idx.gz", root / "mnist" / f"{images}.gz", lambda: contents(data.mnist(root)))
    add("idx", root / "fashion-mnist" / labels, lambda: contents(data.fashion_mnist(root)))
    add("cifar", root / "cifar10" / "data_batch_2.bin", lambda: contents(data.cifar10(root)))
    archive = root / "cifar100" / "cifar-100-binary.tar.gz"
    add("tar", archive, lambda: contents(data.cifar100(root)))

    train, _ = small_sets()
    for kind, savez in (("npz", np.savez), ("packed npz", np.savez_compressed)):
        path = in_new_folder(root, f"{kind}.npz")
        path.write_bytes(npz(savez, images=train.images, labels=train.labels))
        add(kind, path, functools.partial(lambda path: contents(data.npz(path)), path))

    folder = root / "run"
    config = small_run(folder)

    def resume():
        run = Run.resume(folder, *small_sets(), lambda line: None)
        return (
            run.step,
            run.params.flat.tobytes(),
            run.optimizer.v.flat.tobytes(),
            (folder / "metrics.jsonl").read_bytes(),
        )

    def resume_config():
        state = resume()
        resumed = Run.resume(folder, *small_sets(), lambda line: None).config
        # The path of the data may differ, because only its checksum must be the same.
        return state, dataclasses.replace(resumed, data="")

    both = [load_npz(folder / name, KIND)[1]["weights"] for name in (CHECKPOINT, PREVIOUS)]

    def is_one_of_both():
        weights = load_checkpoint(folder, lambda line: None)[1]["weights"]
        return any(np.array_equal(weights, one) for one in both)

    add("checkpoint", folder / CHECKPOINT, is_one_of_both)
    add("config.json", folder / "config.json", resume_config)
    add("metrics.jsonl", folder / "metrics.jsonl", resume)

    model_file = in_new_folder(root, "model.npz")
    model = ViT(config.model)
    Classifier.of(model, model.init(0), train).save(model_file)

    def load_classifier():
        c = Classifier.load(model_file)
        arrays = [a.tobytes() for a in (c.params.flat, c.mean, c.std)]
        return arrays, c.classes, c.config, c.background

    add("model", model_file, load_classifier)
    for extension, format in FORMATS.items():
        path = in_new_folder(root, f"photograph.{extension}")
        path.write_bytes(photograph(format))

        def shape(path=path):
            return data.read_picture(path, (32, 32), 3)[0].shape

        # Most of these formats have no checksum, so the pixels may be wrong.
        add(extension, path, shape, must_be_right=False)
    yield found
    patch.undo()


def measured(load):
    """Return load()'s result or None, its error or None, peak memory, and seconds."""
    tracemalloc.start()
    start = time.perf_counter()
    found = line = None
    try:
        found = load()
    except UserError as error:
        line = str(error)
    seconds = time.perf_counter() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found, line, peak, seconds


def listing(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


KINDS = (
    "idx.gz",
    "idx",
    "cifar",
    "tar",
    "npz",
    "packed npz",
    "checkpoint",
    "config.json",
    "metrics.jsonl",
    "model",
    *FORMATS,
)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_copies(kind, kinds):
    path, load, must_be_right = kinds[kind]
    load()
    good = path.read_bytes()
    right, line, memory, _ = measured(load)
    assert line is None
    before = listing(path.parent)
    lines = 0
    for i in range(PER_KIND):
        rng = random.Random(f"{kind} {i}")
        broken = bytearray(good)
        DAMAGES[i % len(DAMAGES)](broken, rng)
        path.write_bytes(broken)
        found, line, peak, seconds = measured(load)
        note = f"{kind}, damage {i} ({DAMAGES[i % len(DAMAGES)].__name__}): {line}"
        if line is None:
            assert found == right or not must_be_right, note
        else:
            lines += 1
            assert "\n" not in line, note
            assert path.name in line or path.parent.name in line, note
        assert peak <= 2 * memory + 100_000, f"{note}: {peak:,} bytes, not {memory:,}"
        assert seconds < 5, note
        for p in set(path.parent.rglob("*")) - set(before):
            assert p.name in ("checkpoint.damaged.npz", "metrics.damaged.jsonl"), note
            p.unlink()
        for p, content in before.items():
            if p.name != path.name and kind != "checkpoint":
                assert p.read_bytes() == content, note
            p.write_bytes(content)
    # A damaged checkpoint is replaced by the previous one, which has the metrics too.
    if must_be_right and kind not in ("checkpoint", "metrics.jsonl"):
        assert lines > PER_KIND / 2, f"{kind}: only {lines} of {PER_KIND} were refused"


def zipped(*members, **options):
    """Return the bytes of a zip archive of (name, content) pairs."""
    f = io.BytesIO()
    with zipfile.ZipFile(f, "w") as archive:
        for name, content in members:
            archive.writestr(name, content, **options)
    return f.getvalue()


def npy(array):
    f = io.BytesIO()
    np.save(f, array, allow_pickle=True)
    return f.getvalue()


def with_wrong_length(small):
    """Return an archive whose entry of 60 MB declares the length of `small`."""
    content = zipped(("images.npy", small + bytes(60_000_000)), compress_type=zipfile.ZIP_DEFLATED)
    length = (len(small) + 60_000_000).to_bytes(4, "little")
    assert content.count(length) == 2
    return content.replace(length, len(small).to_bytes(4, "little"))


IMAGES, LABELS = npy(np.zeros((8, 4, 4), np.uint8)), npy(np.arange(8) % 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zipped(("images.npy", IMAGES), ("labels.npy", LABELS)), None),
        (
            zipped(("images.npy", IMAGES), ("labels.npy", LABELS), ("../../evil.npy", IMAGES)),
            None,
        ),  # the last one is ignored
        (
            zipped(("/images.npy", IMAGES), ("labels.npy", LABELS)),
            "wanted arrays named images and labels",
        ),
        (
            zipped(
                ("images.npy", IMAGES.replace(b"(8, 4, 4)", b"(8000000000000, 4, 4)")),
                ("labels.npy", LABELS),
            ),
            "is damaged",
        ),
        (
            zipped(
                ("images.npy", IMAGES.replace(b"(8, 4, 4), }    ", b"(80000000, 4, 4), }")),
                ("labels.npy", LABELS),
            ),
            r"declares an array of shape \(80000000, 4, 4\), but 131 bytes of data are there",
        ),
        (
            zipped(("images.npy", npy(np.array([{}], object))), ("labels.npy", LABELS)),
            "unpickling can run code",
        ),
        (zipped(("images.npy", b""), ("labels.npy", LABELS)), "is damaged"),
        (zipped(("images.npy", IMAGES[:9]), ("labels.npy", LABELS)), "is damaged"),
        (
            zipped(("images.npy", IMAGES + b"x"), ("labels.npy", LABELS)),
            "but 129 bytes of data",
        ),
        (
            zipped(("images.npy", IMAGES), ("labels.npy", LABELS)).replace(b"labels", b"images"),
            "two arrays have the same name",
        ),
        (with_wrong_length(IMAGES), "Bad CRC-32 for file 'images.npy'"),
        (zipped(), "contains nothing"),
        (b"", "is damaged"),
        (b"PK\x05\x06" + bytes(18), "contains nothing"),
        (LABELS, "is damaged"),
    ],
)
def test_malicious_zip_archives(tmp_path, content, message):
    path = tmp_path / "in" / "mine.npz"
    path.parent.mkdir()
    path.write_bytes(content)
    found, line, peak, _ = measured(lambda: data.npz(path, 0.5))
    if message is None:
        assert found is not None
    else:
        assert re.search(message, line or "")
        assert "\n" not in line
    assert peak < 2_000_000
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "mine.npz"]


def test_a_wrong_value_in_any_field_of_a_config_is_refused(kinds):
    """Each field in turn gets values of the wrong size, sign or type."""
    path, load, _ = kinds["config.json"]
    good = path.read_text()
    fields = json.loads(good)
    for outer in ("model", "recipe", None):
        for name in fields[outer] if outer else fields:
            for value in (10**18, -1, 1e308, "x", None, [], {}, True):
                broken = json.loads(good)
                (broken[outer] if outer else broken)[name] = value
                if broken == fields:
                    continue
                path.write_text(json.dumps(broken))
                _, line, peak, seconds = measured(load)
                assert "\n" not in (line or ""), (name, value)
                assert line is not None or name in ("versions", "data"), (name, value)
                assert peak < 50_000_000, (name, value, peak)
                assert seconds < 5
    path.write_text(good)


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
def test_the_memory_of_pillows_decoders_for_damaged_images(tmp_path):
    """Measured for a process, because tracemalloc does not see this memory.

    It is measured after reading an image of each format, and again after reading
    hundreds of damaged ones. Most of the damage is near the beginning, where the sizes
    are.
    """
    script = """
import random, resource, sys
sys.path.insert(0, sys.argv[2])
import test_damage as t
from numpyvit import UserError, data
for extension, format in t.FORMATS.items():
    open(f"{sys.argv[1]}/x.{extension}", "wb").write(t.photograph(format))
    data.read_picture(f"{sys.argv[1]}/x.{extension}", (32, 32), 3)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
for extension, format in t.FORMATS.items():
    good = t.photograph(format)
    for i in range(100):
        rng, head = random.Random(i), bytearray(good[:60] if i % 2 else good)
        t.DAMAGES[i % len(t.DAMAGES)](head, rng)
        open(f"{sys.argv[1]}/x.{extension}", "wb").write(head + (good[60:] if i % 2 else b""))
        try:
            data.read_picture(f"{sys.argv[1]}/x.{extension}", (32, 32), 3)
        except UserError:
            pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    good, damaged = map(int, done.stdout.split())
    assert damaged < 2 * good, (good, damaged)
