import os
import sys
import threading
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import ThreadpoolController, threadpool_info

from numpyvit import AdamW, Muon, UserError, ViT, ViTConfig, Workers, cross_entropy, presets
from numpyvit.data import Dataset
from numpyvit.engine import process as machine
from numpyvit.engine import workers as parallel
from numpyvit.engine.process import keep_freed_memory
from numpyvit.engine.workers import Tree, ahead, micro_batch_size
from numpyvit.params import DROPOUT
from numpyvit.testing import close, normal, seeds

CONFIG = ViTConfig(
    6,
    3,
    2,
    5,
    width=8,
    depth=2,
    heads=2,
    mlp_width=8,
    dropout=0.2,
    attention_dropout=0.2,
    drop_path=0.2,
)
PLAIN = ViTConfig(6, 3, 2, 5, width=8, depth=2, heads=2, mlp_width=8)


def draw(B, seed, dtype=np.float32):
    return normal((B, 6, 6, 2), seed, dtype), np.random.default_rng(seed).integers(0, 5, B)


def train(workers, micro_batch, make, steps=20):
    model = ViT(CONFIG)
    params = model.init()
    optimizer = make(params, average=0.9)
    with Workers(
        model,
        partial(cross_entropy, smoothing=0.1),
        seed=3,
        workers=workers,
        micro_batch=micro_batch,
    ) as w:
        losses = []
        for step in range(steps):
            loss, grads = w.loss_and_grad(params, *draw(23 - step % 4, step), step=step)
            optimizer.step(params, grads, 1e-2, each=w.each)
            losses.append(loss)
        return losses, params.flat, optimizer.average.flat, w.predict(params, draw(37, 99)[0])


@pytest.mark.parametrize("make", [AdamW, Muon])
@pytest.mark.parametrize("micro_batch", [1, 4, 5, 100])
def test_the_same_bits_whatever_the_number_of_workers(micro_batch, make):
    one = train(1, micro_batch, make)
    for workers in (2, 3, 8):
        for a, b in zip(train(workers, micro_batch, make), one, strict=True):
            assert np.array_equal(a, b)


@settings(max_examples=10)
@given(st.integers(0, 12), st.integers(1, 13), seeds)
def test_micro_batches_add_up_to_the_batch(B, micro_batch, seed):
    model = ViT(PLAIN)
    params = model.init(seed, np.float64)
    params.flat += 0.1 * normal(params.flat.shape, seed)
    images, labels = draw(B, seed, np.float64)
    logits, cache = model.forward(params, images)
    loss, dlogits = cross_entropy(logits, labels)
    grads = params.zeros_like()
    model.backward(dlogits, cache, grads)
    with Workers(model, micro_batch=micro_batch, workers=2) as w:
        loss_w, grads_w = w.loss_and_grad(params, images, labels)
        assert close(w.predict(params, images), logits)
    assert loss_w == pytest.approx(float(loss))
    assert close(grads_w.flat, grads.flat)


def test_dropout_differs_by_step_and_seed():
    model = ViT(CONFIG)
    params = model.init()
    params.flat += normal(params.flat.shape, 0, np.float32)
    losses = []
    for seed in (0, 1):
        with Workers(model, seed=seed) as w:
            losses += [w.loss_and_grad(params, *draw(8, 0), step=step)[0] for step in (0, 1, 0)]
    assert losses[0] == losses[2]
    assert len(set(losses)) == 4


def test_each_piece_of_a_batch_draws_masks_of_its_own():
    """The same image in every piece: with one mask for all, each piece would give the same gradient."""
    model = ViT(CONFIG)
    params = model.init(0, np.float64)
    params.flat += normal(params.flat.shape, 0)
    images, labels = np.repeat(draw(1, 0, np.float64)[0], 4, axis=0), np.zeros(4, int)
    one_mask = model.forward(params, images[:1], np.random.default_rng((0, DROPOUT, 0, 0)))[0]
    with Workers(model, micro_batch=1) as w:
        loss, _ = w.loss_and_grad(params, images, labels)
        assert loss != pytest.approx(float(cross_entropy(one_mask, labels[:1])[0]))


def test_overlapping_workers_leave_the_settings_as_they_were():
    def settings():
        return sys.getswitchinterval(), [
            lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"
        ]

    before, model = settings(), ViT(PLAIN)
    first, second = Workers(model), Workers(model)
    first.__enter__()
    inside = settings()
    second.__enter__()
    first.__exit__()
    assert settings() == inside
    second.predict(model.init(), draw(3, 0)[0])
    second.__exit__()
    assert settings() == before
    with first, pytest.raises(UserError, match="at work already"):
        first.__enter__()


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system does not bind threads to cores"
)
def test_workers_stay_on_cores_of_their_own_where_there_is_one_for_each():
    def bound(workers):
        with Workers(ViT(PLAIN), workers=workers) as w:
            together = threading.Barrier(workers)  # so that each thread answers once

            def where(_):
                together.wait(30)
                return os.sched_getaffinity(0)

            return list(w._pool.map(where, range(workers)))

    all_cores = os.sched_getaffinity(0)
    n = len(all_cores)
    assert sorted(bound(n), key=min) == [{core} for core in sorted(all_cores)]
    assert bound(n + 1) == [all_cores] * (n + 1)
    assert os.sched_getaffinity(0) == all_cores


def test_what_holds_here_is_told(monkeypatch):
    told = dict(machine.settings())
    assert ": 1 thread for each worker" in told["BLAS"]
    assert told["interpreter"].endswith("threads switch after 0.5 ms")
    monkeypatch.setattr(machine, "keep_freed_memory", lambda: False)
    monkeypatch.setattr(machine, "blas", lambda: ThreadpoolController().select(user_api="none"))
    told = dict(machine.settings())
    assert "cannot be controlled" in told["BLAS"]
    assert "as it is" in told["allocator"]


def test_a_lone_image_by_several_blas_threads_is_the_same(monkeypatch):
    model = ViT(ViTConfig(16, 4, 3, 5, width=192, depth=2, heads=3, mlp_width=384))
    params, images = model.init(), normal((1, 16, 16, 3), 0, np.float32)
    params.flat += 0.02 * normal(params.flat.shape, 0, np.float32)
    threads = []
    blas_threads = parallel.blas_threads
    monkeypatch.setattr(parallel, "blas_threads", lambda n: (threads.append(n), blas_threads(n))[1])
    with Workers(model, workers=2) as w:
        one = w.predict(params, images)
        monkeypatch.setattr(parallel, "LONE", 0)
        two = w.predict(params, images)
        assert {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"} <= {1}
    assert threads == [2]
    assert np.allclose(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_the_allocator_is_told_where_there_is_glibc():
    import platform

    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")


def test_predict_normalises_a_dataset():
    model = ViT(PLAIN)
    params = model.init()
    params.flat += normal(params.flat.shape, 0, np.float32)
    images = np.random.default_rng(0).integers(0, 256, (9, 6, 6, 2), np.uint8)
    data = Dataset(
        "", images, np.zeros(9, int), np.array([0.2, 0.4]), np.array([0.5, 0.3]), tuple("abcde")
    )
    with Workers(model) as w:
        plain = w.predict(params, ((images / 255 - data.mean) / data.std).astype(np.float32))
        assert np.allclose(w.predict(params, data), plain, atol=1e-4)
        assert w.predict(params, images[:0].astype(np.float32)).shape == (0, 5)


@pytest.mark.parametrize(
    ("config", "batch", "size"),
    [
        (presets["mnist"], 128, 64),  # 17 tokens
        (ViTConfig(28, 4), 128, 32),  # 50 tokens
        (presets["cifar10"], 128, 16),  # 64 tokens, without patch dropout
        (presets["ViT-Ti/16"], 16, 8),  # 197 tokens
        (presets["digits"], 64, 64),  # 5 tokens: one piece
        (ViTConfig(2048, 16), 4, 1),  # 16385 tokens: never less than an image
    ],
)
def test_the_size_of_a_micro_batch(config, batch, size):
    assert micro_batch_size(config.tokens, batch) == size


def test_the_tree_keeps_few_buffers():
    """Leaves in order need one buffer a level, not one a leaf."""
    params = ViT(PLAIN).init()
    tree, made = Tree(64), set()
    for i in range(64):
        grads = tree.buffer(params)
        assert not grads.flat.any()
        grads.flat += i
        made.add(id(grads))
        tree.add(i, float(i), grads)
    loss, grads = tree.root
    assert loss == 64 * 63 / 2
    assert np.all(grads.flat == 64 * 63 / 2)
    assert len(made) <= 8


def test_settings_are_undone():
    def blas_threads():
        return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]

    before = sys.getswitchinterval(), blas_threads(), threading.active_count()
    with Workers(ViT(PLAIN), workers=3) as w:
        w.predict(w.model.init(), draw(8, 0)[0])
        assert set(blas_threads()) <= {1}
    assert (sys.getswitchinterval(), blas_threads(), threading.active_count()) == before


def test_an_error_in_a_worker_reaches_the_caller():
    model = ViT(PLAIN)
    images, labels = draw(8, 0)
    with Workers(model, workers=2, micro_batch=2) as w:
        with pytest.raises(UserError, match="labels go from 0 to 77"):
            w.loss_and_grad(model.init(), images, np.array([0, 1, 2, 3, 4, 0, 77, 0]))
        with pytest.raises(UserError, match="8 images came with 7 labels"):
            w.loss_and_grad(model.init(), images, labels[:7])
        images[5] = np.nan
        with pytest.raises(UserError, match="NaN or infinity"):
            w.loss_and_grad(model.init(), images, labels)


def test_outside_of_with_they_say_so():
    with pytest.raises(UserError, match="use them inside `with"):
        Workers(ViT(PLAIN)).predict(ViT(PLAIN).init(), draw(2, 0)[0])


@pytest.mark.parametrize("options", [{"workers": 0}, {"micro_batch": -1}])
def test_impossible_numbers_are_refused(options):
    with pytest.raises(UserError, match="must be 1 or more"):
        Workers(ViT(PLAIN), **options)


def test_ahead_gives_the_same_items_and_errors():
    def items():
        yield from range(5)
        raise UserError("no more")

    before, given_items = threading.active_count(), ahead(items())
    assert [next(given_items) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match="no more"):
        next(given_items)
    assert list(ahead([])) == []
    assert threading.active_count() == before


def test_ahead_is_one_item_ahead_and_stops_with_its_user():
    made = []
    for item in ahead(made.append(i) or i for i in range(100)):
        if item == 3:
            break
    assert len(made) <= 5
