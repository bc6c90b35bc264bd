"""Nudges change what they should, and gradients that are called proven are right."""

import numpy as np
import pytest
from hypothesis import given, settings

from numpyvit import Classifier, UserError, ViT, ViTConfig
from numpyvit.backend.ops import textbook
from numpyvit.gradcheck import noisy
from numpyvit.layers.attention import attention_backward
from numpyvit.look.broken import MISTAKES, broken
from numpyvit.look.probe import IMAGE, Probe
from numpyvit.look.slopes import common_parts, digits, gradient_steps, slope_of
from numpyvit.look.trace import forward_pass, trace
from numpyvit.testing import normal, seeds, vit_configs

SMALL = ViTConfig(8, 4, 1, 3, width=8, depth=2, heads=2, mlp_width=12, positions="rotary")


def make(config=SMALL, seed=0):
    """Return a model, noisy weights and an image, float64."""
    model = ViT(config)
    return model, noisy(model, seed), normal((*config.image, config.channels), seed)


@pytest.fixture(scope="module")
def small():
    """A probe, its trace and its gradient steps."""
    model, params, image = make()
    probe = Probe(model, params, image, 1)
    return probe, probe.trace(), gradient_steps(model, params, image, 1)


def steps_of(recorded, layer, function, variable):
    return [
        n
        for n, step in enumerate(recorded.steps)
        if (step.layer, step.function, step.variable) == (layer, function, variable)
    ]


def test_a_nudge_of_nothing_changes_nothing(small):
    probe, recorded, _ = small
    with textbook():
        _, wanted, _ = forward_pass(probe.model, probe.weights, probe.image, 1)
    before = probe.weights.flat.tobytes(), probe.image.tobytes()
    assert recorded.loss == probe.loss() == wanted
    for n in range(0, recorded.forward, 7):
        step = recorded.steps[n]
        assert np.array_equal(probe.array(n), step.value)
        if step.value.dtype.kind == "f" and "rotation" not in step.variable:
            try:
                assert probe.loss(n, np.zeros(step.value.shape)) == wanted
            except UserError:
                assert step.variable in ("table", "cos", "sin", "c_rotary", "first")
    assert (probe.weights.flat.tobytes(), probe.image.tobytes()) == before


def test_the_same_nudge_at_several_places_is_the_same(small):
    """An image or a weight, and the step at which it enters."""
    probe, recorded, _ = small
    delta = normal(probe.image.shape, 5)
    wanted = probe.loss(IMAGE, delta)
    assert wanted != probe.loss()
    assert probe.loss(0, delta) == wanted
    n = next(n for n, s in enumerate(recorded.steps) if s.weight == "blocks.1.mlp.fc1.w")
    delta = normal((8, 12), 6)
    assert probe.loss(n, delta) == probe.loss("blocks.1.mlp.fc1.w", delta) != probe.loss()


def test_every_later_use_sees_a_nudge(small):
    """The residual stream goes into the norm and past it."""
    _, recorded, steps = small
    (n,) = steps_of(recorded, "blocks.1.norm1", "layernorm_forward", "x")
    found = recorded.steps[steps[n]]
    assert (found.layer, found.function, found.source) == ("blocks.1", "backward", "return dx + da")


def test_a_constant_or_a_step_that_does_not_exist_is_refused(small):
    probe, recorded, _ = small
    (n,) = steps_of(recorded, "positions", "rotation", "table")
    with pytest.raises(UserError, match="constant"):
        probe.loss(n, 1.0)
    with pytest.raises(UserError, match="no step"):
        probe.loss(recorded.forward, 0.0)
    with pytest.raises(UserError, match="no step"):
        probe.array(len(recorded.steps))
    with pytest.raises(UserError, match="64 numbers"):
        slope_of(probe, IMAGE, 64, {})
    with pytest.raises(UserError, match="no weight"):
        probe.loss("embed.x", 0.0)


@settings(max_examples=4)
@given(vit_configs(), seeds)
def test_gradients_are_those_of_other_directions_too(config, seed):
    """They are proven along one direction, and tested along another one."""
    if config.classes == 1:
        return  # the loss is 0 for any weights
    model, params, image = make(config, seed)
    probe = Probe(model, params, image, 0)
    recorded = probe.trace()
    steps = gradient_steps(model, params, image, 0)
    weights = {recorded.steps[n].weight for n in steps} - {None}
    # The gradient of a weight can be zero, as that of a norm of one feature.
    assert {name for name in recorded.grads if abs(recorded.grads[name]).max() > 1e-6} <= weights
    rng = np.random.default_rng(seed + 1)
    for n in list(steps)[::5]:
        value, gradient = recorded.steps[n].value, recorded.steps[steps[n]].value
        assert steps[n] >= recorded.forward
        direction = rng.normal(size=value.shape)
        h = 1e-5
        slope = (probe.loss(n, h * direction) - probe.loss(n, -h * direction)) / (2 * h)
        scale = np.linalg.norm(gradient) * np.linalg.norm(direction)
        assert abs(slope - np.vdot(direction, gradient)) <= 1e-6 * scale + 1e-9


def test_the_gradients_of_a_model(small):
    _, recorded, steps = small

    def found(layer, function, variable):
        n = steps_of(recorded, layer, function, variable)[-1]
        return recorded.steps[steps[n]].variable if n in steps else None

    attention = "blocks.0.attention"
    assert found("", "forward", "images") == "return"
    logits = steps_of(recorded, "", "forward", "logits")[0]
    assert recorded.steps[steps[logits]].function == "cross_entropy_backward"
    assert found(attention, "attention_forward", "q") == "dq"
    assert found(attention, "attention_forward", "v") == "dv"
    assert found(attention, "attention_forward", "s") == "return"  # of softmax_backward
    assert found(attention, "attention_forward", "p") == "dp"
    assert found("blocks.1.mlp.fc2", "linear_forward", "w") == "dw"
    assert found("blocks.1.norm1", "layernorm_forward", "gamma") == "dgamma"
    # x̂ before and after it is multiplied by rstd, in the same memory.
    before, after = steps_of(recorded, "blocks.1.norm1", "layernorm_forward", "xhat")
    assert before not in steps
    assert recorded.steps[steps[after]].variable == "g"
    # The backward pass never computes these.
    assert found("blocks.1.norm1", "layernorm_forward", "var") is None
    assert found(attention, "softmax_forward", "e") is None
    assert found("positions", "rotation", "table") is None
    matched = [n for n in steps if recorded.steps[n].source]
    assert len(matched) > 0.5 * sum(bool(s.source) for s in recorded.steps[: recorded.forward])


def test_a_model_without_gradients_has_none():
    """In a new model only the last layer has a gradient: all others are exactly zero."""
    model, _, image = make()
    params = model.init(0, np.float64)
    steps = gradient_steps(model, params, image, 0)
    recorded = trace(model, params, image, 0)
    assert {recorded.steps[n].layer for n in steps} <= {"", "head", "head.out"}
    assert steps


def random_places(probe, steps, count, rng):
    """Draw steps, weights and the image in turn."""
    for i in range(count):
        places = [sorted(steps), list(probe.weights), [IMAGE]][i % 3]
        place = places[rng.integers(len(places))]
        yield place, int(rng.integers(probe.array(place).size))


def test_fifty_numbers_agree_to_six_digits(small):
    probe, _, steps = small
    for place, index in random_places(probe, steps, 50, np.random.default_rng(0)):
        found = slope_of(probe, place, index, steps)
        assert found.digits is not None
        assert found.digits >= 6, (place, index, found)
        assert found.value == probe.array(place).flat[index]
        assert found.losses[2] == probe.loss()
        assert found.deltas[2] == 0
        assert found.deltas == sorted(found.deltas)


@pytest.mark.slow
def test_fifty_numbers_of_the_packaged_model_agree_to_six_digits():
    classifier = Classifier.mnist()
    image = normal((28, 28, 1), 0)
    probe = Probe(classifier.model, classifier.params, image, 3)
    steps = gradient_steps(classifier.model, classifier.params, image, 3)
    assert len(steps) > 300
    for place, index in random_places(probe, steps, 50, np.random.default_rng(0)):
        assert slope_of(probe, place, index, steps).digits >= 6, (place, index)


def test_a_number_without_a_gradient_has_a_slope(small):
    probe, recorded, steps = small
    n = steps_of(recorded, "norm", "layernorm_forward", "rstd")[0]
    found = slope_of(probe, n, 0, steps)
    assert found.analytic is None
    assert found.digits is None
    assert found.numeric != 0


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_backward_pass_is_seen(mistake, small):
    """In the gradient of the pixels, which comes through all layers."""
    probe, _, steps = small
    right = [slope_of(probe, IMAGE, i, steps) for i in range(0, 64, 7)]
    wrong = [slope_of(probe, IMAGE, i, steps, mistake) for i in range(0, 64, 7)]
    assert min(found.digits for found in right) >= 6
    assert np.median([found.digits for found in wrong]) < 2
    assert [found.numeric for found in wrong] == [found.numeric for found in right]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_with_its_block(mistake, small):
    probe, recorded, _ = small
    with pytest.raises(UserError), broken(mistake):
        probe.loss("no such weight")
    with broken(mistake):
        found = probe.trace()
    assert not np.allclose(found.dimages, recorded.dimages)
    assert len(found.steps) == len(recorded.steps)  # the steps keep their numbers
    assert np.array_equal(probe.trace().dimages, recorded.dimages)


def test_a_mistake_reaches_those_who_have_imported_the_function():
    """rotary.py has its own name for attention_backward."""
    from numpyvit.layers import rotary

    assert rotary.attention_backward is attention_backward
    with pytest.raises(UserError, match="mistake 'none' is unknown"), broken("none"):
        pass


def test_common_parts():
    assert common_parts("blocks.0.norm1", "blocks.0.norm1") == 3
    assert common_parts("blocks.0.norm1", "blocks.0") == 2
    assert common_parts("blocks.0.norm1", "") == 0
    assert common_parts("blocks.0", "blocks.0.norm1") == -1
    assert common_parts("blocks.10", "blocks.1") == -1
    assert common_parts("", "") == 0


def test_digits():
    assert digits(0.0, 1.0) == 16
    assert digits(1e-7, 1.0) == pytest.approx(7)
    assert digits(2.0, 1.0) == 0
    assert digits(1e-30, 1.0) == 16
    assert digits(1.0, 0.0) == 0
