import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit import SGD, AdamW, Muon, Param, UserError, ViT, ViTConfig, init
from numpyvit.optim import adamw as optim
from numpyvit.optim.adamw import grad_norm
from numpyvit.optim.muon import orthogonal
from numpyvit.testing import normal, seeds

model = ViT(ViTConfig(4, 2, 1, 3, width=4, depth=1, heads=2, mlp_width=3))


def draw(seed):
    params = model.init(seed, np.float64)
    params.flat += normal(params.flat.shape, seed)
    gradients = [normal(params.flat.shape, seed + k + 1) for k in range(3)]
    decays = params.zeros_like()
    for name, p in params.params.items():
        decays[name] = float(p.decay)
    return params, gradients, decays.flat


def run(optimizer, params, gradients, lr):
    g = params.zeros_like()
    for k, flat in enumerate(gradients):
        g.flat[...] = flat
        optimizer.step(params, g, lr / (k + 1))


@given(seeds, st.sampled_from([7, 32768]))
def test_adamw_by_the_formula(seed, block):
    params, gradients, decays = draw(seed)
    lr, b1, b2, eps, wd = 0.1, 0.8, 0.95, 1e-3, 0.2
    p, m, v = params.flat.copy(), 0.0, 0.0
    for t, g in enumerate(gradients, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        p = (
            p
            - lr / t * wd * decays * p
            - lr / t * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optim, "BLOCK", block)
        run(AdamW(params, (b1, b2), eps, wd), params, gradients, lr)
    assert np.allclose(params.flat, p, rtol=1e-12, atol=1e-13)


@given(seeds, st.sampled_from([7, 32768]))
def test_sgd_by_the_formula(seed, block):
    params, gradients, decays = draw(seed)
    p, v = params.flat.copy(), 0.0
    for t, g in enumerate(gradients, 1):
        v = 0.9 * v + g
        p = p - 0.1 / t * (v + 0.2 * decays * p)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optim, "BLOCK", block)
        run(SGD(params, 0.9, 0.2), params, gradients, 0.1)
    assert np.allclose(params.flat, p, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("make", [SGD, AdamW, Muon])
@given(seed=seeds)
def test_state_takes_it_up_where_it_stopped(make, seed):
    params, gradients, _ = draw(seed)
    other = params.copy()
    run(make(params), params, gradients, 0.1)
    first = make(other)
    run(first, other, gradients[:2], 0.1)
    second = make(other)
    second.load_state({name: array.copy() for name, array in first.state().items()})
    g = other.zeros_like()
    g.flat[...] = gradients[2]
    second.step(other, g, 0.1 / 3)
    assert np.array_equal(params.flat, other.flat)


def test_state_of_another_optimizer_or_model_is_refused():
    params = model.init()
    with pytest.raises(UserError, match="'t' is missing"):
        AdamW(params).load_state(SGD(params).state())
    optimizer, other = AdamW(params), ViT(ViTConfig(4, 2, width=8)).init()
    with pytest.raises(UserError, match="'v' is missing"):
        optimizer.load_state({"t": np.array(3), "m": params.flat + 1})
    assert optimizer.t == 0
    assert not optimizer.m.flat.any()
    for wrong in (optimizer, SGD(params)):
        with pytest.raises(UserError, match="of several models"):
            wrong.step(params, other, 0.1)
    with pytest.raises(UserError, match="belongs to another optimizer or model"):
        SGD(params).load_state({"v": np.zeros(3, np.float32)})


@pytest.mark.parametrize("make", [SGD, AdamW, Muon])
@given(seed=seeds, clip=st.sampled_from([1e-3, 1.0, 1e3]))
def test_clipping_scales_to_the_norm_and_never_up(make, seed, clip):
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


@pytest.mark.parametrize("make", [SGD, AdamW, Muon])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_where_the_norm_is_not_finite_nothing_is_updated(make, bad):
    params = model.init()
    grads, before, optimizer = params.copy(), params.copy(), make(params)
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


@given(seeds, st.sampled_from([7, 32768]), st.sampled_from([AdamW, Muon]))
def test_the_average_follows_the_weights(seed, block, make):
    params, gradients, _ = draw(seed)
    optimizer, g, wanted = make(params, average=0.25), params.zeros_like(), params.flat.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optim, "BLOCK", block)
        for t, flat in enumerate(gradients, 1):
            g.flat[...] = flat
            optimizer.step(params, g, 0.1)
            keep = min(0.25, (1 + t) / (10 + t))
            wanted = keep * wanted + (1 - keep) * params.flat
    assert np.allclose(optimizer.average.flat, wanted, rtol=1e-12)
    again = AdamW(params, average=0.25)
    again.load_state(optimizer.state())
    assert np.array_equal(again.average.flat, optimizer.average.flat)


@given(st.integers(1, 12), st.integers(1, 12), seeds)
def test_orthogonal_makes_all_singular_values_about_one(I, O, seed):
    m = normal((I, O), seed)
    u, s, v = np.linalg.svd(m, full_matrices=False)
    made = u.T @ orthogonal(m) @ v.T  # u and v are its own too
    assert np.allclose(made, np.diag(np.diag(made)), atol=1e-9)
    large = s > 0.02 * math.sqrt(np.sum(s**2))
    assert np.all((np.diag(made) > 0.65) & (np.diag(made) < 1.25) | ~large)
    assert np.allclose(orthogonal(m.T), orthogonal(m).T)
    assert np.allclose(orthogonal(1e3 * m), orthogonal(m), atol=1e-4)
    assert not orthogonal(np.zeros((I, O))).any()


@given(seeds)
def test_muon_by_the_formula(seed):
    params, gradients, _ = draw(seed)
    start, optimizer = (
        params.copy(),
        Muon(params, (0.8, 0.95), 1e-3, 0.2, average=0.25, momentum=0.9),
    )
    run(optimizer, params, gradients, 0.1)
    rest = start.copy()  # what is no matrix gets AdamW's step
    run(AdamW(rest, (0.8, 0.95), 1e-3, 0.2), rest, gradients, 0.1)
    assert np.array_equal(params.flat[params.decayed :], rest.flat[params.decayed :])
    g = params.zeros_like()
    for name, p in params.params.items():
        if not p.decay:
            continue
        w, v = start[name].copy(), 0.0
        for t, flat in enumerate(gradients, 1):
            g.flat[...] = flat
            v = 0.9 * v + g[name]
            w = w - 0.1 / t * (
                0.2 * math.sqrt(max(p.shape)) * orthogonal(g[name] + 0.9 * v) + 0.2 * w
            )
        assert np.allclose(params[name], w, rtol=1e-10, atol=1e-12)


def test_muon_wants_matrices():
    class Layer:
        def __init__(self):
            self.w = Param((2, 3, 4), lambda rng, shape: np.ones(shape), decay=True)

        def forward(self, params, x):
            return x, None

    with pytest.raises(
        UserError,
        match=r"a weight of shape \(2, 3, 4\) decays: Muon wants all those to be matrices",
    ):
        Muon(init(Layer()))
