"""Image files that are no images, or that take the decoder's time, memory or stderr."""

import io
import os
import struct
import sys
import time

import numpy as np
import pytest
from PIL import Image

from numpyvit import UserError
from numpyvit.data import read_picture


def tiff(pages, size=1):
    """Return a TIFF of this many grey pages, of which none has pixels of its own."""
    data = bytearray(b"II*\0" + struct.pack("<I", 8))
    tags = {256: size, 257: size, 258: 8, 259: 1, 262: 1, 273: 4, 278: size, 279: size * size}
    length = 2 + 12 * len(tags) + 4
    for i in range(pages):
        data += struct.pack("<H", len(tags))
        for tag, value in tags.items():
            data += struct.pack("<HHII", tag, 4, 1, value)
        data += struct.pack("<I", len(data) - (length - 4) + length if i + 1 < pages else 0)
    return bytes(data)


def test_frames_are_not_counted(tmp_path):
    path = tmp_path / "pages.tiff"
    path.write_bytes(tiff(pages=50_000))
    start = time.perf_counter()
    _, remark = read_picture(path, (8, 8))
    assert remark == "1x1 fitted into 8x8, first of several frames"
    assert time.perf_counter() - start < 5  # counting takes 20 seconds
    path.write_bytes(tiff(pages=1))
    assert "frames" not in read_picture(path, (8, 8))[1]


@pytest.mark.parametrize("compression", ["group4", "tiff_lzw", "jpeg", "tiff_adobe_deflate"])
def test_decoders_print_nothing_of_their_own(tmp_path, capfd, compression):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (60, 80), np.uint8)
    image = Image.fromarray(noise).convert("1" if compression == "group4" else "L")
    f = io.BytesIO()
    image.save(f, "TIFF", compression=compression)
    good = f.getvalue()
    path = tmp_path / "x.tiff"
    refused = 0
    for _ in range(40):
        damaged = bytearray(good)
        at = rng.integers(8, len(good) - 40)
        damaged[at : at + 30] = rng.bytes(30)
        path.write_bytes(damaged)
        try:
            read_picture(path, (8, 8))
        except UserError as error:
            refused += "\n" not in str(error)
    os.write(2, b"stderr is back")
    assert capfd.readouterr().err == "stderr is back"
    assert refused


def test_stderr_may_be_closed(tmp_path):
    path = tmp_path / "x.tiff"
    Image.new("L", (9, 9)).save(path, compression="tiff_lzw")
    saved = os.dup(2)
    os.close(2)
    try:
        pixels, _ = read_picture(path, (9, 9))
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    assert not pixels.any()


def test_pillows_log_is_no_second_line(tmp_path, capfd):
    path = tmp_path / "x.tiff"
    data = tiff(pages=1)
    rows = struct.pack("<HHII", 278, 4, 1, 1)
    samples = struct.pack("<HHII", 277, 4, 1, 65535)  # in a pixel
    path.write_bytes(data.replace(rows, samples))
    with pytest.raises(UserError, match="cannot be read as an image"):
        read_picture(path, (9, 9))
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    for path in tmp_path.iterdir():
        with pytest.raises(UserError, match="does not exist or is not a file"):
            read_picture(path, (8, 8))


def test_impossible_arguments(tmp_path):
    path = tmp_path / "x.png"
    Image.new("RGB", (9, 9)).save(path)
    for channels in (2, "x", float("nan"), 0, 4):
        with pytest.raises(UserError, match="channels is"):
            read_picture(path, (8, 8), channels)
    for size in ((0, 8), (8, -1), (8,), (8, 8, 8), (8.0, 8), (8, 10**6)):
        with pytest.raises(UserError, match="size is"):
            read_picture(path, size)


def test_an_icon_with_a_huge_image_in_it_is_not_decoded(tmp_path):
    f = io.BytesIO()
    Image.new("L", (3000, 3000)).save(f, "PNG")
    png = f.getvalue()
    head = struct.pack("<3H4B2H2I", 0, 1, 1, 64, 64, 0, 0, 1, 8, len(png), 22)
    (tmp_path / "x.ico").write_bytes(head + png)
    with pytest.raises(UserError, match="its format is unknown"):
        read_picture(tmp_path / "x.ico", (8, 8))
