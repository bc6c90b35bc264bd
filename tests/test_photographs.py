"""Training and prediction with images of many sizes, formats and orientations."""

import numpy as np
import pytest
from PIL import Image

from numpyvit import data
from numpyvit.cli.main import main
from numpyvit.train.metrics import read_metrics

KINDS = (
    "RGB.jpg",
    "L.png",
    "L.jpg",
    "P.png",
    "P.gif",
    "RGBA.png",
    "LA.png",
    "CMYK.jpg",
    "CMYK.tiff",
    "I;16.png",
    "I;16.tiff",
    "1.png",
    "RGB.webp",
    "RGB.bmp",
    "RGBA.webp",
    "F.tiff",
    "rotated.jpg",
)


def scene(of_class, rng):
    """Return a random image: sky over ground, the trunks of a wood, or a big sun."""
    H, W = rng.integers(24, 300, 2)
    y, x = np.mgrid[0 : 1 : H * 1j, 0 : 1 : W * 1j]
    if of_class == "horizon":
        light = np.where(y < rng.uniform(0.3, 0.7), 230, 60)
    elif of_class == "wood":
        light = np.where(np.sin(x * rng.uniform(20, 30) + rng.uniform(0, 6)) > 0, 210, 50)
    else:
        cy, cx = rng.uniform(0.4, 0.6, 2)
        light = np.where((y - cy) ** 2 + (x - cx) ** 2 < rng.uniform(0.08, 0.12), 240, 40)
    colour = rng.uniform(0.7, 1, 3)
    pixels = light[..., None] * colour + rng.normal(0, 12, (H, W, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def save(image, path, kind):
    """Save an image in the mode and format of `kind`, one of KINDS."""
    mode, _, extension = kind.partition(".")
    path = f"{path}.{extension}"
    grey = np.asarray(image.convert("L"))
    if mode == "rotated":
        # The pixels are rotated, and the EXIF data says how to undo that.
        exif = Image.Exif()
        exif[0x0112] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    elif mode == "I;16":
        Image.fromarray((grey * np.uint16(257)).astype(np.uint16)).save(path)
    elif mode == "F":
        Image.fromarray(grey.astype(np.float32) / 255).save(path)
    else:
        image.convert(mode).save(path)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for of_class in ("horizon", "wood", "sun"):
        (root / of_class).mkdir()
        for i in range(102):
            save(scene(of_class, rng), root / of_class / f"{i}", KINDS[i % len(KINDS)])
    return root


def test_from_training_to_prediction(photographs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = "--image-size 32 --epochs 10 --val 0.1 --flip --randaugment 1 --magnitude 3 --out run"
    assert main(["train", "--data", str(photographs), *options.split()]) == 0
    assert "photographs0: 222 training and 60 test images" in capsys.readouterr().out
    rows = read_metrics(tmp_path / "run")
    assert rows[-1]["test_accuracy"] > 0.8
    assert main(["evaluate", "run"]) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in ("horizon", "wood", "sun"))
    rng = np.random.default_rng(1)
    for i, kind in enumerate(KINDS):
        save(scene(("horizon", "wood", "sun")[i % 3], rng), tmp_path / f"new{i}", kind)
    assert main(["predict", "run", *sorted(str(p) for p in tmp_path.glob("new*"))]) == 0
    correct = 0
    for line in capsys.readouterr().out.splitlines():
        number = int(line.split("new")[1].split(".")[0])
        correct += line.split(": ")[1].startswith(("horizon", "wood", "sun")[number % 3])
    assert correct >= 14
    assert main(["train", "--resume", "run"]) == 0  # it is complete, but everything is read again


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_pixels(kind, tmp_path):
    image = scene("sun", np.random.default_rng(3))
    save(image, tmp_path / "x", "RGB.png")
    save(image, tmp_path / "y", kind)
    expected, _ = data.read_picture(tmp_path / "x.png", (24, 24), 1)
    found, remark = data.read_picture(next(tmp_path.glob("y.*")), (24, 24), 1)
    tolerance = 40 if kind == "1.png" else 4
    assert np.abs(found.astype(int) - expected).mean() < tolerance, remark
    assert remark.startswith(f"{image.width}x{image.height} fitted into 24x24")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_undone(orientation, tmp_path):
    upright = scene("horizon", np.random.default_rng(orientation))
    T = Image.Transpose
    as_recorded = {
        1: None,
        2: T.FLIP_LEFT_RIGHT,
        3: T.ROTATE_180,
        4: T.FLIP_TOP_BOTTOM,
        5: T.TRANSPOSE,
        6: T.ROTATE_90,
        7: T.TRANSVERSE,
        8: T.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    recorded = upright if as_recorded is None else upright.transpose(as_recorded)
    recorded.save(tmp_path / "x.jpg", exif=exif, quality=95)
    pixels, remark = data.read_picture(tmp_path / "x.jpg", (30, 30), 1)
    upright.save(tmp_path / "y.png")
    expected, _ = data.read_picture(tmp_path / "y.png", (30, 30), 1)
    assert np.abs(pixels.astype(int) - expected).mean() < 5
    assert remark.startswith(f"{upright.width}x{upright.height}")
