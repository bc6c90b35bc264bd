"""The examples that need no data run, and print what they are meant to show."""

import runpy
from pathlib import Path

import numpy as np

import numpyvit as nv

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_check_your_own_layer(capsys):
    runpy.run_path(str(EXAMPLES / "check_your_own_layer.py"), run_name="__main__")
    bug, fixed, layer, properties = capsys.readouterr().out.strip().split("\n\n")
    assert [line.split()[-1] for line in bug.splitlines()[2:4]] == ["wrong", "ok"]
    assert [line.split()[-1] for line in fixed.splitlines()[2:4]] == ["ok", "ok"]
    assert [line.split()[-1] for line in layer.splitlines()[2:4]] == ["ok", "ok"]
    assert properties.splitlines()[1].startswith("all pass")


def test_own_training_loop(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main = runpy.run_path(str(EXAMPLES / "own_training_loop.py"))["main"]
    main([])
    *check, last_epoch, prediction = capsys.readouterr().out.splitlines()
    assert check[1].endswith("ok")
    assert float(last_epoch.split()[-1].rstrip("%")) > 90
    assert prediction == "an image of zero: zero"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.npz"]


def test_the_loss_of_own_training_loop_is_a_mean_over_the_batch():
    """Parts of a batch add up to the whole, as Workers need it."""
    loss = runpy.run_path(str(EXAMPLES / "own_training_loop.py"))["focal_loss"]
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(6, 4)), rng.integers(0, 4, 6)
    whole, dlogits = loss(logits, labels, count=6)
    parts = [loss(logits[i : i + 2], labels[i : i + 2], count=6) for i in (0, 2, 4)]
    np.testing.assert_allclose(sum(part for part, _ in parts), whole, rtol=1e-13)
    np.testing.assert_allclose(np.concatenate([d for _, d in parts]), dlogits, rtol=1e-13)
    cross_entropy, _ = nv.cross_entropy(logits, labels)
    np.testing.assert_allclose(loss(logits, labels, count=6, focus=0)[0], cross_entropy)
