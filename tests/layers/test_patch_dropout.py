import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit import ViT, ViTConfig, Workers
from numpyvit.layers.patch_dropout import patches_kept, sample_patches
from numpyvit.testing import normal, seeds


@given(st.integers(1, 5), st.integers(1, 12), st.data(), seeds)
def test_each_image_keeps_different_patches_in_order(B, n, data, seed):
    m = data.draw(st.integers(1, n))
    keep = sample_patches(np.random.default_rng(seed), B, n, m, np.zeros(1))
    assert keep.shape == (B, m)
    for image in keep.tolist():
        assert image == sorted(set(image))
        assert set(image) <= set(range(n))


def test_every_patch_is_dropped_equally_often():
    keep = sample_patches(np.random.default_rng(0), 4000, 8, 4, np.zeros(1))
    assert np.bincount(keep.ravel()) / 4000 == pytest.approx(np.full(8, 0.5), abs=0.03)
    assert len({tuple(row) for row in keep[:20]}) > 10


def test_patches_kept():
    assert [patches_kept(p, 64) for p in (0.0, 0.25, 0.5, 0.75, 0.999)] == [64, 48, 32, 16, 1]


def make(pooling, positions, overlap=0):
    fields = {"pooling": pooling, "positions": positions, "patch_overlap": overlap}
    return ViT(ViTConfig(8, 2, 1, 3, width=8, depth=2, heads=2, mlp_width=8, **fields))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary", "none"])
@pytest.mark.parametrize("overlap", [0, 1])
def test_keeping_all_patches_changes_nothing(pooling, positions, overlap):
    model, x = make(pooling, positions, overlap), normal((3, 8, 8, 1), 0)
    params = model.init(0, np.float64)
    params.flat += normal(params.flat.shape, 1) / 3
    keep = np.tile(np.arange(16), (3, 1))
    found = []
    for which in (None, keep):
        logits, cache = model.forward(params, x, keep=which)
        grads = params.zeros_like()
        dx = model.backward(normal(logits.shape, 2), cache, grads, need_dx=True)
        found.append((logits, grads.flat, dx))
    for all_patches, kept in zip(*found, strict=True):
        assert np.allclose(kept, all_patches, rtol=0, atol=1e-12)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary", "none"])
def test_a_dropped_patch_has_no_part_in_the_result(pooling, positions):
    model, x = make(pooling, positions), normal((2, 8, 8, 1), 0)
    params = model.init(0, np.float64)
    params.flat += normal(params.flat.shape, 1) / 3
    keep = np.array([[0, 3, 15], [1, 2, 3]])
    logits, cache = model.forward(params, x, keep=keep)
    dx = model.backward(normal(logits.shape, 2), cache, params.zeros_like(), need_dx=True)
    changed = x.copy()
    changed[0, :2, 2:4] += 5  # patch 1 of image 0
    changed[1, 2:] -= 5  # all patches of image 1 below the first row
    assert np.array_equal(model.forward(params, changed, keep=keep)[0], logits)
    assert not dx[0, :2, 2:4].any()
    assert not dx[1, 2:].any()
    assert dx[0, :2, :2].any()
    changed[0, :2, :2] += 1  # patch 0 of image 0 takes part
    assert not np.array_equal(model.forward(params, changed, keep=keep)[0], logits)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_any_number_of_workers_draws_the_same_patches(pooling):
    model, x, labels = make(pooling, "learned"), normal((6, 8, 8, 1), 0), np.arange(6) % 3
    params = model.init(0, np.float64)
    found = {}
    for workers in (1, 2, 3):
        with Workers(model, seed=1, workers=workers, micro_batch=2) as threads:
            for patches in (8, None):
                loss, grads = threads.loss_and_grad(params, x, labels, 5, patches=patches)
                found.setdefault(patches, set()).add((loss, grads.flat.tobytes()))
    assert len(found[8]) == len(found[None]) == 1
    assert found[8] != found[None]
