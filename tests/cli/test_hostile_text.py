"""Text from outside cannot reach the terminal as more than text.

Each command runs twice, in two folders that differ only in one name, which occurs in files,
folders, classes and configurations: once a harmless one, and once one that would clear the
screen, set the window's title, forge a line of output and reverse the reading direction.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from numpyvit import UserError
from numpyvit.cli.main import main
from numpyvit.errors import printable, say

HARMLESS = "name"
HOSTILE = "\x1b[2J\x1b]0;title\x07\n/etc/passwd: 7 (99%)\r\u202e\x9b\u2028\x7f".replace(
    "/", "\u2044"
)
CLI = Path(__file__).parent.parent.parent / "numpyvit" / "cli"
OPTIONS = ["--preset", "digits", "--image-size", "8", "--epochs", "1", "--batch-size", "4"]

COMMANDS = [
    ["predict", "{n}-run", "{n}.png", "{n}-broken.png", "{n}-missing.png"],
    ["predict", "{n}-run/model.npz", "{n}.png"],
    ["predict", "{n}.npz", "{n}.png"],
    ["predict", "{n}"],
    ["evaluate", "{n}-run"],
    ["evaluate", "{n}-missing"],
    ["evaluate", "{n}-run", "--data", "{n}.npz"],
    ["evaluate", "{n}-damaged"],
    ["compare", "{n}-run", "{n}-run"],
    ["compare", "{n}-missing"],
    ["compare", "{n}-damaged"],
    ["compare", "{n}-run", "{n}-edited"],
    ["info", "{n}-run"],
    ["info", "{n}-missing"],
    ["info", "--preset", "{n}"],
    ["info", "--recipe", "{n}"],
    ["train", "--data", "{n}-photos", "--out", "{n}-other", *OPTIONS],
    ["train", "--data", "{n}.npz"],
    ["train", "--data", "{n}"],
    ["train", "--recipe", "{n}"],
    ["train", "--{n}", "{n}"],
    ["train", "--device", "{n}"],
    ["train", "--precision", "{n}"],
    ["train", "--epochs", "{n}"],
    ["train", "--schedule", "{n}"],
    ["train", "--out", "{n}.png"],
    ["train", "--out", "{n}.png/run"],
    ["train", "--resume", "{n}-edited"],
    ["train", "--resume", "{n}-damaged"],
    ["train", "--resume", "{n}-run"],
    ["train", "--data", "mnist", "--data-dir", "{n}"],
    ["augment", "--data", "{n}-photos", "--image-size", "8", "--out", "{n}-picture.png"],
    ["augment", "--out", "{n}/{n}.png"],
    ["augment", "--out", "{n}.png"],
    ["augment", "--out", "{n}"],
    ["gradcheck", "--preset", "{n}"],
    ["gradcheck", "--device", "{n}"],
    ["download", "{n}"],
    ["{n}"],
]


def make_files(folder, name):
    """Write a run, images, and damaged and edited copies, with `name` wherever a name can be."""
    photos = folder / f"{name}-photos"
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for k, label in enumerate((f"{name}-a", f"{name}-b")):
        (photos / label).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(pixels + 9 * i + 99 * k).save(photos / label / f"{name}{i}.png")
    (photos / f"{name}-a" / f"{name}.txt").write_text("not an image")
    Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / f"{name}-broken.png").write_text("not an image")
    np.savez(folder / f"{name}.npz", **{name: pixels})
    run = folder / f"{name}-run"
    assert main(["train", "--data", str(photos), "--out", str(run), "--quiet", *OPTIONS]) == 0
    for kind in ("edited", "damaged"):
        copy = folder / f"{name}-{kind}"
        copy.mkdir()
        for file in run.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        config = json.loads((copy / "config.json").read_text())
        config["versions"] = {"numpy": name, name: name}
        if kind == "damaged":
            config["recipe"][name] = name
        (copy / "config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module", params=[HARMLESS, HOSTILE], ids=["harmless", "hostile"])
def files(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    make_files(folder, request.param)
    return request.param, folder


lines_of_harmless: dict[tuple[str, ...], tuple[int, ...]] = {}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_names_are_printed_as_text(files, command, capsys, monkeypatch):
    name, folder = files
    monkeypatch.chdir(folder)
    code = main([word.format(n=name) for word in command])
    captured = capsys.readouterr()
    for text in captured:
        assert all(c.isprintable() for c in text.replace("\n", ""))
    lines = code, *(text.count("\n") for text in captured)
    if name == HARMLESS:
        assert sum(lines[1:]) > 0
        lines_of_harmless[tuple(command)] = lines
    else:
        assert lines == lines_of_harmless[tuple(command)]
        assert any("\\x" in text for text in captured) or "info" in command


@given(st.text())
def test_what_is_printable_is_one_line_and_loses_nothing(text):
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    if "\\" not in text:
        back = re.sub(
            r"\\(?:x..|u....|U........|[ntr])",
            lambda found: found[0].encode().decode("unicode_escape"),
            shown,
        )
        assert back == text
    assert str(UserError(text)) == shown


def test_a_library_prints_its_remarks_like_the_command(capsys):
    say("a\nb\x1b[2J\udcff")
    assert capsys.readouterr().out == "a\\nb\\x1b[2J\\udcff\n"


def test_the_command_prints_in_one_way_only():
    """Every line goes through errors.say; a bare print would let a name through."""
    for page in CLI.glob("*.py"):
        assert not re.search(r"(?<![\w.])print\b(?!s)(?=[(,)])|\.write\(", page.read_text()), page
