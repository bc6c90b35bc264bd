"""A training step as a CUDA graph. The stand-in for CuPy records the calls that are
made while a stream is captured, and makes them when the graph is launched.
"""

import dataclasses
import weakref
from contextlib import closing
from itertools import islice

import numpy as np
import pytest
from conftest import is_standin
from hypothesis import given, settings
from hypothesis import strategies as st

from numpyvit import AdamW, Muon, ViT, ViTConfig, Workers, data, presets
from numpyvit.backend import kernels
from numpyvit.backend.device import stream, to, to_float, to_host
from numpyvit.backend.kernels.gemm import precision
from numpyvit.engine import loss_scale
from numpyvit.engine.cuda_graph import GraphEngine, Tape
from numpyvit.engine.loss_scale import LossScale
from numpyvit.testing import normal, seeds, vit_configs

CONFIG = ViTConfig(
    8,
    4,
    1,
    5,
    width=8,
    depth=2,
    heads=2,
    mlp_width=8,
    dropout=0.1,
    attention_dropout=0.1,
    drop_path=0.1,
)


def batch(config, B, seed):
    x = normal((B, *config.image, config.channels), seed, np.float32)
    return to(x, "cuda"), to(np.random.default_rng(seed).integers(0, config.classes, B), "cuda")


def engine_for(model, params, optimizer=None, clip=None, seed=0, **options):
    optimizer = optimizer or AdamW(params)
    return GraphEngine(Workers(model, seed=seed), params, optimizer, clip, **options)


def trained(config, seed, capture, optimizer=AdamW, sizes=(3,) * 5, full=()):
    """The weights after steps on batches of these sizes, the losses and norms, and the
    number of graphs. `full`: the steps on all patches.
    """
    model = ViT(config)
    params = model.init(seed).to("cuda")
    average = optimizer(params, average=0.9)
    some = max(1, config.patches - 1)
    shown = []
    with closing(engine_for(model, params, average, 1.0, seed, capture=capture)) as engine:
        for i, B in enumerate(sizes):
            patches = None if i in full else some
            loss, norm = engine.step(*batch(config, B, seed + i), i, 1e-2 / (i + 1), patches)
            shown.append([to_float(loss), to_float(norm)])
        graphs = len(engine.graphs)
    return to_host(params.flat), shown, graphs


@given(vit_configs(dropout=True), st.sampled_from([AdamW, Muon]), seeds)
@settings(max_examples=25)
def test_a_graph_does_what_the_kernels_do_to_the_bit(cupy, config, optimizer, seed):
    one, shown, graphs = trained(config, seed, True, optimizer)
    assert graphs == 1
    other, again, graphs = trained(config, seed, False, optimizer)
    assert graphs == 0
    assert np.array_equal(one, other)
    assert shown == again


def test_fifty_steps_are_those_of_the_host(cupy):
    """The digits' training curve, and the outputs and gradients of the first step,
    agree as far as float32 allows.
    """
    train, _ = data.digits()
    model = ViT(dataclasses.replace(presets["digits"], width=32, depth=2))
    here = model.init(0)
    here.flat += (
        normal(here.flat.shape, 0, np.float32) / 50
    )  # otherwise the head and most gradients are zero
    there = here.to("cuda")
    mine, theirs = AdamW(here), AdamW(there)
    engine = GraphEngine(Workers(model), there, theirs, 1.0)
    with Workers(model) as workers, closing(engine):
        for i, (x, labels) in enumerate(islice(data.batches(train, 32, 2, seed=0), 50)):
            loss, grads = workers.loss_and_grad(here, x, labels, i)
            if i == 0:
                logits, gradients = (
                    (workers.predict(p, x) for p in (here, there)),
                    workers.loss_and_grad(there, to(x, "cuda"), to(labels, "cuda"), i)[1],
                )
                for found, wanted in (tuple(logits), (to_host(gradients.flat), grads.flat)):
                    assert np.linalg.norm(found - wanted) < 1e-5 * np.linalg.norm(wanted)
            mine.step(here, grads, 3e-3, 1.0)
            found = to_float(engine.step(to(x, "cuda"), to(labels, "cuda"), i, 3e-3)[0])
            assert found == pytest.approx(loss, rel=2e-4)
    assert loss < 1.5


def test_a_deep_model(cupy):
    """With more than eight matrices of one shape."""
    config = dataclasses.replace(CONFIG, depth=10, pooling="mean")
    one, shown, graphs = trained(config, 0, True, Muon)
    assert graphs == 1
    other, again, _ = trained(config, 0, False, Muon)
    assert np.array_equal(one, other)
    assert shown == again


def test_each_kind_of_batch_has_its_own_graph(cupy):
    kinds = {"sizes": (3, 3, 3, 2, 3, 3, 3, 2, 3, 3), "full": (5, 6, 9)}
    one, shown, graphs = trained(CONFIG, 0, True, **kinds)
    assert graphs == 3
    other, again, _ = trained(CONFIG, 0, False, **kinds)
    assert np.array_equal(one, other)
    assert shown == again


def test_each_step_has_its_own_masks_and_learning_rate(cupy):
    model = ViT(dataclasses.replace(CONFIG, dropout=0.5))
    x, labels = batch(CONFIG, 4, 0)
    params = model.init(0)
    params.flat += normal(params.flat.shape, 0, np.float32) / 4  # otherwise the head is zero
    params = params.to("cuda")
    with closing(engine_for(model, params)) as engine:
        losses = [to_float(engine.step(x, labels, i, 0.0)[0]) for i in range(6)]
        before = to_host(params.flat)
        assert len(set(losses)) == 6
        assert to_float(engine.step(x, labels, 3, 0.0)[0]) == losses[3]
        assert np.array_equal(to_host(params.flat), before)
        engine.step(x, labels, 3, 1.0)
        assert abs(to_host(params.flat) - before).max() > 0.01


def test_no_step_waits_and_later_steps_do_not_change_earlier_results(no_waiting):
    x, labels = batch(CONFIG, 4, 0)
    model = ViT(CONFIG)
    params = model.init(0).to("cuda")
    with closing(engine_for(model, params, clip=1.0)) as engine:
        with no_waiting():
            shown = [engine.step(x, labels, i, 1e-2) for i in range(5)]
        assert len({to_float(loss) for loss, _ in shown}) == 5
        assert len({to_float(norm) for _, norm in shown}) == 5


def test_missing_memory_is_an_error_after_which_no_pool_tries_again(cupy):
    """It would release memory that graphs write to."""
    params = ViT(CONFIG).init(0).to("cuda")
    with closing(engine_for(ViT(CONFIG), params)) as engine:
        assert engine.pool.malloc(1000)
        with pytest.raises(MemoryError, match="cudaErrorMemoryAllocation"):
            engine.pool.malloc(2**50)


def test_a_step_that_cannot_be_captured_warns_and_runs_kernel_by_kernel(cupy, monkeypatch):
    """Without the kernels, matrix products are CuPy's, which it refuses to capture."""
    monkeypatch.setattr(kernels, "KERNELS", {})
    with pytest.warns(RuntimeWarning, match=r"runs kernel by kernel: .*(matmul|cuBLAS)"):
        one, shown, graphs = trained(CONFIG, 0, True, full=range(5))
    assert graphs == 0
    other, again, _ = trained(CONFIG, 0, False, full=range(5))
    assert np.array_equal(one, other)
    assert shown == again


def test_a_failed_capture_leaves_no_array_behind(cupy, monkeypatch):
    """The step after it, kernel by kernel, needs their memory."""
    model, inputs, alive = ViT(CONFIG), [], []
    params, forward = model.init(0).to("cuda"), model.head.forward

    def breaks(params, x, *rest):
        inputs.append(weakref.ref(x))
        if len(inputs) == 2:  # in the capture
            raise MemoryError("full")
        return forward(params, x, *rest)

    monkeypatch.setattr(model.head, "forward", breaks)
    with closing(engine_for(model, params)) as engine, monkeypatch.context() as patch:
        engine.step(*batch(CONFIG, 3, 0), 0, 1e-3)
        patch.setattr(engine, "release_graphs", lambda: alive.append(inputs[1]() is not None))
        with pytest.warns(RuntimeWarning, match="full"):
            engine.step(*batch(CONFIG, 3, 1), 1, 1e-3)
    assert alive[0] is False
    assert len(inputs) == 3


def test_the_first_step_of_a_kind_runs_after_the_graphs_memory_is_released(cupy, monkeypatch):
    compute, graphs = GraphEngine.compute, []

    def counted(self, *args):
        graphs.append(len(self.graphs))
        return compute(self, *args)

    monkeypatch.setattr(GraphEngine, "compute", counted)
    _, _, at_the_end = trained(CONFIG, 0, True, sizes=(3, 3, 3, 2, 2, 3, 2))
    # The first kind: a step, its capture; the second: the same; the first: its capture.
    assert graphs == [0, 0, 0, 0, 1]
    assert at_the_end == 2


def test_a_tape_returns_the_generators_numbers(cupy):
    def draw(rng):
        return [rng.integers(0, 2**64, size, np.uint64, endpoint=False) for size in (3, (2, 5))]

    tape = Tape(np.random.default_rng(0), cupy)
    for seed in (0, 1):
        found = draw(tape)
        for a, b in zip(found, draw(np.random.default_rng(seed)), strict=True):
            assert np.array_equal(to_host(a), b)
        tape.rewind().fill(np.random.default_rng(1))


@pytest.mark.parametrize(
    ("name", "low", "high"), [("float32", 0, 1e-6), ("tf32", 1e-4, 2e-3), ("float16", 1e-4, 2e-3)]
)
@pytest.mark.parametrize("preset", ["mnist", "cifar10"])
def test_gradients_in_each_precision(cupy, preset, name, low, high):
    """Compared with float64 on the host; the bounds are those that
    backend/kernels/gemm.py states. The stand-in rounds matrix products as a GPU does.
    """
    model = ViT(presets[preset])
    x, labels = normal((4, *model.config.image, model.config.channels), 0, np.float32), np.arange(4)
    params = model.init(0)
    params.flat += (
        normal(params.flat.shape, 0, np.float32) / 50
    )  # otherwise the head and most gradients are zero
    exact = params.astype(np.float64)
    workers = Workers(model)
    _, wanted = workers.micro_step(exact, x.astype("f8"), labels, None, 4, exact.zeros_like())
    there, scale = params.to("cuda"), LossScale(cupy)
    with stream("cuda"), precision(name):
        _, found = workers.micro_step(
            there, to(x, "cuda"), to(labels, "cuda"), None, 4, there.zeros_like(), dloss=scale.value
        )
        scale.unscale(found)
    error = np.linalg.norm(to_host(found.flat) - wanted.flat) / np.linalg.norm(wanted.flat)
    assert (low if is_standin(cupy) else 0) <= error < high  # a GPU may have no tf32


def test_loss_scaling_skips_overflows_and_grows_after_good_steps(cupy, no_waiting, monkeypatch):
    monkeypatch.setattr(loss_scale, "PATIENCE", 3)
    grads = ViT(CONFIG).init(0).to("cuda")
    scale = LossScale(cupy)
    values = []
    with no_waiting():
        for bad in (False, True, False, False, False, False):
            g = grads.copy()
            g.flat *= scale.value
            if bad:
                g.flat[7] = cupy.asarray(np.float32(np.inf))
            scale.unscale(g)
            values.append(scale.value.copy())
            found = g.flat.copy()
    assert [to_float(v) / 2**16 for v in values] == [1, 0.5, 0.5, 0.5, 1, 1]
    np.testing.assert_allclose(to_host(found), to_host(grads.flat), rtol=1e-6)
    g.flat[3] = cupy.asarray(np.float32(np.nan))
    scale.unscale(g)
    assert not to_host(g.flat).any()
    other = LossScale(cupy)
    other.load(scale.state())
    assert other.state() == scale.state() == [2.0**15, 0]
