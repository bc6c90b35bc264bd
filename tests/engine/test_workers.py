import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import ThreadpoolController, threadpool_info

from numpyvit import AdamW, Muon, UserError, ViT, ViTConfig, Workers, cross_entropy, presets
from numpyvit.data import Dataset
from numpyvit.engine import process
from numpyvit.engine.prefetch import prefetch
from numpyvit.engine.process import keep_freed_memory
from numpyvit.engine.threads import ThreadEngine
from numpyvit.engine.tree import SumTree
from numpyvit.engine.workers import micro_batch_size, prediction_size
from numpyvit.seeds import DROPOUT
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
            optimizer.step(params, grads, 1e-2, map=w.map)
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


def test_each_micro_batch_draws_its_own_masks():
    """The images are the same, so that with one mask all losses would be equal."""
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
    with first, pytest.raises(UserError, match="already in use in another `with` block"):
        first.__enter__()


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system does not bind threads to cores"
)
def test_the_settings_are_undone_by_the_last_user_in_any_thread():
    def blas_threads():
        return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]

    before = blas_threads()
    first = Workers(ViT(PLAIN))
    second = Workers(ViT(PLAIN))
    with ThreadPoolExecutor(1) as other:
        other.submit(first.__enter__).result()
        assert set(blas_threads()) <= {1}
        second.__enter__()
        other.submit(first.__exit__).result()
        assert set(blas_threads()) <= {1}
        second.__exit__()
        assert blas_threads() == before


def test_workers_are_bound_to_cores_if_there_is_one_for_each():
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


def test_the_settings_are_described(monkeypatch):
    described = dict(process.settings())
    assert ": 1 thread for each worker" in described["BLAS"]
    assert described["interpreter"].endswith("threads switch after 0.5 ms")
    monkeypatch.setattr(process, "keep_freed_memory", lambda: False)
    monkeypatch.setattr(process, "blas", lambda: ThreadpoolController().select(user_api="none"))
    described = dict(process.settings())
    assert "cannot be controlled" in described["BLAS"]
    assert "unchanged" in described["allocator"]


@given(st.integers(1, 24), st.integers(1, 8), st.integers(0, 99))
def test_a_prediction_has_the_same_bits_whatever_the_number_of_workers(n, workers, seed):
    model = ViT(ViTConfig(48, 6, 1, 10, width=120, depth=1, heads=5, mlp_width=250))
    params = model.init()
    params.flat += 0.02 * normal(params.flat.shape, seed, np.float32)  # the head begins as zeros
    images = normal((n, 48, 48, 1), seed, np.float32)

    def predict(workers):
        with Workers(model, workers=workers) as w:
            return w.predict(params, images)

    assert np.array_equal(predict(1), predict(workers))


def test_a_prediction_in_another_thread_changes_no_bit_of_the_gradients():
    """The number of BLAS threads is a setting of the process, so no one may raise it."""
    model = ViT(ViTConfig(48, 6, 1, 10, width=120, depth=2, heads=5, mlp_width=250))
    params = model.init()
    params.flat += 0.02 * normal(params.flat.shape, 0, np.float32)  # the head begins as zeros
    images = normal((16, 48, 48, 1), 0, np.float32)
    labels = np.arange(16) % 10
    started = threading.Event()
    stop = threading.Event()

    def keep_predicting():
        with Workers(model) as w:
            while not stop.is_set():
                w.predict(params, images[:8])
                started.set()

    def gradients(w):
        return w.loss_and_grad(params, images, labels)[1].flat.copy()

    with Workers(model) as w:
        alone = gradients(w)
        other = threading.Thread(target=keep_predicting)
        other.start()
        started.wait(60)
        try:
            equal = [np.array_equal(alone, gradients(w)) for _ in range(12)]
        finally:
            stop.set()
            other.join()
    assert all(equal)


def test_a_few_images_of_a_large_model_are_shared_out_among_the_threads():
    large = ViTConfig(224, 16, 3, 10, width=192, depth=12, heads=3, mlp_width=768)
    small = ViTConfig(28, 7, 1, 10, width=64, depth=4, heads=4, mlp_width=128)
    assert [prediction_size(large, n) for n in (1, 2, 7, 8)] == [1, 1, 1, 1]
    assert prediction_size(small, 4) == 4  # too little work for two threads
    assert prediction_size(small, 10_000) == micro_batch_size(small.tokens, 10_000)


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_glibc_is_asked_to_keep_freed_memory():
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
        (presets["digits"], 64, 64),  # 5 tokens: one micro-batch
        (ViTConfig(2048, 16), 4, 1),  # 16385 tokens: never less than an image
    ],
)
def test_the_size_of_a_micro_batch(config, batch, size):
    assert micro_batch_size(config.tokens, batch) == size


def test_the_tree_keeps_few_buffers():
    """Leaves in order need one buffer for each level, not one for each leaf."""
    params = ViT(PLAIN).init()
    tree, made = SumTree(64), set()
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
        with pytest.raises(UserError, match="there are 8 images and 7 labels"):
            w.loss_and_grad(model.init(), images, labels[:7])
        images[5] = np.nan
        with pytest.raises(UserError, match="NaN or infinity"):
            w.loss_and_grad(model.init(), images, labels)


def test_outside_a_with_block_they_say_so():
    with pytest.raises(UserError, match="use them inside `with"):
        Workers(ViT(PLAIN)).predict(ViT(PLAIN).init(), draw(2, 0)[0])


@pytest.mark.parametrize("name", ["workers", "micro_batch", "seed"])
@pytest.mark.parametrize("value", [-1, 2.5, 2.0, "2", True, np.nan, [2]])
def test_impossible_numbers_are_refused(name, value):
    with pytest.raises(UserError, match=rf"^{name} is .*: it must be an integer, [01] or more"):
        Workers(ViT(PLAIN), **{name: value})
    Workers(ViT(PLAIN), **{name: np.int64(2)})


def test_what_is_no_model_is_refused():
    with pytest.raises(UserError, match=r"^model is of type Buffer: it must be a ViT"):
        Workers(ViT(PLAIN).init())


def focal(logits, labels):
    return cross_entropy(logits, labels)


@pytest.mark.parametrize(
    ("loss", "problem"),
    [
        (focal, "unexpected keyword argument 'count'"),
        (lambda logits, count: None, "multiple values|too many positional"),
        ("cross_entropy", "it is a str"),
        (None, "it is a NoneType"),
    ],
)
def test_a_loss_that_cannot_be_called_is_refused(loss, problem):
    with pytest.raises(UserError, match=rf"loss\(logits, labels, count=n\) \(.*({problem})"):
        Workers(ViT(PLAIN), loss)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_loss_may_use_the_same_workers(workers):
    """It runs in a worker's thread, which cannot wait for the others."""
    model = ViT(PLAIN)
    params, teacher = model.init(0), model.init(1)
    images, labels = draw(12, 0)

    def loss(logits, labels, count):
        predicted = w.predict(teacher, images)  # four micro-batches
        return cross_entropy(logits, labels, count=count)[0] + predicted.sum(), logits

    with Workers(model, loss, workers=workers, micro_batch=3) as w:
        found, _ = w.loss_and_grad(params, images, labels)
        predicted = w.predict(teacher, images)
        wanted = cross_entropy(w.predict(params, images), labels)[0] + 4 * predicted.sum()
    assert found == pytest.approx(float(wanted), rel=1e-4)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork with threads
def test_a_forked_process_cannot_use_the_threads_of_its_parent():
    """It says so instead of waiting for ever, and can leave the block or use its own."""
    model = ViT(PLAIN)
    params = model.init()
    images = draw(12, 0)[0]
    with Workers(model, workers=2, micro_batch=3) as w:
        wanted = w.predict(params, images)
        child = os.fork()
        if not child:
            code = 1
            try:
                with pytest.raises(UserError, match="have their threads in another process"):
                    w.predict(params, images)
                w.__exit__()
                with Workers(model, workers=2, micro_batch=3) as own:
                    code = 0 if np.array_equal(own.predict(params, images), wanted) else 2
            finally:
                os._exit(code)
        for _ in range(200):
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                break
            time.sleep(0.05)
        else:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the child waits for ever")
    assert os.waitstatus_to_exitcode(status) == 0


def test_prefetch_yields_the_same_items_and_errors():
    def items():
        yield from range(5)
        raise UserError("no more")

    before, given_items = threading.active_count(), prefetch(items())
    assert [next(given_items) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match="no more"):
        next(given_items)
    assert list(prefetch([])) == []
    assert threading.active_count() == before


def test_prefetch_is_one_item_ahead_and_stops_with_its_user():
    made = []
    for item in prefetch(made.append(i) or i for i in range(100)):
        if item == 3:
            break
    assert len(made) <= 5


def test_patches_are_left_out_of_each_micro_batch():
    """Fewer patches, drawn in each step, give another loss; the default is all."""
    model = ViT(PLAIN)
    params = model.init()
    params.flat += normal(params.flat.shape, 0, np.float32)
    images, labels = draw(8, 0)
    with Workers(model, micro_batch=3) as w:
        whole = {w.loss_and_grad(params, images, labels, step)[0] for step in range(3)}
        part = {w.loss_and_grad(params, images, labels, step, patches=2)[0] for step in range(3)}
    assert len(whole) == 1
    assert len(part - whole) == 3


def test_the_thread_engine_does_what_the_loop_in_the_readme_does():
    """The same bits as Workers and an optimizer; it predicts with the average."""
    model = ViT(CONFIG)

    def fresh():
        params = model.init()
        return params, AdamW(params, average=0.9)

    params, optimizer = fresh()
    engine = ThreadEngine(Workers(model, workers=2), params, optimizer, clip=0.5)
    found = [engine.step(*draw(9, i), i, 1e-2, patches=3) for i in range(4)]
    logits = engine.predict(draw(5, 9)[0])
    engine.close()
    params, optimizer = fresh()
    wanted = []
    with Workers(model, workers=1) as w:
        for i in range(4):
            loss, grads = w.loss_and_grad(params, *draw(9, i), i, patches=3)
            wanted.append((loss, optimizer.step(params, grads, 1e-2, clip=0.5)))
        assert np.array_equal(logits, w.predict(optimizer.average, draw(5, 9)[0]))
    assert found == wanted
    assert np.array_equal(engine.params.flat, params.flat)


def test_the_thread_engine_does_not_update_after_a_loss_that_is_not_finite():
    model = ViT(PLAIN)
    params = model.init()

    def infinite(logits, labels, count):
        return np.inf, np.ones_like(logits)

    engine = ThreadEngine(Workers(model, infinite, workers=1), params, AdamW(params))
    before = params.flat.copy()
    loss, norm = engine.step(*draw(4, 0), 0, 1e-2)
    engine.close()
    assert loss == np.inf
    assert np.isnan(norm)
    assert np.array_equal(params.flat, before)
