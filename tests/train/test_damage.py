"""A thousand damaged copies of everything that is read: each loads right, since the damage does no harm, or gets its one
line; none takes long, none takes more than twice the memory of a good one, none writes anything."""

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
from numpyvit.storage.archives import CHECKPOINT, PREVIOUS, load_checkpoint, load_npz
from numpyvit.train.recipes import Recipe, TrainConfig
from numpyvit.train.run import Run

PER_KIND = 65  # of 16 kinds


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


def exchange(b, rng):
    i, j = rng.randrange(len(b)), rng.randrange(len(b))
    b[i : i + 20], b[j : j + 20] = b[j : j + 20], b[i : i + 20]


def numbers(b, rng):
    """Sizes in a header that promise terabytes: any digits, as text, and four bytes in the first or last hundred."""
    digits = [
        i for i, c in enumerate(b) if 48 <= c <= 57 and b[i - 1 : i] in (b"(", b" ", b"[", b":")
    ]
    if digits and rng.random() < 0.7:
        at = rng.choice(digits)
        b[at : at + 1] = rng.choice([b"9" * 12, b"-1", b"0", b"1e9"])
    else:
        at = rng.choice([rng.randrange(min(100, len(b))), max(0, len(b) - rng.randrange(1, 100))])
        b[at : at + 4] = rng.choice(
            [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0"]
        )[: len(b) - at]


DAMAGES = (flip, truncate, fill, garbage, leave_out, repeat, append, exchange, numbers)


def small_sets():
    train, test = data.digits()
    return train.take(np.arange(60)), test.take(np.arange(20))


def photograph(format, **options):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:90, :120]
    pixels = np.stack([np.sin(x / 9) * 100 + 120, np.cos(y / 7) * 90 + 100, (x + y) / 1.5], -1)
    pixels += rng.normal(0, 8, pixels.shape)
    f = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(f, format, **options)
    return f.getvalue()


def npz(savez, **arrays):
    f = io.BytesIO()
    savez(f, **arrays)
    return f.getvalue()


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """{kind: (folder, the file to damage, load() -> something to compare, whether damage that loads must be harmless)}"""
    root, found = tmp_path_factory.mktemp("kinds"), {}
    rng = np.random.default_rng(0)
    patch = pytest.MonkeyPatch()

    def sets(name, content, stored):
        sums = {file: (len(c), hashlib.sha256(c).hexdigest()) for file, c in content.items()}
        remote = {
            file: (len(c), hashlib.sha256(c).hexdigest())
            for file, c in stored.items()
            if file.endswith("tar.gz")
        }
        (root / name).mkdir(exist_ok=True)
        for file, c in stored.items():
            (root / name / file).write_bytes(c)
        return dataclasses.replace(KNOWN[name], content=sums, remote=remote or KNOWN[name].remote)

    def in_its_own_folder(name):
        (root / f"of {name}").mkdir()
        return root / f"of {name}" / name

    def pixels(of):
        return [(part.images.tobytes(), part.labels.tobytes(), part.classes) for part in of]

    idx = {
        file: b"\0\0\x08\3\0\0\0\x14\0\0\0\x1c\0\0\0\x1c" + rng.bytes(20 * 784)
        if "images" in file
        else b"\0\0\x08\1\0\0\0\x14" + bytes(range(10)) * 2
        for file in IDX_FILES
    }
    patch.setitem(
        KNOWN,
        "mnist",
        sets("mnist", idx, {f"{file}.gz": gzip.compress(c) for file, c in idx.items()}),
    )
    patch.setitem(KNOWN, "fashion-mnist", sets("fashion-mnist", idx, idx))
    cifar = {
        file: b"".join(bytes([i]) + rng.bytes(3072) for i in range(10))
        for file in KNOWN["cifar10"].content
    }
    patch.setitem(KNOWN, "cifar10", sets("cifar10", cifar, cifar))
    fine = {
        file: b"".join(bytes([0, i]) + rng.bytes(3072) for i in range(10))
        for file in KNOWN["cifar100"].content
    }
    patch.setitem(
        KNOWN, "cifar100", sets("cifar100", fine, {"cifar-100-binary.tar.gz": tar_of(fine)})
    )
    found["idx.gz"] = root / "mnist" / f"{IDX_FILES[0]}.gz", lambda: pixels(data.mnist(root)), True
    found["idx"] = (
        root / "fashion-mnist" / IDX_FILES[1],
        lambda: pixels(data.fashion_mnist(root)),
        True,
    )
    found["cifar"] = root / "cifar10" / "data_batch_2.bin", lambda: pixels(data.cifar10(root)), True
    found["tar"] = (
        root / "cifar100" / "cifar-100-binary.tar.gz",
        lambda: pixels(data.cifar100(root)),
        True,
    )

    train, _ = small_sets()
    for name, savez in (("npz", np.savez), ("packed npz", np.savez_compressed)):
        path = in_its_own_folder(f"{name}.npz")
        path.write_bytes(npz(savez, images=train.images, labels=train.labels))
        found[name] = path, functools.partial(lambda path: pixels(data.npz(path)), path), True

    config = TrainConfig(
        "digits",
        ViTConfig(8, 4, 1, 10, width=8, depth=1, heads=2, mlp_width=8),
        Recipe("digits", epochs=2, batch_size=16),
        micro_batch=8,
    )
    folder = root / "run"
    Run.start(config, folder, *small_sets()).train(workers=1, say=lambda line: None)

    def resume():
        run = Run.resume(folder, *small_sets(), lambda line: None)
        return (
            run.step,
            run.params.flat.tobytes(),
            run.optimizer.v.flat.tobytes(),
            (folder / "metrics.jsonl").read_bytes(),
        )

    def resume_config():
        # Where the data lies decides nothing: its checksum does
        return resume(), dataclasses.replace(
            Run.resume(folder, *small_sets(), lambda line: None).config, data=""
        )

    both = [
        load_npz(folder / name, "numpyvit checkpoint 1")[1]["weights"]
        for name in (CHECKPOINT, PREVIOUS)
    ]

    def one_of_both():
        weights = load_checkpoint(folder, lambda line: None)[1]["weights"]
        return any(np.array_equal(weights, one) for one in both)

    found["checkpoint"] = folder / CHECKPOINT, one_of_both, True
    found["config.json"] = folder / "config.json", resume_config, True
    found["metrics.jsonl"] = folder / "metrics.jsonl", resume, True
    model_file = in_its_own_folder("model.npz")
    Classifier.of(ViT(config.model), ViT(config.model).init(0), train).save(model_file)

    def classifier():
        c = Classifier.load(model_file)
        return (
            c.params.flat.tobytes(),
            c.mean.tobytes(),
            c.std.tobytes(),
            c.classes,
            c.config,
            c.background,
        )

    found["model"] = model_file, classifier, True
    for ending, format, options in (
        ("jpg", "JPEG", {}),
        ("png", "PNG", {}),
        ("gif", "GIF", {}),
        ("tiff", "TIFF", {}),
        ("webp", "WEBP", {}),
        ("bmp", "BMP", {}),
    ):
        path = in_its_own_folder(f"photograph.{ending}")
        path.write_bytes(photograph(format, **options))
        # Most of these have no checksum: what is seen may be another picture, but it is one
        found[ending] = (
            path,
            functools.partial(lambda path: data.read_picture(path, (32, 32), 3)[0].shape, path),
            False,
        )
    yield found
    patch.undo()


def tar_of(content):
    import tarfile

    f = io.BytesIO()
    with tarfile.open(fileobj=f, mode="w:gz") as tar:
        for file, c in content.items():
            member = tarfile.TarInfo(f"cifar-100-binary/{file}")
            member.size = len(c)
            tar.addfile(member, io.BytesIO(c))
    return f.getvalue()


def measured(load):
    """What it gives, or the line that it raises; the peak of memory; the seconds."""
    tracemalloc.start()
    began = time.perf_counter()
    try:
        found, line = load(), None
    except UserError as error:
        found, line = None, str(error)
    seconds, peak = time.perf_counter() - began, tracemalloc.get_traced_memory()[1]
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
    "jpg",
    "png",
    "gif",
    "tiff",
    "webp",
    "bmp",
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
        assert peak <= 2 * memory + 100_000, f"{note}: {peak:,} bytes, a good one takes {memory:,}"
        assert seconds < 5, note
        for p in set(path.parent.rglob("*")) - set(before):
            assert p.name == "checkpoint.damaged.npz", note  # put aside
            p.unlink()
        for p, content in before.items():
            if p.name != path.name and kind != "checkpoint":
                assert p.read_bytes() == content, note
            p.write_bytes(content)
    if must_be_right and kind != "checkpoint":  # that falls back to the one before
        assert lines > PER_KIND / 2, f"{kind}: only {lines} of {PER_KIND} were refused"


def zipped(*members, **options):
    """A zip of (name, content) pairs."""
    f = io.BytesIO()
    with zipfile.ZipFile(f, "w") as archive:
        for name, content in members:
            archive.writestr(name, content, **options)
    return f.getvalue()


def npy(array):
    f = io.BytesIO()
    np.save(f, array, allow_pickle=True)
    return f.getvalue()


def lying(small):
    """A packed array of 60 MB whose entry says that it is as long as a small one, which its beginning is."""
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
        ),  # never unpacked
        (
            zipped(("/images.npy", IMAGES), ("labels.npy", LABELS)),
            "wanted arrays called images and labels",
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
            r"an array of shape \(80000000, 4, 4\) is promised, and 131 bytes are there",
        ),
        (
            zipped(("images.npy", npy(np.array([{}], object))), ("labels.npy", LABELS)),
            "unpickling can run code",
        ),
        (zipped(("images.npy", b""), ("labels.npy", LABELS)), "is damaged"),
        (zipped(("images.npy", IMAGES[:9]), ("labels.npy", LABELS)), "is damaged"),
        (zipped(("images.npy", IMAGES + b"x"), ("labels.npy", LABELS)), "and 129 bytes are there"),
        (
            zipped(("images.npy", IMAGES), ("labels.npy", LABELS)).replace(b"labels", b"images"),
            "two arrays have one name",
        ),
        (lying(IMAGES), "Bad CRC-32 for file 'images.npy'"),
        (zipped(), "holds nothing"),
        (b"", "is damaged"),
        (b"PK\x05\x06" + bytes(18), "holds nothing"),
        (LABELS, "is damaged"),
    ],
)
def test_tricks_with_zip(tmp_path, content, message):
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


def test_json_that_is_no_longer_a_run_is_refused(kinds):
    """Numbers that are too large for anything, in each field of config.json."""
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
def test_what_pillow_takes_for_damaged_pictures(tmp_path):
    """Its decoders' memory, which tracemalloc does not see: of a process that reads a good picture of each kind, and of one
    that then reads hundreds of damaged ones, mostly at their beginnings, where their sizes are."""
    script = """
import random, resource, sys
sys.path.insert(0, sys.argv[2])
import test_damage as t
from numpyvit import UserError, data
kinds = {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "tiff": "TIFF", "webp": "WEBP", "bmp": "BMP"}
for ending, format in kinds.items():
    open(f"{sys.argv[1]}/x.{ending}", "wb").write(t.photograph(format))
    data.read_picture(f"{sys.argv[1]}/x.{ending}", (32, 32), 3)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
for ending, format in kinds.items():
    good = t.photograph(format)
    for i in range(100):
        rng, head = random.Random(i), bytearray(good[:60] if i % 2 else good)
        t.DAMAGES[i % len(t.DAMAGES)](head, rng)
        open(f"{sys.argv[1]}/x.{ending}", "wb").write(head + (good[60:] if i % 2 else b""))
        try:
            data.read_picture(f"{sys.argv[1]}/x.{ending}", (32, 32), 3)
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
