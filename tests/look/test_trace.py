"""The recorder sees every array, changes none, and gives each its formula."""

import json
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings

from numpyvit import Classifier, UserError, ViT, ViTConfig
from numpyvit.backend.ops import textbook
from numpyvit.gradcheck import noisy
from numpyvit.layers.positions import sinusoidal
from numpyvit.layers.rotary import rotation_table
from numpyvit.look.evaluate import evaluate
from numpyvit.look.statements import PACKAGE, recorded_files
from numpyvit.look.trace import (
    Tracer,
    backward_pass,
    forward_pass,
    plain_model,
    trace,
)
from numpyvit.testing import close, normal, seeds, vit_configs

TINY = ViTConfig(6, 3, 1, 3, width=8, depth=2, heads=2, mlp_width=4, positions="rotary")


def make(config, seed=0, dtype=np.float32):
    """Return a model, noisy weights and an image (H, W, C)."""
    model = ViT(config)
    image = normal((*config.image, config.channels), seed, dtype)
    return model, noisy(model, seed).astype(dtype), image


@settings(max_examples=10)
@given(vit_configs(), seeds)
def test_the_recorder_changes_no_bit(config, seed):
    model, params, image = make(config, seed)
    plain, weights = plain_model(model, params)
    grads = weights.zeros_like()
    before = weights.flat.tobytes(), image.tobytes()
    with textbook():
        logits, loss, cache = forward_pass(plain, weights, image, config.classes - 1)
        dimages = backward_pass(plain, cache, grads)
    for with_formulas in (False, True):
        found = trace(model, params, image, config.classes - 1, with_formulas)
        assert found.logits.tobytes() == logits.tobytes()
        assert found.loss == loss
        assert found.grads.flat.tobytes() == grads.flat.tobytes()
        assert found.dimages.tobytes() == dimages.tobytes()
    assert (weights.flat.tobytes(), image.tobytes()) == before


@settings(max_examples=10)
@given(vit_configs(), seeds)
def test_every_formula_gives_the_recorded_value(config, seed):
    model, params, image = make(config, seed, np.float64)
    steps = trace(model, params, image, 0, with_formulas=True).steps
    values = [step.value for step in steps]
    for n, step in enumerate(steps):
        if step.formula is None:  # only what comes from outside, or from a constant table
            assert step.weight or step.variable in ("images", "rotation", "table", "targets", "t")
            continue
        tree = json.loads(json.dumps(step.formula))
        assert used_steps(tree) <= set(range(n))
        found = evaluate(tree, values)
        assert found.shape == step.value.shape
        assert close(found, step.value), (n, step.layer, step.function, step.source)


def used_steps(tree):
    """Return the numbers of the steps in a formula."""
    if tree["op"] == "step":
        return {tree["step"]}
    inner = [tree[key] for key in ("arg", "base", "value") if isinstance(tree.get(key), dict)]
    return set().union(*map(used_steps, inner + tree.get("args", [])))


@settings(max_examples=10)
@given(vit_configs(), seeds)
def test_nothing_changes_that_the_recorder_does_not_notice(config, seed):
    """After each line, every array of the function is what its latest step recorded."""

    class Strict(Tracer):
        def finish_line(self, frame, result=None):
            super().finish_line(frame, result)
            for name, x in frame.f_locals.items():
                if isinstance(x, np.ndarray):
                    latest = self.steps[self.running[-1].known[name]]
                    same = latest.value.tobytes() == x.tobytes()
                    if not (same and latest.variable == name):
                        unnoticed.append((frame.f_code.co_name, frame.f_lineno, name))

    unnoticed = []
    model, params, image = make(config, seed)
    plain, weights = plain_model(model, params)
    recorder = Strict(plain, weights)
    with textbook(), recorder.recording():
        _, _, cache = forward_pass(plain, weights, image, 0)
        backward_pass(plain, cache, weights.zeros_like())
    assert unnoticed == []
    assert len(recorder.steps) > 50


def structure(found):
    return [(s.layer, s.function, s.variable, s.file, s.line, s.value.shape) for s in found.steps]


@settings(max_examples=10)
@given(vit_configs(), seeds)
def test_the_steps_are_the_same_for_every_image(config, seed):
    """And they do not depend on the tables that an earlier run has put into a cache."""
    model, params, image = make(config, seed)
    rotation_table.cache_clear()
    sinusoidal.cache_clear()
    cold = trace(model, params, image, 0)
    warm = trace(model, params, image + 1, config.classes - 1, with_formulas=True)
    wide = trace(model, params.astype(np.float64), image.astype(np.float64), 0)
    assert structure(cold) == structure(warm) == structure(wide)
    assert cold.forward == warm.forward == wide.forward


def test_the_steps_of_the_packaged_model():
    classifier = Classifier.mnist()
    image = normal((28, 28, 1), 0, np.float32)
    found = trace(classifier.model, classifier.params, image, 3)
    assert {step.weight for step in found.steps} - {None} == set(classifier.params)
    assert found.steps[0].variable == "images"
    assert np.array_equal(found.steps[0].value[0], image)
    assert any(np.array_equal(s.value, found.logits) for s in found.steps[: found.forward])
    assert np.array_equal(found.steps[-1].value, found.dimages)
    layers = {step.layer for step in found.steps}
    assert {"", "embed", "blocks.1.attention", "blocks.2.mlp.gelu", "head.out"} <= layers
    for step in found.steps[::7]:
        lines = (PACKAGE / step.file).read_text("utf-8").splitlines()
        line = lines[step.line - 1].strip()
        assert step.source.startswith(line) if step.source else line.startswith(("def", "@"))


def test_every_weight_is_recognised_even_if_two_are_equal():
    """New biases are all zero: they must not be taken for each other."""
    model = ViT(TINY)
    found = trace(model, model.init(), normal((6, 6, 1), 0, np.float32), 0, with_formulas=True)
    weights = [step for step in found.steps if step.weight]
    assert {step.weight for step in weights} == set(model.params)
    first = {step.weight: step for step in reversed(weights)}
    assert all(step.formula is None for step in first.values())


def test_the_files_of_the_layers_are_recorded():
    names = {path.rpartition("numpyvit")[2] for path in recorded_files()}
    assert {"/layers/linear.py", "/layers/rotary.py", "/vit.py", "/losses.py"} <= {
        name.replace("\\", "/") for name in names
    }


def test_another_trace_function_is_paused_and_set_again():
    events = []

    def other(frame, event, arg):
        events.append(event)

    before = sys.gettrace()
    model, params, image = make(TINY)
    sys.settrace(other)
    try:
        with textbook(), Tracer(model, params).recording():
            events.clear()
            model.head.out.w  # noqa: B018
            assert events == []
        assert sys.gettrace() is other
        with pytest.raises(UserError):
            trace(model, params, image[:3], 0)
        assert sys.gettrace() is other
    finally:
        sys.settrace(before)


def test_other_threads_are_not_recorded():
    model, params, image = make(TINY)
    plain, weights = plain_model(model, params)
    recorder = Tracer(plain, weights)
    with recorder.recording():
        thread = threading.Thread(target=forward_pass, args=(plain, weights, image, 0))
        thread.start()
        thread.join()
    assert recorder.steps == []


def test_an_image_or_a_label_that_does_not_fit_is_refused():
    model, params, image = make(TINY)
    with pytest.raises(UserError, match="shape"):
        trace(model, params, image[:3], 0)
    with pytest.raises(UserError, match="labels go from 3"):
        trace(model, params, image, 3)


def test_memory_that_is_reserved_is_recorded_as_zeros(monkeypatch):
    """And not as what happened to be there."""

    def full_of_nan(x):
        return np.full(x.shape, np.nan, x.dtype)

    monkeypatch.setattr(np, "empty_like", full_of_nan)
    found = trace(*make(TINY), 0)
    reserved = [step for step in found.steps if "empty_like" in step.source]
    assert reserved
    assert not any(step.value.any() for step in reserved)
