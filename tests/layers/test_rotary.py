import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit.gradcheck import SHARP
from numpyvit.layers.rotary import (
    RotaryAttention,
    RotaryPositions,
    rotary_backward,
    rotary_forward,
    rotation_table,
)
from numpyvit.layers.rotary_fast import rotary_fast_backward, rotary_fast_forward
from numpyvit.testing import check_layer_contract, check_pair_contract, close, normal, seeds

grids = st.tuples(st.integers(1, 3), st.integers(1, 3))
textbook_forward, textbook_backward = (
    inspect.unwrap(rotary_forward),
    inspect.unwrap(rotary_backward),
)
PAIRS = {
    "textbook": (textbook_forward, textbook_backward),
    "fast": (rotary_fast_forward, rotary_fast_backward),
}


@pytest.mark.parametrize("name", PAIRS)
@given(
    grid=grids,
    B=st.integers(1, 3),
    prefix=st.integers(0, 1),
    each_image=st.booleans(),
    by_head=st.booleans(),
    seed=seeds,
)
def test_pair(name, grid, B, prefix, each_image, by_head, seed):
    forward, backward = PAIRS[name]
    rotation = rotation_table(grid, 8, prefix)
    N = len(rotation)
    if each_image:  # different positions for each image, as after patch dropout
        rotation = rotation[np.random.default_rng(seed).integers(0, N, (B, N))]
    x = normal((B, N, 8), seed)
    if by_head:
        x = normal((B, 2, N, 8), seed)
        rotation = rotation[:, None] if each_image else rotation
    check_pair_contract(
        lambda x: forward(x, rotation.astype(x.dtype)),
        backward,
        x,
        seed=seed,
        splits=False,
        tolerance=SHARP,
    )


@given(grids, seeds)
def test_fast_twin_equals_the_textbook(grid, seed):
    rotation = rotation_table(grid, 8)
    x = normal((2, 3, len(rotation), 8), seed)
    assert close(rotary_fast_forward(x, rotation)[0], textbook_forward(x, rotation)[0])
    assert close(rotary_fast_backward(x, rotation), textbook_backward(x, rotation))
    assert np.array_equal(rotary_forward(x, rotation)[0], rotary_fast_forward(x, rotation)[0])


@given(st.integers(1, 3), st.integers(1, 3), seeds)
def test_by_the_formula(rows, columns, seed):
    """The row rotates the first half of the pairs, the column the second.

    The frequencies are 100^(-c / (E / 4)).
    """
    E, x = 8, normal((2, 3, rows * columns, 8), seed)
    y, _ = rotary_forward(x, rotation_table((rows, columns), E))
    for n in range(rows * columns):
        for pair in range(E // 2):
            position = n // columns if pair < E // 4 else n % columns
            angle = position * 100 ** (-(pair % (E // 4)) / (E // 4))
            a, b = x[:, :, n, 2 * pair], x[:, :, n, 2 * pair + 1]
            assert close(y[:, :, n, 2 * pair], a * np.cos(angle) - b * np.sin(angle))
            assert close(y[:, :, n, 2 * pair + 1], a * np.sin(angle) + b * np.cos(angle))


@given(st.integers(0, 2), st.integers(0, 2), seeds)
def test_scores_depend_on_the_distance_only(down, right, seed):
    """With the same q and k everywhere, moving both tokens leaves the score as it is."""
    q, k = normal((8,), seed), normal((8,), seed + 1)
    q, k = (
        rotary_forward(np.tile(t, (1, 25, 1)), rotation_table((5, 5), 8))[0][0].reshape(5, 5, 8)
        for t in (q, k)
    )
    scores = np.einsum("ijc,klc->ijkl", q, k)
    h, w = 5 - down, 5 - right
    assert close(scores[:h, :w, :h, :w], scores[down:, right:, down:, right:])
    assert not np.allclose(scores[0, 0], scores[0, 0, 0, 0])


def test_the_class_token_is_not_rotated():
    x = normal((2, 5, 4), 0)
    y, _ = rotary_forward(x, rotation_table((2, 2), 4, prefix=1))
    assert np.array_equal(y[:, 0], x[:, 0])
    assert np.array_equal(y[:, 1:], rotary_forward(x[:, 1:], rotation_table((2, 2), 4))[0])


def test_half_precision():
    x, table = normal((2, 4, 8), 0), rotation_table((2, 2), 8)
    y, _ = rotary_forward(x.astype(np.float16), table.astype(np.float32))
    assert y.dtype == np.float16
    assert np.allclose(y, rotary_forward(x, table)[0], atol=1e-2)


@given(st.integers(1, 3), st.integers(1, 2), st.booleans(), seeds)
def test_contract_of_rotary_attention(B, heads, some, seed):
    layer, x = RotaryAttention(4 * heads, heads), normal((B, 4, 4 * heads), seed)
    rotation = RotaryPositions((2, 2), 4).rotation(x)
    if some:
        keep = np.random.default_rng(seed).integers(0, 4, (B, 4))
        rotation = RotaryPositions((2, 2), 4).rotation(x, keep)
        assert rotation.shape == (B, 1, 4, 2, 2)
    check_layer_contract(layer, x, seed, rotation=rotation, splits=not some, tolerance=SHARP)
