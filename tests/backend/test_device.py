"""The same pages on a GPU: all of it on a strict stand-in for CuPy."""

import sys
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standin import strict

from numpyvit import SGD, AdamW, Muon, UserError, ViT, ViTConfig, Workers, cross_entropy
from numpyvit.backend import kernels
from numpyvit.backend.arrays import count_values
from numpyvit.backend.device import module_of, number, to, to_host
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
    """With the fused kernels, and without."""
    if request.param == "readable":
        monkeypatch.setattr(kernels, "TWINS", {})
    return cupy


@pytest.mark.parametrize("name", layer_checks())
def test_gradients_of_each_layer(both_ways, cupy, name):
    report = layer_checks(xp=cupy)[name]()
    assert report, f"\n{report}"


@pytest.mark.parametrize("name", list(model_checks())[::5])
def test_gradients_of_models(both_ways, cupy, name):
    report = model_checks(xp=cupy)[name]()
    assert report, f"\n{report}"


@given(vit_configs(dropout=True), seeds)
def test_a_model_is_the_same_on_both_and_never_waits(no_waiting, config, seed):
    model, (x, labels) = ViT(config), images_for(config, 3, seed)
    params = model.init(seed)
    params.flat += normal(params.flat.shape, seed, np.float32) / 4
    workers = Workers(model, seed=seed)
    loss, grads = workers.piece(params, x, labels, workers.draws(1, 0), 3, params.zeros_like())
    there = [to(a, "cuda") for a in (x, labels)]
    there_params = params.to("cuda")
    with no_waiting():
        there_loss, there_grads = workers.loss_and_grad(there_params, *there, step=1)
    assert number(there_loss) == pytest.approx(float(loss), rel=1e-5)
    np.testing.assert_allclose(
        to_host(there_grads.flat), grads.flat, rtol=1e-4, atol=1e-5 * abs(grads.flat).max(initial=0)
    )
    logits = Workers(model).predict(there_params, there[0])
    np.testing.assert_allclose(logits, model.forward(params, x)[0], rtol=1e-4, atol=1e-5)
    assert np.array_equal(there_params.to("cpu").flat, params.flat)


CONFIG = ViTConfig(
    6,
    3,
    2,
    5,
    width=8,
    depth=2,
    heads=2,
    mlp_width=8,
    dropout=0.1,
    patch_dropout=0.3,
    positions="rotary",
)


@pytest.mark.parametrize("make", [SGD, partial(AdamW, average=0.9), partial(Muon, average=0.9)])
def test_training_is_the_same_on_both_and_never_waits(no_waiting, make):
    """In float64: where a gradient is all rounding, AdamW makes a whole step of it."""
    model, (x, labels) = ViT(CONFIG), images_for(CONFIG, 20, 0)
    x, loss = x.astype(np.float64), partial(cross_entropy, smoothing=0.1)

    def train(device):
        params, losses = model.init(0, np.float64).to(device), []
        data, optimizer = [to(a, device) for a in (x, labels)], make(params)
        with Workers(model, loss, workers=1, micro_batch=20) as workers, no_waiting():
            for step in range(20):
                value, grads = workers.loss_and_grad(params, *data, step=step)
                losses.append(
                    (value, optimizer.step(params, grads, 1e-2, clip=0.5, each=workers.each))
                )
        return params, optimizer, losses

    params, optimizer, losses = train("cpu")
    there, there_optimizer, there_losses = train("cuda")
    np.testing.assert_allclose(
        [[number(v) for v in pair] for pair in there_losses], losses, rtol=1e-6
    )
    assert losses[-1][0] < losses[0][0] - 0.05
    assert max(norm for _, norm in losses) > 0.5 > min(norm for _, norm in losses) or make is SGD
    state, there_state = optimizer.state(), there_optimizer.state()
    assert list(state) == list(there_state)
    for name, a in {**state, "weights": params.flat}.items():
        b = to_host(there.flat) if name == "weights" else there_state[name]
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6 * abs(a).max())
    moved = make(there)  # a state goes from the host to the GPU
    moved.load_state(state)
    for name, a in state.items():
        assert np.array_equal(moved.state()[name], a)


def test_what_is_not_finite_shows_in_the_norm_and_the_weights(cupy):
    model = ViT(CONFIG)
    params = model.init().to("cuda")
    grads = params.zeros_like()
    grads.flat[3] = np.inf
    assert not np.isfinite(number(AdamW(params).step(params, grads, 0.1, clip=1.0)))
    assert not np.isfinite(to_host(params.flat)).all()


def test_a_data_set_goes_there(cupy):
    images = np.random.default_rng(0).integers(0, 256, (7, 6, 6, 2), np.uint8)
    data = Dataset("", images, np.arange(7) % 5, np.full(2, 0.5), np.full(2, 0.3), tuple("abcde"))
    model = ViT(CONFIG)
    params = model.init()
    params.flat += normal(params.flat.shape, 0, np.float32)
    with Workers(model, workers=1) as workers:
        wanted = workers.predict(params, data)
        for where in (data, data.to("cuda")):  # uploaded part by part, or there already
            np.testing.assert_allclose(
                workers.predict(params.to("cuda"), where), wanted, rtol=1e-4, atol=1e-5
            )


def test_devices_that_are_mixed_are_named(cupy):
    model, (x, labels) = ViT(CONFIG), images_for(CONFIG, 2, 0)
    params = model.init()
    with pytest.raises(
        UserError, match="images are on the host and the weights on a GPU: bring them together"
    ):
        model.forward(params.to("cuda"), x)
    with pytest.raises(UserError, match="images are on a GPU and the weights on the host"):
        model.forward(params, to(x, "cuda"))
    with pytest.raises(UserError, match="logits and targets are on different devices"):
        cross_entropy(to(x[:, 0, 0], "cuda"), labels)


@pytest.mark.parametrize(
    "device", ["gpu", "cuda:", "cuda:x", "cuda:-1", "CUDA", "", "cuda:1234", "cpu ", None, 0]
)
def test_a_device_that_is_none_is_refused(device):
    with pytest.raises(UserError, match="wanted cpu, cuda, or cuda:N"):
        module_of(device)


def test_what_is_missing_is_told(monkeypatch):
    assert module_of("cpu") is np
    monkeypatch.setitem(sys.modules, "cupy", None)  # as if it were not installed
    with pytest.raises(
        UserError, match=r"needs CuPy, which cannot be imported .*pip install 'numpyvit\[cuda13\]'"
    ):
        module_of("cuda")
    with strict.installed() as cupy:
        assert module_of("cuda") is cupy
        with pytest.raises(UserError, match="there is no GPU 1: this machine has 1"):
            module_of("cuda:1")
        cupy.cuda = strict.cuda(2)
        assert module_of("cuda:1") is cupy
        assert strict.Device.used == 1
        module_of("cuda")
        assert strict.Device.used == 0
        with pytest.MonkeyPatch.context() as patch:
            patch.delattr(sys.modules["cupy_backends.cuda.libs"], "cublas")
            with pytest.raises(
                UserError, match=r"does not find CUDA's own libraries .*pip install"
            ):
                module_of("cuda")
        with pytest.MonkeyPatch.context() as patch:

            def missing():
                raise RuntimeError("libnvrtc is not here")

            patch.setattr(sys.modules["cupy_backends.cuda.libs"].nvrtc, "getVersion", missing)
            with pytest.raises(
                UserError, match=r"own libraries \(libnvrtc is not here\): pip install"
            ):
                module_of("cuda")
        cupy.cuda = strict.cuda(
            0, "cudaErrorInsufficientDriver: CUDA driver version is insufficient"
        )
        with pytest.raises(
            UserError, match=r"no GPU that it can use \(cudaErrorInsufficientDriver.*driver"
        ):
            module_of("cuda")


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


@given(st.integers(0, 50), st.integers(1, 9), seeds)
def test_values_are_counted_without_waiting(no_waiting, m, n, seed):
    x = np.random.default_rng(seed).integers(0, n, m)
    there = to(x, "cuda")
    with no_waiting():
        found = count_values(there, n)
    assert np.array_equal(to_host(found), np.bincount(x, minlength=n))
    assert np.array_equal(count_values(x, n), np.bincount(x, minlength=n))


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
    there = data.to("cuda")
    with no_waiting():
        pairs = list(
            zip(
                batches(data, 16, 2, 1, augment, mix),
                batches(there, 16, 2, 1, augment, mix),
                strict=True,
            )
        )
    for (images, labels), (there_images, there_labels) in pairs:
        np.testing.assert_allclose(to_host(there_images), images, rtol=0, atol=1e-6)
        np.testing.assert_allclose(to_host(there_labels), labels, rtol=1e-6)
        assert there_images.dtype == np.float32
    assert len(pairs) == 8
