import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit import ViT, ViTConfig, Workers
from numpyvit.gradcheck import SHARP
from numpyvit.layers.patch_dropout import patch_dropout_backward, patch_dropout_forward
from numpyvit.testing import (
    assert_dtype_kept,
    assert_gradients,
    assert_linear_backward,
    assert_pure,
    assert_reentrant,
    normal,
    seeds,
    shapes_BND,
)


@given(shapes_BND(), st.sampled_from([0.1, 0.5, 0.99]), st.integers(0, 1), seeds)
def test_contract(shape, p, first, seed):
    def forward(x):
        return patch_dropout_forward(x, p, np.random.default_rng(seed), min(first, shape[1] - 1))

    x = normal(shape, seed)
    assert_gradients(forward, patch_dropout_backward, x, tolerance=SHARP)
    assert_linear_backward(forward, patch_dropout_backward, x, seed=seed)
    assert_pure(forward, patch_dropout_backward, x, seed=seed)
    assert_dtype_kept(forward, patch_dropout_backward, x, seed=seed)
    assert_reentrant(forward, patch_dropout_backward, x, seed=seed)


@given(st.integers(1, 5), st.integers(1, 12), st.integers(0, 2), st.floats(0.01, 0.99), seeds)
def test_image_by_image(B, patches, first, p, seed):
    """As many as promised, each once, in their order, the class tokens among them; and others in the next image."""
    N = first + patches
    x = np.broadcast_to(np.arange(N, dtype=float)[:, None], (B, N, 3))
    y, _ = patch_dropout_forward(x, p, np.random.default_rng(seed), first)
    assert y.shape == (B, first + max(1, round((1 - p) * patches)), 3)
    for image in y:
        kept = image[:, 0].tolist()
        assert kept[:first] == list(range(first))
        assert kept == sorted(set(kept))
        assert np.array_equal(image, np.repeat(image[:, :1], 3, axis=1))


def test_every_patch_is_left_out_as_often():
    x = np.broadcast_to(np.arange(8, dtype=float)[:, None], (4000, 8, 1))
    y, _ = patch_dropout_forward(x, 0.5, np.random.default_rng(0))
    assert np.bincount(y.astype(int).ravel()) / 4000 == pytest.approx(np.full(8, 0.5), abs=0.03)
    assert len({tuple(row) for row in y[:20, :, 0]}) > 10


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_it_can_be_left_off_and_workers_agree(pooling):
    config = ViTConfig(
        8, 2, 1, 3, width=8, depth=2, heads=2, mlp_width=8, pooling=pooling, patch_dropout=0.5
    )
    model, x, labels = ViT(config), normal((6, 8, 8, 1), 0), np.arange(6) % 3
    params = model.init(0, np.float64)
    found = {}
    for workers in (1, 2, 3):
        with Workers(model, seed=1, workers=workers, micro_batch=2) as threads:
            for whole in (False, True):
                loss, grads = threads.loss_and_grad(params, x, labels, 5, all_patches=whole)
                found.setdefault(whole, set()).add((loss, grads.flat.tobytes()))
    assert len(found[False]) == len(found[True]) == 1
    assert found[False] != found[True]
    plain = ViT(ViTConfig(8, 2, 1, 3, width=8, depth=2, heads=2, mlp_width=8, pooling=pooling))
    with Workers(plain, seed=1, workers=1, micro_batch=2) as threads:
        loss, grads = threads.loss_and_grad(plain.init(0, np.float64), x, labels, 5)
    assert (loss, grads.flat.tobytes()) in found[True]
