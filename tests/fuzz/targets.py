"""Good files of every kind that the program reads, and the commands that read them.

A target is a function (folder, rng). It puts a changed copy of a good file into the empty
folder and returns the arguments of the command line that read it.
"""

import contextlib
import dataclasses
import gzip
import hashlib
import io
import os
import shutil
import socket
import struct
import tarfile
from pathlib import Path

import mutations as m
import numpy as np
from PIL import Image

from numpyvit import Classifier, ViT, ViTConfig, data
from numpyvit.data.registry import IDX_FILES, KNOWN
from numpyvit.train.config import TrainConfig
from numpyvit.train.loop import train
from numpyvit.train.recipe import Recipe
from numpyvit.train.run import Run

MODEL = ViTConfig(8, 4, 1, 10, width=8, depth=2, heads=2, mlp_width=8)
WEIGHTS = {
    "model": 18,
    "checkpoint": 12,
    "config": 10,
    "metrics": 8,
    "npz": 18,
    "picture": 24,
    "folder": 5,
    "known": 5,
    "tricks": 5,
    "good": 1,
}  # how often each target is drawn
RECIPE = ["--epochs", "1", "--batch-size", "16", "--workers", "1"]


def make_good_files(root: Path) -> None:
    """Write the good files into `root`, and register small data sets under known names."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 8, 8), np.uint8), np.arange(40) % 10
    np.savez(
        root / "mine.npz", images=images, labels=labels, classes=[f"class {k}" for k in range(10)]
    )
    np.savez_compressed(
        root / "packed.npz", x_train=images, y_train=labels, x_test=images, y_test=labels
    )
    sets = data.npz(root / "mine.npz")
    model = ViT(MODEL)
    Classifier.of(model, model.init(0), sets[0]).save(root / "model.npz")
    config = TrainConfig(
        str(root / "mine.npz"), MODEL, Recipe("digits", epochs=2, batch_size=16), micro_batch=8
    )

    def stop(line):
        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        train(Run.start(config, root / "run", *sets), workers=1, say=stop)
    (root / "pictures").mkdir()
    make_pictures(root / "pictures")
    write_known_sets(root / "known", rng)


def make_pictures(folder: Path) -> None:
    """Write images in all formats and modes that Pillow can write."""
    y, x = np.mgrid[:60, :80]
    pixels = np.stack([np.sin(x / 9) * 100 + 120, np.cos(y / 7) * 90 + 100, (x + y) / 1.5], -1)
    rgb = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    grey = rgb.convert("L")
    deep = Image.fromarray(np.asarray(grey, np.uint16) * 257)
    alpha = rgb.convert("RGBA")
    alpha.putalpha(grey)
    several = {"save_all": True, "append_images": [rgb.rotate(90), rgb]}
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds: list[tuple[str, Image.Image, dict]] = [
        ("png", rgb, {}),
        ("png", grey, {}),
        ("png", deep, {}),
        ("png", alpha, {}),
        ("png", rgb.convert("P"), {}),
        ("png", rgb, several),
        ("png", grey.convert("1"), {}),
        ("jpg", rgb, {"exif": exif}),
        ("jpg", grey, {"progressive": True}),
        ("jpg", rgb.convert("CMYK"), {}),
        ("gif", rgb.convert("P"), several),
        ("gif", grey, {}),
        ("tiff", rgb, {}),
        ("tiff", grey, several),
        ("tiff", rgb, {"compression": "tiff_lzw"}),
        ("tiff", deep, {"compression": "tiff_adobe_deflate"}),
        ("tiff", rgb, {"compression": "jpeg"}),
        ("tiff", grey.convert("1"), {"compression": "group4"}),
        ("tiff", rgb, {"compression": "packbits"}),
        ("webp", rgb, several),
        ("webp", alpha, {"lossless": True}),
        ("bmp", rgb, {}),
        ("bmp", rgb.convert("P"), {}),
        ("ppm", rgb, {}),
        ("tga", rgb, {"compression": "tga_rle"}),
        ("pcx", rgb, {}),
        ("sgi", rgb, {}),
        ("xbm", grey.convert("1"), {}),
        ("jp2", rgb, {}),
        ("avif", rgb, {}),
        ("mpo", rgb, several),
        ("dib", rgb, {}),
    ]
    for i, (extension, image, options) in enumerate(kinds):
        if f".{extension}" in Image.registered_extensions():
            image.save(folder / f"{i}.{extension}", **options)
    (folder / "plain.ppm").write_bytes(b"P3 60 20 255 " + b"10 200 30 " * 1200)
    (folder / "image.qoi").write_bytes(
        b"qoif" + struct.pack(">2I2B", 60, 20, 3, 0) + b"\xc0" * 1200 + b"\0" * 7 + b"\1"
    )
    (folder / "image.ras").write_bytes(
        struct.pack(">8I", 0x59A66A95, 60, 20, 8, 1200, 1, 0, 0) + bytes(1200)
    )


def write_known_sets(root: Path, rng: np.random.Generator) -> None:
    """Write small data sets in the formats of MNIST and CIFAR, and register their checksums."""
    idx = {}
    for file in IDX_FILES:
        n = b"\0\0\0\x14"
        if "images" in file:
            idx[file] = b"\0\0\x08\3" + n + b"\0\0\0\x1c\0\0\0\x1c" + rng.bytes(20 * 784)
        else:
            idx[file] = b"\0\0\x08\1" + n + bytes(range(10)) * 2
    cifar = {
        file: b"".join(bytes([0, i]) + rng.bytes(3072) for i in range(10))
        for file in KNOWN["cifar100"].content
    }
    f = io.BytesIO()
    with tarfile.open(fileobj=f, mode="w:gz") as tar:
        for file, content in cifar.items():
            member = tarfile.TarInfo(f"cifar-100-binary/{file}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    packed = {f"{file}.gz": gzip.compress(content) for file, content in idx.items()}
    archive = {"cifar-100-binary.tar.gz": f.getvalue()}
    for name, files, stored in (
        ("mnist", idx, packed),
        ("fashion-mnist", idx, idx),
        ("cifar100", cifar, archive),
    ):
        (root / name).mkdir(parents=True)
        for file, raw in stored.items():
            (root / name / file).write_bytes(raw)
        KNOWN[name] = dataclasses.replace(
            KNOWN[name],
            content=sums(files),
            remote=sums(stored) if name != "fashion-mnist" else {},
        )


def sums(files):
    """Return {name: (length, SHA-256)} of {name: bytes}."""
    return {name: (len(raw), hashlib.sha256(raw).hexdigest()) for name, raw in files.items()}


def replace_by_trick(path, rng):
    """Put something else than an ordinary file in the place of `path`; return what."""
    path.unlink(missing_ok=True)
    how = rng.choice(
        ["pipe", "folder", "socket", "zero", "null", "loop", "dangling", "empty", "sparse"]
    )
    if how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    elif how == "socket":
        short = os.getcwd()
        os.chdir(path.parent)  # the path of a socket must be short
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(path.name)
        os.chdir(short)
    elif how in ("zero", "null"):
        path.symlink_to(f"/dev/{how}")
    elif how == "loop":
        path.symlink_to(path.name)
    elif how == "dangling":
        path.symlink_to("nothing")
    else:
        path.touch()
        if how == "sparse":
            os.truncate(path, 10 << 30)
    return how


class Targets:
    """All targets; `draw` chooses one of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        make_good_files(root)
        self.good_pictures = sorted((root / "pictures").iterdir())

    def draw(self, folder, rng):
        """Return (name, arguments) of an attempt in `folder`."""
        name = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        return name, getattr(self, name)(folder, rng)

    def model(self, folder, rng):
        file = folder / "model.npz"
        file.write_bytes(m.change_npz((self.root / "model.npz").read_bytes(), rng))
        return ["predict", str(file), str(self.good_pictures[0])]

    def run_with(self, folder, name, change, rng):
        shutil.copytree(self.root / "run", folder / "run")
        file = folder / "run" / name
        file.write_bytes(change(file.read_bytes(), rng))
        return ["train", "--resume", str(folder / "run"), "--workers", "1"]

    def checkpoint(self, folder, rng):
        arguments = self.run_with(folder, "checkpoint.npz", m.change_npz, rng)
        if rng.random() < 0.3:
            file = folder / "run" / "checkpoint.previous.npz"
            file.write_bytes(m.change_npz(file.read_bytes(), rng))
        return arguments

    def config(self, folder, rng):
        return self.run_with(
            folder, "config.json", m.change_json if rng.random() < 0.9 else m.change_bytes, rng
        )

    def metrics(self, folder, rng):
        return self.run_with(folder, "metrics.jsonl", m.change_lines, rng)

    def npz(self, folder, rng):
        good = rng.choice(["mine.npz", "packed.npz"])
        file = folder / "mine.npz"
        file.write_bytes(m.change_npz((self.root / good).read_bytes(), rng))
        if rng.random() < 0.1:
            return ["train", "--data", str(file), "--out", str(folder / "run"), *RECIPE]
        return ["augment", "--data", str(file), "--out", str(folder / "out.png")]

    def picture(self, folder, rng):
        good = rng.choice(self.good_pictures)
        file = folder / good.name
        file.write_bytes(m.change_picture(good.read_bytes(), rng))
        model = [] if rng.random() < 0.5 else [str(self.root / "model.npz")]
        return ["predict", *model, str(file)]

    def folder(self, folder, rng):
        names = ["cat", "dog"]
        if rng.random() < 0.3:
            names[0] = rng.choice(["a\x1b[2J", "\u202eb", "a\nb", "é", "a" * 200, "train", "%s"])
        for name in names:
            (folder / "mine" / name).mkdir(parents=True)
            for i in range(3):
                good = rng.choice(self.good_pictures)
                file = (
                    folder / "mine" / name / f"{i}{rng.choice(['', chr(27), chr(10)])}{good.suffix}"
                )
                changed = rng.random() < 0.3
                file.write_bytes(
                    m.change_picture(good.read_bytes(), rng) if changed else good.read_bytes()
                )
                if rng.random() < 0.1:
                    replace_by_trick(file, rng)
        return ["augment", "--data", str(folder / "mine"), "--out", str(folder / "out.png")]

    def known(self, folder, rng):
        shutil.copytree(self.root / "known", folder / "known")
        name = rng.choice(["mnist", "fashion-mnist", "cifar100"])
        file = rng.choice(sorted((folder / "known" / name).iterdir()))
        raw = file.read_bytes()
        if raw[:2] == b"\x1f\x8b" and rng.random() < 0.5:
            raw = gzip.compress(
                m.change_bytes(gzip.decompress(raw), rng) + bytes(rng.choice([0, 100_000_000])), 1
            )
        else:
            raw = m.change_bytes(raw, rng)
        file.write_bytes(raw)
        return [
            "augment",
            "--data",
            name,
            "--data-dir",
            str(folder / "known"),
            "--out",
            str(folder / "out.png"),
        ]

    def tricks(self, folder, rng):
        shutil.copytree(self.root / "run", folder / "run")
        what = rng.choice(
            [
                "config.json",
                "metrics.jsonl",
                "checkpoint.npz",
                "checkpoint.previous.npz",
                "model.npz",
                "x.png",
                "x.npz",
                "x.tif",
            ]
        )
        replace_by_trick(folder / "run" / what, rng)
        run = str(folder / "run")
        if what == "x.npz":
            return ["train", "--data", f"{run}/x.npz", "--out", str(folder / "out"), *RECIPE]
        if what.startswith("x."):
            return ["predict", f"{run}/{what}"]
        commands = [
            ["train", "--resume", run, "--workers", "1"],
            ["evaluate", run],
            ["compare", run, run],
            ["predict", run, str(self.good_pictures[0])],
        ]
        return rng.choice(commands)

    def good(self, folder, rng):
        return rng.choice(
            [
                ["predict", str(self.root / "model.npz"), *map(str, self.good_pictures)],
                ["evaluate", str(self.root / "run")],
                [
                    "augment",
                    "--data",
                    "mnist",
                    "--data-dir",
                    str(self.root / "known"),
                    "--out",
                    str(folder / "o.png"),
                ],
            ]
        )
