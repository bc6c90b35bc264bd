"""Every option of a model can be captured in a CUDA graph, with the same bits as without one.

A capture refuses CuPy's own matrix products and everything that waits for the device, so this
shows that layers, losses and optimizers keep to the shared operations and the kernels.
"""

import warnings
from contextlib import closing
from functools import partial

import numpy as np
import pytest

from numpyvit import SGD, AdamW, Muon, ViT, ViTConfig, Workers, cross_entropy
from numpyvit.backend import kernels
from numpyvit.backend.device import to, to_float, to_host
from numpyvit.engine.cuda_graph import GraphEngine
from numpyvit.testing import normal

SIZES = {"image_size": 6, "patch_size": 3, "channels": 2, "classes": 5, "depth": 2}
SIZES |= {"width": 8, "heads": 2, "mlp_width": 6}
ALL_DROPOUT = {"dropout": 0.2, "attention_dropout": 0.2, "drop_path": 0.2}
OPTIONS = {
    "class token": {},
    "mean": {"pooling": "mean"},
    "sinusoidal": {"positions": "sinusoidal"},
    "rotary": {"positions": "rotary"},
    "rotary, mean": {"positions": "rotary", "pooling": "mean"},
    "no positions": {"positions": "none"},
    "gelu, erf": {"gelu": "erf"},
    "hidden layer in the head": {"head_hidden": 7},
    "no bias": {"qkv_bias": False},
    "overlap": {"patch_overlap": 1},
    "dropout": ALL_DROPOUT,
    "dropout, mean": ALL_DROPOUT | {"pooling": "mean"},
    "dropout, rotary": ALL_DROPOUT | {"positions": "rotary"},
}
OPTIMIZERS = {
    "SGD": SGD,
    "SGD, average": partial(SGD, average=0.9),
    "AdamW": AdamW,
    "AdamW, average": partial(AdamW, average=0.9),
    "Muon": Muon,
    "Muon, average": partial(Muon, average=0.9),
}


def train(config, make=AdamW, capture=True, patches=None, soft=False, loss=cross_entropy):
    """Return the weights after four steps, their losses and norms, and the number of graphs."""
    model = ViT(config)
    weights = model.init(0)
    weights.flat += normal(weights.flat.shape, 1, np.float32) / 4  # the head starts at zero
    params = weights.to("cuda")
    results = []
    workers = Workers(model, loss)
    with closing(GraphEngine(workers, params, make(params), 1.0, capture=capture)) as engine:
        for i in range(4):
            images = normal((3, 6, 6, 2), i, np.float32)
            labels = np.arange(i, i + 3) % 5
            if soft:
                labels = (np.eye(5)[labels] * 0.7 + 0.06).astype(np.float32)
            step = engine.step(to(images, "cuda"), to(labels, "cuda"), i, 0.01, patches)
            results.append([to_float(x) for x in step])
        graphs = len(engine.graphs)
    return to_host(params.flat), results, graphs


def assert_captured(config, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a capture that fails only warns
        weights, results, graphs = train(config, **options)
    assert graphs == 1
    plain_weights, plain_results, no_graphs = train(config, capture=False, **options)
    assert no_graphs == 0
    assert np.array_equal(weights, plain_weights)
    assert results == plain_results
    assert len({loss for loss, _ in results}) == 4


@pytest.mark.parametrize("name", OPTIONS)
def test_each_option_of_a_model(cupy, name):
    assert_captured(ViTConfig(**SIZES, **OPTIONS[name]))


@pytest.mark.parametrize("name", ["class token", "mean", "rotary", "overlap", "dropout"])
def test_each_option_with_some_of_the_patches(cupy, name):
    assert_captured(ViTConfig(**SIZES, **OPTIONS[name]), patches=2)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer(cupy, name):
    assert_captured(ViTConfig(**SIZES), make=OPTIMIZERS[name])


@pytest.mark.parametrize("soft", [False, True])
def test_labels_and_probabilities_with_smoothing(cupy, soft):
    loss = partial(cross_entropy, smoothing=0.1)
    assert_captured(ViTConfig(**SIZES), soft=soft, loss=loss)


def test_attention_that_does_not_keep_its_scores(cupy, monkeypatch):
    monkeypatch.setattr(kernels.attention, "STORED", 8)
    assert_captured(ViTConfig(**SIZES, pooling="mean"))


def test_without_the_kernels_a_capture_fails(cupy, monkeypatch):
    """This shows that the tests above can fail."""
    monkeypatch.setattr(kernels, "KERNELS", {})
    with pytest.raises(RuntimeWarning, match="cannot be captured"):
        assert_captured(ViTConfig(**SIZES))
