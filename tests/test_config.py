"""ViTConfig: the errors for parts that do not fit, and the round trip through a dict and JSON."""

import math

import pytest

from numpyvit import UserError, ViTConfig


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"patch_size": 5},
            "28x28 cannot be cut into patches of 5x5: choose a patch_size that divides",
        ),
        ({"image_size": (28, 30)}, "28x30 cannot be cut"),
        ({"patch_overlap": 8}, "patch_overlap is 8: it must be an integer from 0 to 7"),
        ({"patch_overlap": 1.0}, "patch_overlap is 1.0"),
        ({"patch_overlap": -1}, "patch_overlap is -1"),
        ({"width": 66}, "width 66 cannot be divided among 4 heads"),
        (
            {"width": 24, "positions": "rotary"},
            "width is a multiple of 4, and width 24 with 4 heads gives 6",
        ),
        ({"pooling": "men"}, "did you mean 'mean'"),
        ({"positions": "sinusoid"}, "did you mean 'sinusoidal'"),
        ({"gelu": "relu"}, "one of tanh, erf"),
        ({"depth": 0}, "depth is 0: it must be a positive integer"),
        ({"width": 64.0}, "width is 64.0"),
        ({"heads": True}, "heads is True"),
        ({"head_hidden": -1}, "head_hidden is -1: it must be 0"),
        ({"dropout": 1.0}, "dropout is 1.0: it must be a number from 0 to 0.99"),
        ({"dropout": math.nan}, "dropout is nan"),
        ({"image_size": "28"}, "image_size is '28'"),
        ({"norm_eps": 0}, "norm_eps is 0: it must be a number above 0"),
        ({"qkv_bias": 1}, "qkv_bias is 1: it must be True or False"),
    ],
)
def test_parts_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        ViTConfig(**fields)


def test_a_config_survives_a_dict_and_json():
    config = ViTConfig((8, 4), (4, 2), gelu="erf")
    fields = config.to_dict()
    assert ViTConfig.from_dict(fields) == config
    lists = {"image_size": [8, 4], "patch_size": [4, 2]}  # JSON has no tuples
    assert ViTConfig.from_dict(fields | lists) == config
    with pytest.raises(UserError, match="'depht' is unknown: did you mean 'depth'"):
        ViTConfig.from_dict({"depht": 3})


def test_the_patch_dropout_of_older_configs_is_ignored():
    fields = ViTConfig().to_dict()
    assert "patch_dropout" not in fields
    before = dict(fields, patch_dropout=0.3)
    assert ViTConfig.from_dict(before) == ViTConfig()
    assert before["patch_dropout"] == 0.3  # the caller's dict is not changed


def test_sizes_that_follow_from_the_fields():
    config = ViTConfig((8, 4), (4, 2), pooling="cls")
    assert config.image == (8, 4)
    assert config.patch == (4, 2)
    assert config.grid == (2, 2)
    assert (config.patches, config.prefix, config.tokens) == (4, 1, 5)
    assert ViTConfig(8, 4, pooling="mean").tokens == 4
