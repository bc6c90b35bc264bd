"""What `numpyvit gradcheck` runs, and how it ends."""

import pytest
from hypothesis import given, settings

from numpyvit.cli import main
from numpyvit.gradcheck import SHARP
from numpyvit.gradcheck.suite import layer_checks, model_checks
from numpyvit.layers import softmax
from numpyvit.testing import seeds


@pytest.mark.parametrize("name", layer_checks())
@settings(max_examples=5)
@given(seed=seeds)
def test_layers(name, seed):
    report = layer_checks(seed)[name]()
    assert report, f"\n{report}"
    assert report.error <= SHARP


@pytest.mark.parametrize("name", model_checks())
def test_models_in_every_option(name):
    report = model_checks(len(name))[name]()
    assert report, f"\n{report}"
    assert report.error <= SHARP


def test_the_command(capsys):
    assert main(["gradcheck"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert len(lines) == len(layer_checks()) + 3
    assert lines[0].split()[0] == "linear"
    assert lines[-1].endswith("all gradients are right")


def test_the_command_for_a_preset(capsys):
    assert main(["gradcheck", "--preset", "digits"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("digits  ")
    assert "3 random directions in 136,266 inputs" in out
    assert main(["gradcheck", "--preset", "digit"]) == 2
    assert "did you mean 'digits'" in capsys.readouterr().err


def test_the_command_fails_where_a_gradient_is_wrong(capsys, monkeypatch):
    monkeypatch.setattr("numpyvit.gradcheck.suite.softmax_backward", lambda dy, y: dy * y * (1 - y))
    assert softmax.softmax_backward is not None
    assert main(["gradcheck"]) == 1
    out = capsys.readouterr().out
    assert "FAILED\ngradient of" in out
    assert "1 failed" in out.splitlines()[-1]
