import math

import numpy as np
import pytest
from hypothesis import given

from numpyvit.gradcheck import SHARP
from numpyvit.layers.positions import (
    LearnedPositions,
    NoPositions,
    SinusoidalPositions,
    sinusoidal,
    with_prefix,
)
from numpyvit.params import init
from numpyvit.testing import check_layer_contract, close, normal, seeds, shapes_BND


@given(shapes_BND(), seeds)
def test_contract_of_learned_positions(shape, seed):
    layer = LearnedPositions(*shape[1:])
    check_layer_contract(layer, normal(shape, seed), seed, tolerance=SHARP)


@given(seeds)
def test_contract_of_learned_positions_of_some_patches(seed):
    keep = np.array([[0, 2], [3, 1]])
    layer = LearnedPositions(5, 3, prefix=1)
    check_layer_contract(
        layer, normal((2, 3, 3), seed), seed, keep=keep, splits=False, tolerance=SHARP
    )


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize("kind", [LearnedPositions, SinusoidalPositions])
def test_each_kept_patch_gets_the_vector_of_its_place(kind, prefix):
    layer, N, D = kind(4 + prefix, 6, prefix), 4 + prefix, 6
    params = init(layer, 0, np.float64)
    x, keep = normal((2, N, D), 0), np.array([[0, 3], [1, 2]])
    full, _ = layer.forward(params, x)
    index = with_prefix(keep, prefix)
    assert index.tolist() == [[*range(prefix), *(k + prefix for k in row)] for row in keep.tolist()]
    rows = np.arange(2)[:, None]
    assert close(layer.forward(params, x[rows, index], keep)[0], full[rows, index])


def test_no_positions_add_nothing():
    x = normal((2, 3, 4), 0)
    y, cache = NoPositions().forward(init(NoPositions()), x)
    assert y is x
    assert NoPositions().backward(x, cache, init(NoPositions())) is x
    assert NoPositions().rotation(x) is None


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
