import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from numpyvit.gradcheck import SHARP
from numpyvit.layers.overlap import (
    OverlappingPatchEmbed,
    overlapping_patchify,
    overlapping_unpatchify,
)
from numpyvit.layers.patches import (
    PatchEmbed,
    patchify,
    put_back_patches,
    select_patches,
    unpatchify,
)
from numpyvit.params import init
from numpyvit.testing import (
    assert_gradients,
    check_layer_contract,
    check_pair_contract,
    normal,
    seeds,
    shapes_BHWC,
)


def make(image, patch, channels, width, overlap):
    """Return the layer for patches with this overlap, which may be 0."""
    if overlap:
        return OverlappingPatchEmbed(image, patch, channels, width, overlap)
    return PatchEmbed(image, patch, channels, width)


@given(shapes_BHWC(), st.integers(1, 4), st.integers(0, 3), seeds)
def test_contract(shapes, width, overlap, seed):
    (B, H, W, C), patch = shapes
    check_layer_contract(
        make((H, W), patch, C, width, overlap),
        normal((B, H, W, C), seed),
        seed,
        tolerance=SHARP,
    )


@given(shapes_BHWC(), seeds)
def test_unpatchify_is_the_inverse_and_the_backward(shapes, seed):
    (B, H, W, C), patch = shapes
    images = normal((B, H, W, C), seed)
    assert np.array_equal(unpatchify(patchify(images, patch), patch, (H, W)), images)
    assert_gradients(
        lambda x: (patchify(x, patch), None),
        lambda dy, _: unpatchify(dy, patch, (H, W)),
        images,
        tolerance=SHARP,
    )


@given(shapes_BHWC(), st.integers(1, 3), st.sampled_from([0, 0, 1, 2]), seeds)
def test_equals_a_convolution_whose_stride_is_the_patch(shapes, width, overlap, seed):
    (B, H, W, C), (p1, p2) = shapes
    layer, images = make((H, W), (p1, p2), C, width, overlap), normal((B, H, W, C), seed)
    params = init(layer, seed, np.float64)
    params.flat += normal(params.flat.shape, seed)
    kernel = params[layer.w].reshape(p1 + 2 * overlap, p2 + 2 * overlap, C, width)
    y, _ = layer.forward(params, images)
    y = y.reshape(B, H // p1, W // p2, width)
    for b in range(B):
        for i in range(H // p1):
            for j in range(W // p2):
                total = params[layer.b].copy()
                for di in range(-overlap, p1 + overlap):
                    for dj in range(-overlap, p2 + overlap):
                        if 0 <= i * p1 + di < H and 0 <= j * p2 + dj < W:
                            total += (
                                images[b, i * p1 + di, j * p2 + dj]
                                @ kernel[di + overlap, dj + overlap]
                            )
                assert np.allclose(y[b, i, j], total, rtol=0, atol=1e-12)


@given(shapes_BHWC(), st.integers(1, 3), seeds)
def test_patches_that_overlap_have_the_others_in_their_middle(shapes, overlap, seed):
    (B, H, W, C), (p1, p2) = shapes
    images = normal((B, H, W, C), seed)
    wide = overlapping_patchify(images, (p1, p2), overlap).reshape(
        B, -1, p1 + 2 * overlap, p2 + 2 * overlap, C
    )
    middle = wide[:, :, overlap:-overlap, overlap:-overlap]
    assert np.array_equal(middle.reshape(B, -1, p1 * p2 * C), patchify(images, (p1, p2)))
    assert_gradients(
        lambda x: (overlapping_patchify(x, (p1, p2), overlap), None),
        lambda dy, _: overlapping_unpatchify(dy, (p1, p2), overlap, (H, W)),
        images,
        tolerance=SHARP,
    )


def test_a_patch_is_a_square_of_the_image_and_not_a_run_of_pixels():
    image = np.arange(16.0).reshape(1, 4, 4, 1)
    assert patchify(image, (2, 2))[0].tolist() == [
        [0, 1, 4, 5],
        [2, 3, 6, 7],
        [8, 9, 12, 13],
        [10, 11, 14, 15],
    ]


def test_no_gradient_for_the_image_where_none_is_needed():
    layer = PatchEmbed((4, 4), (2, 2), 1, 3)
    params = init(layer)
    y, cache = layer.forward(params, np.ones((2, 4, 4, 1), np.float32))
    assert layer.backward(y, cache, params.zeros_like(), need_dx=False) is None


@given(st.integers(1, 3), st.integers(1, 5), st.data(), seeds)
def test_selecting_patches_and_putting_them_back(B, n, data, seed):
    m = data.draw(st.integers(1, n))
    rng = np.random.default_rng(seed)
    keep = np.stack([rng.permutation(n)[:m] for _ in range(B)])
    check_pair_contract(
        lambda x: (select_patches(x, keep), keep),
        lambda dy, keep: put_back_patches(dy, keep, n),
        normal((B, n, 3), seed),
        seed=seed,
        splits=False,
        tolerance=SHARP,
    )
