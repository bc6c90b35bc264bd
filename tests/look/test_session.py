"""What the demo computes is what the model computes, and pages do not disturb each other."""

import dataclasses
import json
import threading

import numpy as np
import pytest
from demo_model import CONFIG, SHAPE, classifier, images, session
from hypothesis import given, settings

from numpyvit import Classifier, UserError, ViT
from numpyvit.data import digits, normalise
from numpyvit.gradcheck import noisy
from numpyvit.layers.softmax import softmax_forward
from numpyvit.look.lens import logit_lens
from numpyvit.look.samples import LARGEST, accuracy_images, is_here
from numpyvit.look.session import PAGES, Session
from numpyvit.look.slopes import gradient_steps
from numpyvit.look.trace import trace
from numpyvit.look.twin import gradients_of
from numpyvit.look.wire import to_bytes
from numpyvit.testing import normal, seeds, vit_configs


def near(a, b):
    """Return whether two float32 results are equal but for rounding."""
    return np.allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def ready():
    """A session that has found the gradients."""
    found = session()
    found.find_gradients()
    return found


def test_the_description_can_be_sent_and_is_complete(ready):
    found = json.loads(json.dumps(ready.describe(), allow_nan=False))
    assert found["config"] == json.loads(json.dumps(CONFIG.to_dict()))
    assert (found["size"], found["channels"], found["is_drawing"]) == ([8, 12], 1, False)
    assert found["images"] == [{"name": "one", "label": 2}, {"name": "two", "label": None}]
    assert {name: tuple(w["shape"]) for name, w in found["weights"].items()} == {
        name: p.shape for name, p in ready.classifier.model.params.items()
    }
    steps = found["steps"]
    forward = [n for n, step in enumerate(steps) if not step["backward"]]
    assert forward == list(range(ready.steps.forward))
    gradients = {n: step["gradient"] for n, step in enumerate(steps) if step["gradient"]}
    assert len(gradients) > 100
    for n, gradient in gradients.items():
        assert not steps[n]["backward"]
        assert steps[gradient]["backward"]
        assert steps[n]["shape"] == steps[gradient]["shape"]


def test_gradients_are_ready_later():
    found = session()
    before = found.describe()
    assert before["gradients_ready"] is False
    assert {step["gradient"] for step in before["steps"]} == {None}
    assert (
        found.nudge("p", found.trace("p", images(1)[0], 0)["trace"], "image", 0, None)["digits"] > 6
    )


def test_a_failure_to_find_gradients_is_one_line(monkeypatch, capsys):
    found = session()

    def fail(*args):
        raise ZeroDivisionError("lines\nof text")

    monkeypatch.setattr("numpyvit.look.session.gradients_of", fail)
    found.find_gradients()
    assert found.describe()["gradients_ready"] is True
    assert capsys.readouterr().err.count("\n") == 1


@settings(max_examples=5)
@given(vit_configs(), seeds)
def test_a_small_twin_has_the_same_gradients(config, seed):
    config = dataclasses.replace(config, classes=3)
    model = ViT(config)
    params, image = noisy(model, seed), normal((*config.image, config.channels), seed)
    recorded = trace(model, params, image, 1)
    found = gradients_of(model, recorded)
    wanted = gradient_steps(model, params, image, 1)
    # In a model of one feature or one token, some gradients are zero and cannot be proven.
    assert set(wanted) <= set(found)
    for n, gradient in wanted.items():
        a, b = recorded.steps[gradient].value, recorded.steps[found[n]].value
        assert np.allclose(a, b, rtol=1e-6, atol=1e-12)


@pytest.mark.slow
def test_the_twin_of_the_packaged_model_has_the_same_gradients():
    c = Classifier.mnist()
    image = normal((28, 28, 1), 0)
    recorded = trace(c.model, c.params.astype(np.float64), image, 1)
    assert gradients_of(c.model, recorded) == gradient_steps(c.model, c.params, image, 1)


def test_predictions_and_traces_are_those_of_the_classifier(ready):
    for pixels in images(4):
        wanted = ready.classifier.predict(pixels[None])[0]
        assert near(np.array(ready.predict("p", pixels)), wanted)
        found = ready.trace("p", pixels, 1)
        assert near(np.array(found["probabilities"], np.float32), wanted)
        assert found["loss"] == pytest.approx(-np.log(wanted[1]), rel=1e-5)
        assert near(np.array(found["lens"][-1], np.float32), wanted)
        assert len(found["lens"]) == CONFIG.depth + 1
        assert len(found["rollout"]) == len(found["gradient_rollout"]) == CONFIG.patches
        assert 0 < sum(found["rollout"]) <= 1 + 1e-6
        json.dumps(found, allow_nan=False)


def test_the_arrays_are_those_of_the_trace(ready):
    pixels = images(1)[0]
    number = ready.trace("p", pixels, 1)["trace"]
    traced = ready.traced("p", number).trace
    found = ready.arrays("p", number, [0, 5], ["head.out.w"], ["embed.b"], True)
    assert set(found) == {"step.0", "step.5", "weight.head.out.w", "gradient.embed.b", "dimages"}
    assert found["step.5"] is traced.steps[5].value
    assert found["dimages"].shape == (1, *SHAPE)
    assert np.array_equal(found["weight.head.out.w"], ready.classifier.params["head.out.w"])
    assert np.array_equal(found["gradient.embed.b"], traced.grads["embed.b"])
    assert np.array_equal(found["step.0"][0], ready.normalised(pixels))
    with pytest.raises(UserError, match="no step 99999"):
        ready.arrays("p", number, [99999], [], [], False)
    with pytest.raises(UserError, match="no step -1"):
        ready.arrays("p", number, [-1], [], [], False)
    with pytest.raises(UserError, match="no weight"):
        ready.arrays("p", number, [], ["x"], [], False)


def test_old_traces_and_old_pages_are_forgotten():
    found = session()
    pixels = images(1)[0]
    numbers = [found.trace("p", pixels, 0)["trace"] for _ in range(6)]
    for number in numbers[:2]:
        with pytest.raises(UserError, match="forgotten"):
            found.traced("p", number)
    assert found.traced("p", numbers[2])
    with pytest.raises(UserError, match="forgotten"):
        found.traced("other", numbers[-1])
    for i in range(PAGES):
        found.predict(f"page {i}", pixels)
    assert len(found.pages) == PAGES
    with pytest.raises(UserError, match="forgotten"):
        found.traced("p", numbers[-1])


def test_steps_lower_the_loss_and_undo_restores_the_bits(ready):
    pixels = images(1)[0]
    start = ready.page("learn").weights.flat.tobytes()
    label = int(np.argmin(ready.predict("learn", pixels)))
    first = ready.step("learn", pixels, label, 0.05, 10)
    after_first = ready.page("learn").weights.flat.tobytes()
    assert len(first["losses"]) == len(first["probabilities"]) == 11
    assert first["losses"] == sorted(first["losses"], reverse=True)
    assert first["undo"] == 1
    assert near(np.array(first["probabilities"][-1]), np.array(ready.predict("learn", pixels)))
    assert first["losses"][0] == pytest.approx(-np.log(first["probabilities"][0][label]), rel=1e-5)
    assert len(first["moved"]) == 10
    biggest = first["moved"][0]
    weights = ready.page("learn").weights
    assert weights[biggest["weight"]].flat[biggest["index"]] == np.float32(biggest["to"])
    change = abs(weights.flat - ready.classifier.params.flat).max()
    assert abs(biggest["to"] - biggest["from"]) == pytest.approx(change)
    second = ready.step("learn", pixels, label, 0.05, 1)
    assert second["losses"][0] == first["losses"][-1]
    assert second["accuracy_before"] == first["accuracy_after"]
    assert second["undo"] == 2
    assert ready.undo("learn")["undo"] == 1
    assert ready.page("learn").weights.flat.tobytes() == after_first
    assert ready.undo("learn") == {"undo": 0, "accuracy": first["accuracy_before"]}
    assert ready.page("learn").weights.flat.tobytes() == start
    with pytest.raises(UserError, match="no step"):
        ready.undo("learn")


def test_one_step_is_plain_sgd(ready):
    pixels = images(1)[0]
    ready.step("sgd", pixels, 1, 0.5, 1)
    model, params = ready.classifier.model, ready.classifier.params
    grads = params.zeros_like()
    from numpyvit import cross_entropy

    logits, cache = model.forward(params, ready.normalised(pixels)[None])
    _, dlogits = cross_entropy(logits, np.array([1]))
    model.backward(dlogits, cache, grads)
    assert near(ready.page("sgd").weights.flat, params.flat - np.float32(0.5) * grads.flat)


def test_pages_have_their_own_weights(ready):
    pixels = images(1)[0]
    before = ready.predict("one", pixels)
    ready.step("other", pixels, 1, 0.5, 3)
    assert ready.predict("one", pixels) == before != ready.predict("other", pixels)
    ready.reset("other")
    assert ready.predict("other", pixels) == before
    assert ready.undo.__self__ is ready
    with pytest.raises(UserError):
        ready.undo("other")


def test_a_trace_keeps_the_weights_of_its_time(ready):
    pixels = images(1)[0]
    number = ready.trace("time", pixels, 1)["trace"]
    before = ready.nudge("time", number, "head.out.b", 0, None)
    ready.step("time", pixels, 1, 0.5, 1)
    assert ready.nudge("time", number, "head.out.b", 0, None) == before
    later = ready.trace("time", pixels, 1)["trace"]
    assert ready.nudge("time", later, "head.out.b", 0, None) != before


def test_a_learning_rate_that_is_too_large_changes_nothing(ready):
    pixels = images(1)[0]
    before = ready.page("large").weights.flat.tobytes()
    with pytest.raises(UserError, match="smaller learning rate"):
        ready.step("large", pixels, 0, 1e38, 10)
    assert ready.page("large").weights.flat.tobytes() == before
    with pytest.raises(UserError, match="no step"):
        ready.undo("large")


def test_a_mistake_in_a_nudge_does_not_reach_the_traces_of_other_threads(ready):
    pixels = images(1)[0]
    number = ready.trace("t", pixels, 1)["trace"]
    wanted = ready.traced("t", number).trace.grads.flat.tobytes()
    stop = threading.Event()

    def nudge():
        while not stop.is_set():
            ready.nudge("t", number, "embed.w", 0, "softmax")

    thread = threading.Thread(target=nudge)
    thread.start()
    try:
        for i in range(30):
            found = ready.trace(f"t{i % 3}", pixels, 1)["trace"]
            assert ready.traced(f"t{i % 3}", found).trace.grads.flat.tobytes() == wanted
    finally:
        stop.set()
        thread.join()


def test_without_test_images_there_is_no_accuracy():
    found = Session(classifier(), [])
    result = found.step("p", images(1)[0], 0, 0.1, 1)
    assert result["accuracy_before"] is None is result["accuracy_after"]


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_lens_after_the_last_block_is_the_model(pooling):
    config = dataclasses.replace(CONFIG, pooling=pooling, positions="learned", head_hidden=5)
    model = ViT(config)
    params = model.init(0)
    params.flat[:] = normal(params.flat.shape, 0, np.float32)
    image = normal(SHAPE, 1, np.float32)
    found = logit_lens(config, params, image)
    assert found.shape == (config.depth + 1, config.classes)
    assert near(found[-1:], model.forward(params, image[None])[0])
    assert not near(found[:1], found[-1:])


def test_the_wire_format():
    """As the safetensors library reads it."""
    arrays = {
        "a": normal((2, 3), 0),
        "b": np.float32(3) * np.ones(()),
        "c": np.zeros((0, 2)),
        "d": normal((3, 2), 1).T,
    }
    data = to_bytes(arrays)
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    header = json.loads(data[8 : 8 + length])
    body = data[8 + length :]
    end = 0
    for name, x in arrays.items():
        fields = header[name]
        start, stop = fields["data_offsets"]
        assert start == end
        end = stop
        assert fields["dtype"] == "F32"
        found = np.frombuffer(body[start:stop], "<f4").reshape(fields["shape"])
        assert np.array_equal(found, x.astype(np.float32))
    assert end == len(body)
    assert to_bytes({}) == b"\x08" + bytes(7) + b"{}      "


def test_the_packaged_model_is_tested_on_the_packaged_digits():
    packaged = Classifier.mnist()
    test = accuracy_images(packaged, None)
    assert len(test) == min(LARGEST, len(digits()[1]))
    assert test.images.shape[1:] == (28, 28, 1)
    accuracy = (packaged.predict(test.images).argmax(-1) == test.labels).mean()
    assert accuracy > 0.95
    assert accuracy_images(classifier(), None) is None


def test_no_data_set_is_downloaded(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMPYVIT_DATA", str(tmp_path))
    assert not is_here("cifar10")
    assert is_here("digits")
    assert is_here(str(tmp_path))


def test_normalised_is_what_predict_does():
    found, pixels = session(), images(1)[0]
    c = found.classifier
    assert np.array_equal(found.normalised(pixels), normalise(pixels[None], c.mean, c.std)[0])
    logits, _ = c.model.forward(c.params, found.normalised(pixels)[None])
    assert near(softmax_forward(logits)[0], c.predict(pixels[None]))
