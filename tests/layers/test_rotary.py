import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from numpyvit.gradcheck import SHARP
from numpyvit.layers.rotary import rotary_backward, rotary_forward, turns
from numpyvit.testing import (
    assert_dtype_kept,
    assert_gradients,
    assert_linear_backward,
    assert_pure,
    assert_reentrant,
    close,
    normal,
    seeds,
)

grids = st.tuples(st.integers(1, 3), st.integers(1, 3))


@given(grids, st.integers(1, 3), st.integers(0, 1), st.booleans(), st.booleans(), seeds)
def test_contract(grid, B, first, each_image, by_head, seed):
    turn = turns(grid, 8, first)
    x = normal((B, len(turn), *((2,) if by_head else ()), 8), seed)
    turn = (
        turn[np.random.default_rng(seed).integers(0, len(turn), x.shape[:2])]
        if each_image
        else turn
    )

    def forward(x):
        return rotary_forward(x, turn)

    assert_gradients(forward, rotary_backward, x, tolerance=SHARP)
    assert_linear_backward(forward, rotary_backward, x, seed=seed)
    assert_pure(forward, rotary_backward, x, seed=seed)
    assert_dtype_kept(forward, rotary_backward, x, seed=seed)
    assert_reentrant(forward, rotary_backward, x, seed=seed)


@given(st.integers(1, 3), st.integers(1, 3), seeds)
def test_by_the_real_formula(rows, columns, seed):
    """Pair by pair; the row turns the first half of them, the column the second, at frequencies 100^(-c / (E / 4))."""
    E, x = 8, normal((2, rows * columns, 3, 8), seed)
    y, _ = rotary_forward(x, turns((rows, columns), E))
    for n in range(rows * columns):
        for pair in range(E // 2):
            place = n // columns if pair < E // 4 else n % columns
            angle = place * 100 ** (-(pair % (E // 4)) / (E // 4))
            a, b = x[:, n, :, 2 * pair], x[:, n, :, 2 * pair + 1]
            assert close(y[:, n, :, 2 * pair], a * np.cos(angle) - b * np.sin(angle))
            assert close(y[:, n, :, 2 * pair + 1], a * np.sin(angle) + b * np.cos(angle))


@given(st.integers(0, 2), st.integers(0, 2), seeds)
def test_scores_see_only_how_far_apart(down, right, seed):
    """The same q and k at all places: the score of two tokens is that of the two that lie `down` and `right` of them."""
    q, k = normal((8,), seed), normal((8,), seed + 1)
    q, k = (
        rotary_forward(np.tile(t, (1, 25, 1)), turns((5, 5), 8))[0][0].reshape(5, 5, 8)
        for t in (q, k)
    )
    scores = np.einsum("ijc,klc->ijkl", q, k)
    h, w = 5 - down, 5 - right
    assert close(scores[:h, :w, :h, :w], scores[down:, right:, down:, right:])
    assert not np.allclose(scores[0, 0], scores[0, 0, 0, 0])


def test_the_class_token_is_not_turned():
    x = normal((2, 5, 4), 0)
    y, _ = rotary_forward(x, turns((2, 2), 4, first=1))
    assert np.array_equal(y[:, 0], x[:, 0])
    assert np.array_equal(y[:, 1:], rotary_forward(x[:, 1:], turns((2, 2), 4))[0])


def test_half_precision():
    x = normal((2, 4, 8), 0)
    y, _ = rotary_forward(x.astype(np.float16), turns((2, 2), 8))
    assert y.dtype == np.float16
    assert np.allclose(y, rotary_forward(x, turns((2, 2), 8))[0], atol=1e-2)


def test_of_any_layout():
    x = normal((2, 4, 16), 0)[..., ::2]
    assert np.array_equal(
        rotary_forward(x, turns((2, 2), 8))[0], rotary_forward(x.copy(), turns((2, 2), 8))[0]
    )
