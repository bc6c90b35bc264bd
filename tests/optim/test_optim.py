"""The optimizers against their formulas; clipping, averages and states."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit import SGD, AdamW, Buffer, Muon, Param, UserError, ViT, ViTConfig, init
from numpyvit.optim import base
from numpyvit.optim.base import Optimizer, grad_norm
from numpyvit.optim.muon import orthogonalise
from numpyvit.params import xavier
from numpyvit.testing import normal, seeds

model = ViT(ViTConfig(4, 2, 1, 3, width=4, depth=1, heads=2, mlp_width=3))
blocks = st.sampled_from([7, 32768])  # elements in a block of an update
all_kinds = pytest.mark.parametrize("make", [SGD, AdamW, Muon])


def draw(seed):
    """Draw weights and three gradients; also return 1 for weights that decay and 0 for others."""
    params = model.init(seed, np.float64)
    params.flat += normal(params.flat.shape, seed)
    gradients = [normal(params.flat.shape, seed + k + 1) for k in range(3)]
    decays = params.zeros_like()
    for name, p in params.params.items():
        decays[name] = float(p.decay)
    return params, gradients, decays.flat


def run(optimizer, params, gradients, lr):
    """Take a step with each gradient, at the learning rates lr, lr / 2, lr / 3."""
    grads = params.zeros_like()
    for k, flat in enumerate(gradients):
        grads.flat[...] = flat
        optimizer.step(params, grads, lr / (k + 1))


@given(seeds, blocks)
def test_adamw_is_its_formula(seed, block):
    params, gradients, decays = draw(seed)
    b1, b2, eps, weight_decay = 0.8, 0.95, 1e-3, 0.2
    p, m, v = params.flat.copy(), 0.0, 0.0
    for t, g in enumerate(gradients, 1):
        lr = 0.1 / t
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        update = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        p = p - lr * weight_decay * decays * p - lr * update
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "BLOCK", block)
        run(AdamW(params, (b1, b2), eps, weight_decay), params, gradients, 0.1)
    assert np.allclose(params.flat, p, rtol=1e-12, atol=1e-13)


@given(seeds, blocks)
def test_sgd_is_its_formula(seed, block):
    params, gradients, decays = draw(seed)
    p, v = params.flat.copy(), 0.0
    for t, g in enumerate(gradients, 1):
        v = 0.9 * v + g
        p = p - 0.1 / t * (v + 0.2 * decays * p)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "BLOCK", block)
        run(SGD(params, 0.9, 0.2), params, gradients, 0.1)
    assert np.allclose(params.flat, p, rtol=1e-12, atol=1e-13)


@given(seeds)
def test_muon_is_its_formula(seed):
    params, gradients, _ = draw(seed)
    start = params.copy()
    adamw = ((0.8, 0.95), 1e-3, 0.2)  # betas, eps, weight decay
    run(Muon(params, *adamw, average=0.25, momentum=0.9), params, gradients, 0.1)
    others = start.copy()  # weights that are not matrices take AdamW's step
    run(AdamW(others, *adamw), others, gradients, 0.1)
    assert np.array_equal(params.flat[params.decayed :], others.flat[params.decayed :])
    grads = params.zeros_like()
    for name, p in params.params.items():
        if not p.decay:
            continue
        w, v = start[name].copy(), 0.0
        for t, flat in enumerate(gradients, 1):
            grads.flat[...] = flat
            v = 0.9 * v + grads[name]
            direction = orthogonalise(grads[name] + 0.9 * v)
            w = w - 0.1 / t * (0.2 * math.sqrt(max(p.shape)) * direction + 0.2 * w)
        assert np.allclose(params[name], w, rtol=1e-10, atol=1e-12)


@all_kinds
def test_all_kinds_count_their_steps(make):
    params = model.init()
    optimizer = make(params)
    assert isinstance(optimizer, Optimizer)
    assert optimizer.t == 0
    for t in (1, 2):
        optimizer.step(params, params.copy(), 0.1)
        assert optimizer.t == t
    assert optimizer.state()["t"] == 2


@all_kinds
@given(seed=seeds, average=st.sampled_from([0.0, 0.5]))
def test_a_restored_state_continues_to_the_same_bits(make, seed, average):
    params, gradients, _ = draw(seed)
    other = params.copy()
    straight = make(params, average=average)
    run(straight, params, gradients, 0.1)
    first = make(other, average=average)
    run(first, other, gradients[:2], 0.1)
    second = make(other, average=average)
    second.load_state({name: array.copy() for name, array in first.state().items()})
    grads = other.zeros_like()
    grads.flat[...] = gradients[2]
    second.step(other, grads, 0.1 / 3)
    assert np.array_equal(params.flat, other.flat)
    assert np.array_equal(straight.average.flat, second.average.flat)


@pytest.mark.parametrize(
    ("make", "names"),
    [(SGD, {"v", "t"}), (AdamW, {"m", "v", "t"}), (Muon, {"m", "v", "t"})],
)
def test_a_state_has_the_moments_the_steps_and_the_average_if_there_is_one(make, names):
    params = model.init()
    assert set(make(params).state()) == names
    assert set(make(params, average=0.9).state()) == names | {"average"}


def test_a_state_of_another_optimizer_or_model_is_refused():
    params, other = model.init(), ViT(ViTConfig(4, 2, width=8)).init()
    optimizer = AdamW(params)
    with pytest.raises(UserError, match="step 't' is missing"):
        optimizer.load_state({"m": params.flat, "v": params.flat})
    with pytest.raises(UserError, match="'m' is missing"):
        optimizer.load_state(SGD(params).state())
    with pytest.raises(UserError, match="'v' is missing"):
        optimizer.load_state({"t": np.array(3), "m": params.flat + 1})
    with pytest.raises(UserError, match="'average' is missing"):
        SGD(params, average=0.9).load_state(SGD(params).state())
    assert optimizer.t == 0  # a state that is refused changes nothing
    assert not optimizer.m.flat.any()
    for kind in (AdamW, SGD):
        with pytest.raises(UserError, match="use those of one model"):
            kind(params).step(params, other, 0.1)
    with pytest.raises(UserError, match="belongs to another optimizer or model"):
        SGD(params).load_state({"t": np.array(3), "v": np.zeros(3, np.float32)})


def trained(make, average=0.0):
    """Return an optimizer of this kind after two steps."""
    params, gradients, _ = draw(0)
    optimizer = make(params, average=average)
    run(optimizer, params, gradients[:2], 0.1)
    return optimizer


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_state_fits_its_own_kind_of_optimizer_only(average):
    states = {make: trained(make, average).state() for make in (SGD, AdamW, Muon)}
    for make in states:
        for other, state in states.items():
            optimizer = make(draw(1)[0], average=average)
            before = {name: array.copy() for name, array in optimizer.state().items()}
            if other is make:
                optimizer.load_state(state)
                before = state
            else:
                with pytest.raises(UserError, match=r"this state belongs to|it belongs to another"):
                    optimizer.load_state(state)
            assert all(np.array_equal(a, before[name]) for name, a in optimizer.state().items())


def test_a_state_with_an_average_needs_an_optimizer_with_one():
    with pytest.raises(UserError, match="the state has 'average', which this optimizer does not"):
        SGD(draw(0)[0]).load_state(trained(SGD, average=0.5).state())


@all_kinds
def test_a_step_refuses_numbers_with_which_it_would_walk_uphill(make):
    params = model.init()
    grads, before, optimizer = params.copy(), params.copy(), make(params)
    for clip in (0, -1, np.nan, "1", [1.0]):
        with pytest.raises(UserError, match=r"clip is .*: it must be a number above 0, or None"):
            optimizer.step(params, grads, 0.1, clip)
    for lr in (-0.1, np.nan, np.inf, None, "0.1"):
        with pytest.raises(UserError, match=r"lr is .*: it must be a number from 0"):
            optimizer.step(params, grads, lr)
    assert optimizer.t == 0
    assert np.array_equal(params.flat, before.flat)


@all_kinds
def test_gradients_of_another_layout_are_refused(make):
    """Two models with as many weights, in matrices of other shapes."""
    config = ViTConfig(4, 2, 1, 3, width=4, depth=1, heads=2, mlp_width=8)
    params, other = ViT(config).init(), ViT(replace(config, pooling="mean", head_hidden=0)).init()
    same = ViT(config).init(1)
    wide = Buffer({"w": Param((6, 2), xavier)}, np.zeros(12))
    tall = Buffer({"w": Param((2, 6), xavier)}, np.zeros(12))
    make(params).step(params, same, 0.1)  # another model of the same config has the same layout
    for weights, grads in ((params, other), (wide, tall)):
        with pytest.raises(UserError, match="use those of one model"):
            make(weights).step(weights, grads, 0.1)


@all_kinds
@given(seed=seeds, clip=st.sampled_from([1e-3, 1.0, 1e3]))
def test_clipping_scales_down_to_the_norm_and_never_up(make, seed, clip):
    params, gradients, _ = draw(seed)
    grads, other, scaled = params.zeros_like(), params.copy(), params.zeros_like()
    clipped, plain = make(params), make(other)
    for flat in gradients:
        grads.flat[...] = flat
        before = math.sqrt(np.sum(flat**2))
        assert clipped.step(params, grads, 0.1, clip) == pytest.approx(before)
        assert np.array_equal(grads.flat, flat)
        scaled.flat[...] = flat * min(1, clip / before)
        plain.step(other, scaled, 0.1)
    assert np.allclose(params.flat, other.flat, rtol=1e-9, atol=1e-9)


@all_kinds
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_step_is_skipped_if_the_norm_is_not_finite(make, bad):
    params = model.init()
    grads, before, optimizer = params.copy(), params.copy(), make(params, average=0.9)
    state = {name: array.copy() for name, array in optimizer.state().items()}
    grads.flat[5] = bad
    assert not math.isfinite(optimizer.step(params, grads, 0.1))
    assert np.array_equal(params.flat, before.flat)
    assert all(np.array_equal(array, state[name]) for name, array in optimizer.state().items())


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-20, 1e18, 1e30])
def test_the_norm_of_huge_and_tiny_gradients(size):
    grads = model.init()
    grads.flat[...] = size
    assert grad_norm(grads) == pytest.approx(size * math.sqrt(grads.flat.size), rel=1e-5, abs=0)


@given(seeds, blocks, st.sampled_from([SGD, AdamW, Muon]))
def test_the_average_follows_the_weights(seed, block, make):
    params, gradients, _ = draw(seed)
    optimizer, grads = make(params, average=0.25), params.zeros_like()
    wanted = params.flat.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "BLOCK", block)
        for t, flat in enumerate(gradients, 1):
            grads.flat[...] = flat
            optimizer.step(params, grads, 0.1)
            factor = min(0.25, (1 + t) / (10 + t))
            wanted = factor * wanted + (1 - factor) * params.flat
    assert np.allclose(optimizer.average.flat, wanted, rtol=1e-12)
    again = make(params, average=0.25)
    again.load_state(optimizer.state())
    assert np.array_equal(again.average.flat, optimizer.average.flat)


@all_kinds
def test_without_an_average_the_weights_stand_for_it(make):
    params = model.init()
    assert make(params).average is params
    assert make(params, average=0.9).average is not params


@given(st.integers(1, 12), st.integers(1, 12), seeds)
def test_orthogonalise_makes_all_singular_values_about_one(I, O, seed):
    m = normal((I, O), seed)
    u, s, v = np.linalg.svd(m, full_matrices=False)
    made = u.T @ orthogonalise(m) @ v.T
    assert np.allclose(made, np.diag(np.diag(made)), atol=1e-9)  # u and v are unchanged
    large = s > 0.02 * math.sqrt(np.sum(s**2))
    assert np.all((np.diag(made) > 0.65) & (np.diag(made) < 1.25) | ~large)
    assert np.allclose(orthogonalise(m.T), orthogonalise(m).T)
    assert np.allclose(orthogonalise(1e3 * m), orthogonalise(m), atol=1e-4)
    assert not orthogonalise(np.zeros((I, O))).any()


@all_kinds
def test_the_weights_are_not_their_own_gradients(make):
    params = model.init()
    with pytest.raises(UserError, match="grads is the Buffer of the weights"):
        make(params).step(params, params, 0.1)


def test_muon_needs_matrices():
    class Layer:
        def __init__(self):
            self.w = Param((2, 3, 4), lambda rng, shape: np.ones(shape), decay=True)

        def forward(self, params, x):
            return x, None

    message = (
        r"with weight decay has shape \(2, 3, 4\): Muon needs all of them to be matrices; use AdamW"
    )
    with pytest.raises(UserError, match=message):
        Muon(init(Layer()))


def test_map_runs_the_independent_parts_of_an_update():
    """Only Muon has some, one for each matrix."""
    seen = []

    def reversed_map(function, items):
        seen.append(len(items))
        for item in reversed(items):
            function(item)

    for make, calls in (
        (SGD, []),
        (AdamW, []),
        (Muon, [sum(p.decay for p in model.params.values())]),
    ):
        params, gradients, _ = draw(0)
        other = params.copy()
        grads = params.zeros_like()
        grads.flat[...] = gradients[0]
        seen.clear()
        make(params).step(params, grads, 0.1, map=reversed_map)
        make(other).step(other, grads, 0.1)
        assert seen == calls
        assert np.array_equal(params.flat, other.flat)
