"""The checks that `numpyvit gradcheck` runs, and its exit code and output."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from standin import strict

from numpyvit import ViTConfig
from numpyvit.backend import kernels
from numpyvit.cli.main import main
from numpyvit.gradcheck import SHARP, suite
from numpyvit.gradcheck.suite import layer_checks, model_checks
from numpyvit.layers import softmax
from numpyvit.layers.positions import LearnedPositions
from numpyvit.presets import presets
from numpyvit.testing import seeds


@pytest.mark.parametrize("name", layer_checks())
@settings(max_examples=5)
@given(seed=seeds)
def test_every_layer_passes(name, seed):
    report = layer_checks(seed)[name]()
    assert report, f"\n{report}"
    assert report.error <= SHARP


@pytest.mark.parametrize("name", model_checks())
def test_models_pass_in_every_option(name):
    report = model_checks(len(name))[name]()
    assert report, f"\n{report}"
    assert report.error <= SHARP


def test_attention_reads_no_memory_that_it_has_not_written(monkeypatch):
    """Left-over values are often zeros, which may be right by chance. NaN never is."""
    empty, empty_like = np.empty, np.empty_like

    def nan(x):
        if x.dtype.kind == "f":
            x.fill(np.nan)
        return x

    monkeypatch.setattr(np, "empty", lambda *args, **options: nan(empty(*args, **options)))
    monkeypatch.setattr(
        np, "empty_like", lambda *args, **options: nan(empty_like(*args, **options))
    )
    assert np.isnan(np.empty(3)).all()
    for name, check in layer_checks().items():
        if "attention" in name:  # the others use no np.empty
            report = check()
            assert report, f"{name}\n{report}"


def test_the_command(capsys):
    assert main(["gradcheck"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert len(lines) == len(layer_checks()) + 4  # a heading, two models, the end
    assert lines[0].split() == ["gradients", "of", "error"]
    assert lines[1].split()[0] == "linear"
    assert lines[-1].endswith("all gradients are right")


def test_the_command_for_a_preset(capsys):
    assert main(["gradcheck", "--preset", "digits"]) == 0
    out, err = capsys.readouterr()
    assert err == ""  # no bar where stderr is no terminal
    assert out.splitlines()[1].startswith("digits  ")
    assert "57 more, which were compared all together, are ok" in out
    assert "3 random directions in 136,266 elements of the inputs and weights" in out
    assert main(["gradcheck", "--preset", "digit"]) == 2
    assert "did you mean 'digits'" in capsys.readouterr().err


def test_the_command_fails_if_a_gradient_is_wrong(capsys, monkeypatch):
    monkeypatch.setattr("numpyvit.gradcheck.suite.softmax_backward", lambda dy, y: dy * y * (1 - y))
    assert softmax.softmax_backward is not None
    assert main(["gradcheck"]) == 1
    out = capsys.readouterr().out
    assert "FAILED\ngradient of" in out
    assert "1 failed" in out.splitlines()[-1]


def test_the_command_finds_positions_that_are_skipped_where_tokens_are_averaged(
    capsys, monkeypatch
):
    right = LearnedPositions.backward

    def skipping(self, dy, cache, grads):
        return right(self, dy, cache, grads) if self.prefix else dy

    monkeypatch.setattr(LearnedPositions, "backward", skipping)
    monkeypatch.setattr(suite, "layer_checks", lambda **options: {})
    assert main(["gradcheck"]) == 1
    assert re.search(
        r"^model: pooling mean, positions learned.* FAILED$", capsys.readouterr().out, re.M
    )


@pytest.mark.slow  # tests/backend/test_same_on_gpu.py compares every kernel
def test_the_command_on_a_gpu_checks_its_kernels(capsys, monkeypatch):
    called = set()

    def counted(name, twin):
        return lambda *args, **options: called.add(name) or twin(*args, **options)

    monkeypatch.setattr(
        kernels, "KERNELS", {name: counted(name, twin) for name, twin in kernels.KERNELS.items()}
    )
    with strict.installed():
        assert main(["gradcheck", "--device", "cuda"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(layer_checks()) + 4
    assert f"{len(lines) - 2} checked on cuda in " in lines[-1]
    assert {name for name in kernels.KERNELS if name.endswith("_backward")} - called == set()


def test_the_command_finds_mistakes_that_only_a_gpu_has(capsys, monkeypatch):
    softmax_right, layernorm_right = (
        kernels.KERNELS[f"{name}_backward"] for name in ("softmax", "layernorm")
    )
    monkeypatch.setitem(
        kernels.KERNELS, "softmax_backward", lambda dy, y: (1 + 1e-6) * softmax_right(dy, y)
    )
    monkeypatch.setitem(
        kernels.KERNELS,
        "layernorm_backward",  # not linear, which is found first
        lambda dy, cache: tuple(abs(g) for g in layernorm_right(dy, cache)),
    )
    monkeypatch.setattr(
        suite, "layer_checks", lambda **xp: {"softmax": layer_checks(**xp)["softmax"]}
    )
    monkeypatch.setattr(
        suite, "OPTIONS", {name: values[:1] for name, values in suite.OPTIONS.items()}
    )
    monkeypatch.setitem(presets, "tiny", ViTConfig(**suite.MODEL))
    # a layer, a model of the suite, and a preset
    args = ["gradcheck", "--all", "--preset", "tiny"]
    with strict.installed():
        assert main(args) == 0
        assert "\n3 checked in " in capsys.readouterr().out
        assert main([*args, "--device", "cuda"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"^softmax .* FAILED\ngradient of.*\nx .* wrong$", out, re.M)
    assert out.splitlines()[-1].endswith(": 3 failed")
