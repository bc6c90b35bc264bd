"""Layers, models, training and data on a GPU, or on the stand-in for CuPy, against the host."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit import SGD, AdamW, Muon, ViT, ViTConfig, Workers, cross_entropy
from numpyvit.backend import kernels
from numpyvit.backend.device import to, to_float, to_host
from numpyvit.data import (
    Dataset,
    affine,
    batches,
    compose,
    cutmix,
    erase,
    flip,
    mixup,
    one_of,
    randaugment,
    shift,
)
from numpyvit.gradcheck.suite import layer_checks, model_checks
from numpyvit.testing import normal, seeds, vit_configs


def images_for(config, B, seed):
    x = normal((B, *config.image, config.channels), seed, np.float32)
    return x, np.random.default_rng(seed).integers(0, config.classes, B)


@pytest.fixture(params=["kernels", "readable"])
def both_ways(request, cupy, monkeypatch):
    """Run a test with the kernels, and again with the readable functions in their place."""
    if request.param == "readable":
        monkeypatch.setattr(kernels, "KERNELS", {})
    return cupy


@pytest.mark.parametrize("name", layer_checks())
def test_gradients_of_each_layer(both_ways, name):
    report = layer_checks(xp=both_ways)[name]()
    assert report, f"\n{report}"


@pytest.mark.parametrize("name", list(model_checks())[::5])
def test_gradients_of_models(both_ways, name):
    report = model_checks(xp=both_ways)[name]()
    assert report, f"\n{report}"


@given(vit_configs(dropout=True), st.booleans(), seeds)
def test_a_model_is_the_same_on_both_and_never_waits(no_waiting, config, some_patches, seed):
    model, (x, labels) = ViT(config), images_for(config, 3, seed)
    params = model.init(seed)
    params.flat += normal(params.flat.shape, seed, np.float32) / 4
    patches = 1 + seed % config.patches if some_patches else None
    workers = Workers(model, seed=seed)
    rng = workers.dropout_rng(1, 0)
    loss, grads = workers.micro_step(params, x, labels, rng, 3, params.zeros_like(), patches)
    x_there, labels_there, params_there = to(x, "cuda"), to(labels, "cuda"), params.to("cuda")
    with no_waiting():
        loss_there, grads_there = workers.loss_and_grad(
            params_there, x_there, labels_there, step=1, patches=patches
        )
    assert to_float(loss_there) == pytest.approx(float(loss), rel=1e-5)
    largest = abs(grads.flat).max(initial=0)
    np.testing.assert_allclose(
        to_host(grads_there.flat), grads.flat, rtol=1e-4, atol=1e-5 * largest
    )
    logits = Workers(model).predict(params_there, x_there)
    np.testing.assert_allclose(logits, model.forward(params, x)[0], rtol=1e-4, atol=1e-5)
    assert np.array_equal(params_there.to("cpu").flat, params.flat)


CONFIG = ViTConfig(
    6, 3, 2, 5, width=8, depth=2, heads=2, mlp_width=8, dropout=0.1, positions="rotary"
)
OPTIMIZERS = {
    "SGD": SGD,
    "SGD, average": partial(SGD, average=0.9),
    "AdamW": partial(AdamW, average=0.9),
    "Muon": partial(Muon, average=0.9),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_is_the_same_on_both_and_never_waits(no_waiting, name):
    """In float64, because AdamW makes a full step of a gradient that is only rounding."""
    make = OPTIMIZERS[name]
    model, (x, labels) = ViT(CONFIG), images_for(CONFIG, 20, 0)
    x, loss = x.astype(np.float64), partial(cross_entropy, smoothing=0.1)

    def train(device):
        params, losses = model.init(0, np.float64).to(device), []
        data, optimizer = [to(a, device) for a in (x, labels)], make(params)
        with Workers(model, loss, workers=1, micro_batch=20) as workers, no_waiting():
            for step in range(20):
                value, grads = workers.loss_and_grad(params, *data, step=step, patches=3)
                norm = optimizer.step(params, grads, 1e-2, clip=0.5, map=workers.map)
                losses.append((value, norm))
        return params, optimizer, losses

    params, optimizer, losses = train("cpu")
    params_there, optimizer_there, losses_there = train("cuda")
    np.testing.assert_allclose(
        [[to_float(v) for v in pair] for pair in losses_there], losses, rtol=1e-6
    )
    norms = [norm for _, norm in losses]
    assert losses[-1][0] < losses[0][0] - 0.05
    assert max(norms) > 0.5
    assert min(norms) < 0.5 or "SGD" in name  # some steps are clipped and some are not
    state, state_there = optimizer.state(), optimizer_there.state()
    assert list(state) == list(state_there)
    state["weights"], state_there["weights"] = params.flat, to_host(params_there.flat)
    for key, a in state.items():
        np.testing.assert_allclose(state_there[key], a, rtol=1e-4, atol=1e-6 * abs(a).max())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizers_state_moves_from_the_host_to_the_gpu(cupy, name):
    params = ViT(CONFIG).init()
    optimizer = OPTIMIZERS[name](params)
    optimizer.step(params, params.copy(), 0.1)
    state = optimizer.state()
    moved = OPTIMIZERS[name](params.to("cuda"))
    moved.load_state(state)
    assert list(moved.state()) == list(state)
    for key, a in state.items():
        assert np.array_equal(moved.state()[key], a)
        assert a.any()


def test_an_infinite_gradient_shows_in_the_norm_and_the_weights(cupy):
    """On a GPU the step is not skipped, since that would mean waiting for the norm."""
    params = ViT(CONFIG).init().to("cuda")
    grads = params.zeros_like()
    grads.flat[3] = np.inf
    norm = AdamW(params).step(params, grads, 0.1, clip=1.0)
    assert not np.isfinite(to_float(norm))
    assert not np.isfinite(to_host(params.flat)).all()


def test_predictions_for_a_dataset_on_either_device(cupy):
    images = np.random.default_rng(0).integers(0, 256, (7, 6, 6, 2), np.uint8)
    data = Dataset("", images, np.arange(7) % 5, np.full(2, 0.5), np.full(2, 0.3), tuple("abcde"))
    model = ViT(CONFIG)
    params = model.init()
    params.flat += normal(params.flat.shape, 0, np.float32)
    with Workers(model, workers=1) as workers:
        wanted = workers.predict(params, data)
        for dataset in (data, data.to("cuda")):  # uploaded part by part, or already there
            found = workers.predict(params.to("cuda"), dataset)
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


AUGMENTS = {
    "shift": shift(2),
    "flip": flip(),
    "affine": affine(10, 0.1, 2, 0.1),
    "erase": erase(0.5),
    "randaugment": randaugment(2, 9.0),
    "several": compose(shift(1), flip(), erase(0.3)),
}
MIXES = {
    "nothing": None,
    "mixup": mixup(0.3),
    "cutmix": cutmix(1.0),
    "one of both": one_of(mixup(0.3), cutmix(1.0)),
}


@pytest.mark.parametrize(
    ("augment", "mix"),
    [*((AUGMENTS[name], None) for name in AUGMENTS), *((None, MIXES[name]) for name in MIXES)],
    ids=[*AUGMENTS, *MIXES],
)
def test_batches_are_the_same_on_both(no_waiting, augment, mix):
    rng = np.random.default_rng(0)
    data = Dataset(
        "",
        rng.integers(0, 256, (50, 9, 8, 3), np.uint8),
        rng.integers(0, 5, 50),
        np.full(3, 0.5),
        np.full(3, 0.3),
        tuple("abcde"),
    )
    data_there = data.to("cuda")
    with no_waiting():
        here = batches(data, 16, 2, 1, augment, mix)
        there = batches(data_there, 16, 2, 1, augment, mix)
        pairs = list(zip(here, there, strict=True))
    for (images, labels), (images_there, labels_there) in pairs:
        np.testing.assert_allclose(to_host(images_there), images, rtol=0, atol=1e-6)
        np.testing.assert_allclose(to_host(labels_there), labels, rtol=1e-6)
        assert images_there.dtype == np.float32
    assert len(pairs) == 8
