import math

import numpy as np
import pytest
from hypothesis import given

from numpyvit.gradcheck import SHARP
from numpyvit.layers.positions import ClsToken, Positions, sinusoidal
from numpyvit.params import init
from numpyvit.testing import check_layer_contract, normal, seeds, shapes_BND


@given(shapes_BND(), seeds)
def test_contract_of_the_class_token(shape, seed):
    check_layer_contract(ClsToken(shape[-1]), normal(shape, seed), seed, tolerance=SHARP)


@given(shapes_BND(), seeds)
def test_contract_of_learned_positions(shape, seed):
    check_layer_contract(
        Positions(*shape[1:]), normal(shape, seed), seed, splits=True, tolerance=SHARP
    )


@given(shapes_BND(), seeds)
def test_the_class_token_comes_first(shape, seed):
    layer, x = ClsToken(shape[-1]), normal(shape, seed)
    params = init(layer, seed, np.float64)
    y, _ = layer.forward(params, x)
    assert np.array_equal(y[:, 1:], x)
    assert all(np.array_equal(row, params[layer.w]) for row in y[:, 0])


@pytest.mark.parametrize(("n", "width"), [(1, 1), (5, 6), (17, 7), (197, 192)])
def test_sinusoidal_by_the_formula(n, width):
    table = sinusoidal(n, width)
    for pos in (0, n // 2, n - 1):
        for j in range(width):
            angle = pos / 10000 ** (2 * (j // 2) / width)
            assert table[pos, j] == pytest.approx(
                math.cos(angle) if j % 2 else math.sin(angle), abs=1e-12
            )
    with pytest.raises(ValueError, match="read-only"):
        table[0, 0] = 1
