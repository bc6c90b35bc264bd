import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from numpyvit.gradcheck import SHARP
from numpyvit.layers.head import Head
from numpyvit.params import init
from numpyvit.testing import check_layer_contract, normal, seeds


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(0, 3), seeds)
def test_contract(batch, width, classes, hidden, seed):
    check_layer_contract(
        Head(width, classes, hidden), normal((batch, width), seed), seed, tolerance=SHARP
    )


def test_the_hidden_layer_has_a_nonlinearity():
    head = Head(3, 2, hidden=4)
    params = init(head, 0, np.float64)
    params.flat += normal(params.flat.shape, 0)
    (a, b), zero = normal((2, 1, 3), 1), np.zeros((1, 3))
    y = [head.forward(params, x)[0] for x in (a, b, a + b, zero)]
    assert not np.allclose(y[0] + y[1], y[2] + y[3])


def test_scores_start_at_zero():
    head = Head(5, 3)
    assert not head.forward(init(head), normal((2, 5), 0, np.float32))[0].any()
