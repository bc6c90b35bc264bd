import numpy as np
from hypothesis import given

from numpyvit.gradcheck import SHARP
from numpyvit.layers.layernorm import LayerNorm, layernorm_forward
from numpyvit.testing import check_layer_contract, normal, seeds, shapes_BND


@given(shapes_BND(), seeds)
def test_contract(shape, seed):
    # A large eps keeps the function smooth where a row happens to be nearly constant, so that
    # differences can judge it. With one feature, xhat is 0 whatever x is, and neither x nor
    # gamma has a gradient.
    zero = ["x", "gamma"] if shape[-1] == 1 else []
    check_layer_contract(
        LayerNorm(shape[-1], eps=0.3), normal(shape, seed), seed, zero=zero, tolerance=SHARP
    )


@given(seeds)
def test_contract_at_the_usual_eps(seed):
    rows = np.linspace(-2, 2, 12) + 0.1 * normal((2, 3, 12), seed)
    check_layer_contract(LayerNorm(12, eps=1e-6), rows, seed, tolerance=SHARP)


@given(shapes_BND(max_D=50), seeds)
def test_rows_get_mean_0_and_deviation_1(shape, seed):
    x = 3 + 2 * normal((*shape[:-1], shape[-1] + 2), seed)
    y, _ = layernorm_forward(x, np.ones(x.shape[-1]), np.zeros(x.shape[-1]), 1e-12)
    assert np.allclose(y.mean(-1), 0, atol=1e-9)
    assert np.allclose(y.std(-1), 1, atol=1e-6)
