"""numpyvit trace and numpyvit demo."""

import json
import re
import signal
import subprocess
import sys
import threading
import time
import types
import urllib.request

import numpy as np
import pytest
from PIL import Image

from numpyvit import Classifier, ViT, ViTConfig
from numpyvit.cli.main import main
from numpyvit.data import normalise
from numpyvit.gradcheck import noisy
from numpyvit.look.trace import trace

THREE = "examples/three.png"


@pytest.fixture
def small(tmp_path):
    """A model.npz of 6x6 images in two classes, and an image in the folder of one of them."""
    model = ViT(ViTConfig(6, 3, 1, 2, width=8, depth=2, heads=2, mlp_width=4))
    mean, std = np.array([0.5], np.float32), np.array([0.25], np.float32)
    params = noisy(model, 0).astype(np.float32)
    path = tmp_path / "model.npz"
    Classifier(model, params, mean, std, ("cat", "dog")).save(path)
    (tmp_path / "dog").mkdir()
    image = tmp_path / "dog" / "rex.png"
    pixels = np.zeros((6, 6), np.uint8)
    pixels[2:4, 1:5] = 200
    Image.fromarray(pixels).save(image)
    return str(path), str(image)


def test_trace_prints_every_array_that_is_computed(small, capsys):
    path, image = small
    assert main(["trace", path, image]) == 0
    lines = capsys.readouterr().out.splitlines()
    classifier = Classifier.load(path)
    pixels, _ = classifier.read_image(image)
    x = normalise(pixels[None], classifier.mean, classifier.std)[0]
    found = trace(classifier.model, classifier.params, x, 1)
    assert lines[0].startswith("rex.png")
    assert f"class dog, loss {found.loss:.6g}" in lines[0]
    scores = next(step for step in found.steps if step.variable == "s")
    (line,) = [line for line in lines if "s = (q @ k.swapaxes(-1, -2)) * E**-0.5" in line][:1]
    assert line.split()[0] == "s"
    assert "1 x 2 x 5 x 5" in line
    assert f"{scores.value.mean():.4g}" in line
    assert f"{scores.value.std():.4g}" in line
    forward, backward = lines.index("forward pass"), lines.index("backward pass")
    assert forward < lines.index(line) < backward < lines.index("weights")
    assert any("dq = dr @ k" in line for line in lines[backward:])
    assert not any("#" in line for line in lines)
    counts = [
        int(line.split()[-1].replace(",", "")) for line in lines[lines.index("weights") + 1 :]
    ]
    assert sum(counts[:-1]) == counts[-1] == classifier.model.count()


def test_trace_of_a_part(small, capsys):
    path, image = small
    assert main(["trace", path, image, "--layer", "blocks.1.mlp", "--label", "cat"]) == 0
    out = capsys.readouterr().out
    assert "class cat" in out
    headers = {line.split()[0] for line in out.splitlines() if re.match(r"  \S", line)}
    assert headers == {"blocks.1.mlp.fc1", "blocks.1.mlp.gelu", "blocks.1.mlp.fc2"}
    assert "weights" not in out


def test_trace_of_the_packaged_model(capsys):
    assert main(["trace", "--layer", "head"]) == 0
    assert "0 (test image): class 0" in capsys.readouterr().out
    assert main(["trace", THREE, "--layer", "head.out"]) == 0
    assert "three.png" in capsys.readouterr().out


@pytest.fixture
def page(monkeypatch):
    """A page in place of the real one."""
    module = types.ModuleType("numpyvit.look.page")
    module.page_html = lambda nonce: f"<p>{nonce}</p>"
    monkeypatch.setitem(sys.modules, "numpyvit.look.page", module)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trace", "{model}"], "trace needs an image after"),
        (["trace", "{image}", "{image}"], "one image, not 2"),
        (["trace", "{model}", "{image}", "--label", "cow"], "class 'cow' is unknown"),
        (["trace", "{model}", "{image}", "--layer", "block.0"], "did you mean 'blocks.0'?"),
        (["trace", "no such file"], "does not exist"),
        (["trace", "tests"], "holds no run"),
        (["trace", "pyproject.toml"], "cannot be read as an image"),
        (["demo", "--port", "65536"], "is not a port"),
        (["demo", "--port", "x"], "is not a port"),
        (["demo", "no such file"], "does not exist"),
    ],
)
def test_errors_are_one_line(small, page, arguments, message, capsys):
    model, image = small
    assert main([a.format(model=model, image=image) for a in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_demo_serves_until_it_is_interrupted(small, page, monkeypatch, capsys):
    opened, answers = [], []

    def visit(url):
        """Look at the page and the model, and press Ctrl-C."""
        opened.append(url)
        try:
            for path in ("/", "/model"):
                with urllib.request.urlopen(url.replace("/?", f"{path}?"), timeout=20) as answer:
                    answers.append(answer.read())
        finally:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("webbrowser.open", visit)
    before = threading.active_count()
    assert main(["demo", *small]) == 0
    printed = capsys.readouterr()
    assert opened[0] in printed.out
    assert "Traceback" not in printed.out + printed.err
    assert answers[0].startswith(b"<p>")
    model = json.loads(answers[1])
    assert model["images"] == [{"name": "rex.png", "label": 1}]
    assert model["classes"] == ["cat", "dog"]
    while threading.active_count() > before:  # the gradients are still being found
        time.sleep(0.05)


def test_demo_opens_no_browser_if_told_so(small, page, monkeypatch, capsys):
    monkeypatch.setattr("webbrowser.open", lambda url: pytest.fail("it opened a browser"))
    monkeypatch.setattr("numpyvit.look.server.Server.serve_forever", lambda self: None)
    monkeypatch.setattr("numpyvit.look.session.Session.find_gradients", lambda self: None)
    assert main(["demo", "--no-browser", small[0]]) == 0
    assert "http://127.0.0.1:" in capsys.readouterr().out


def test_the_demo_of_the_packaged_model_has_an_example_of_each_digit(page, monkeypatch, capsys):
    sessions = []
    monkeypatch.setattr("webbrowser.open", lambda url: None)
    monkeypatch.setattr(
        "numpyvit.look.server.Server.serve_forever", lambda self: sessions.append(self.session)
    )
    monkeypatch.setattr("numpyvit.look.session.Session.find_gradients", lambda self: None)
    assert main(["demo"]) == 0
    assert [example.label for example in sessions[0].examples] == list(range(10))
    assert sessions[0].accuracy(sessions[0].classifier.params) > 0.95


def test_the_other_commands_do_not_import_the_demo():
    code = (
        "import sys; from numpyvit.cli.main import make_parser; import numpyvit.train.run;"
        "make_parser(); print([m for m in sys.modules if m.startswith(('http.server',"
        "'numpyvit.look.s', 'numpyvit.look.t', 'numpyvit.look.p', 'webbrowser'))])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
