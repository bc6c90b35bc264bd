import numpy as np
from hypothesis import given

from numpyvit import ViT
from numpyvit.gradcheck import SHARP
from numpyvit.layers.pooling import (
    ClsPool,
    MeanPool,
    cls_pool_backward,
    cls_pool_forward,
    mean_pool_backward,
    mean_pool_forward,
)
from numpyvit.layers.prefix import ClsToken
from numpyvit.params import init
from numpyvit.testing import (
    check_layer_contract,
    check_pair_contract,
    close,
    normal,
    seeds,
    shapes_BND,
    vit_configs,
)


@given(shapes_BND(), seeds)
def test_contract_of_the_class_token(shape, seed):
    check_layer_contract(ClsToken(shape[-1]), normal(shape, seed), seed, tolerance=SHARP)


@given(shapes_BND(), seeds)
def test_the_class_token_comes_first(shape, seed):
    layer, x = ClsToken(shape[-1]), normal(shape, seed)
    params = init(layer, seed, np.float64)
    y, _ = layer.forward(params, x)
    assert np.array_equal(y[:, 1:], x)
    assert all(np.array_equal(row, params[layer.w]) for row in y[:, 0])


@given(vit_configs(), seeds)
def test_the_config_counts_the_tokens_that_the_layer_puts_in_front(config, seed):
    model = ViT(config)
    x = normal((2, config.patches, config.width), seed)
    y, _ = model.prefix.forward(model.init(seed, np.float64), x)
    assert y.shape[1] == config.prefix + config.patches == config.tokens
    assert np.array_equal(y[:, config.prefix :], x)


@given(shapes_BND(), seeds)
def test_pooling_pairs(shape, seed):
    x = normal(shape, seed)
    check_pair_contract(
        cls_pool_forward, cls_pool_backward, x, seed=seed, splits=False, tolerance=SHARP
    )
    check_pair_contract(
        mean_pool_forward, mean_pool_backward, x, seed=seed, splits=False, tolerance=SHARP
    )


@given(shapes_BND(), seeds)
def test_pooling_takes_the_first_token_or_the_mean(shape, seed):
    x = normal(shape, seed)
    assert np.array_equal(ClsPool().forward(init(ClsPool()), x)[0], x[:, 0])
    assert close(MeanPool().forward(init(MeanPool()), x)[0], x.mean(1))
