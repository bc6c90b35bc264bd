import numpy as np
import pytest
from hypothesis import given

from numpyvit import ViT, ViTConfig, presets
from numpyvit.look.costs import costs, summary
from numpyvit.look.products import record_products
from numpyvit.testing import vit_configs

CONFIG = ViTConfig(6, 3, 2, 5, width=8, depth=3, heads=2, mlp_width=12, head_hidden=7)


def wanted_flops(c):
    """The matrix products of one forward pass, by their formulas."""
    N, D, F = c.tokens, c.width, c.mlp_width
    window = (c.patch[0] + 2 * c.patch_overlap) * (c.patch[1] + 2 * c.patch_overlap)
    embed = 2 * c.patches * window * c.channels * D
    block = 2 * N * D * 3 * D + 2 * 2 * N * N * D + 2 * N * D * D + 2 * 2 * N * D * F
    hidden = 2 * D * c.head_hidden
    return embed + c.depth * block + hidden + 2 * (c.head_hidden or D) * c.classes


@given(vit_configs())
def test_costs_are_those_of_the_formulas(config):
    rows = costs(config)
    assert sum(row.weights for row in rows) == ViT(config).count()
    assert sum(row.flops for row in rows) == wanted_flops(config)
    assert rows[-1].shape == (config.classes,)


@given(vit_configs())
def test_backward_has_twice_the_products_except_for_the_images(config):
    B = 2
    products = record_products(config, B)
    flops = {
        method: sum(p.flops for p in products if p.method == method)
        for method in ("forward", "backward")
    }
    embed = sum(p.flops for p in products if (p.layer, p.method) == ("embed", "forward"))
    assert flops["forward"] == B * wanted_flops(config)
    assert flops["backward"] == 2 * flops["forward"] - embed  # the images need no gradient


def test_the_rows_are_the_layers():
    rows = {row.name: row for row in costs(CONFIG)}
    assert list(rows)[:3] == ["embed", "prefix", "positions"]
    assert rows["embed"].shape == (4, 8)
    assert rows["blocks.2.attention.qkv"].shape == (5, 24)
    assert rows["blocks.1.mlp.gelu"].weights == rows["blocks.1.mlp.gelu"].flops == 0
    assert "blocks.1.mlp" not in rows
    assert rows["head.hidden"].weights == 8 * 7 + 7


def test_replayed_products_have_the_recorded_shapes():
    for product in record_products(CONFIG, 2):
        result = product.replay()()
        assert result.shape == (*product.a[:-1], product.b[-1])
        assert np.all(result == product.a[-1])


@pytest.mark.parametrize("name", ["mnist", "ViT-B/16"])
def test_summary(name):
    lines = summary(presets[name]).splitlines()
    assert lines[0].split() == ["layer", "kind", "output", "weights", "FLOPs"]
    assert lines[-1].split()[1] == f"{ViT(presets[name]).count():,}"
    assert len({len(line) for line in lines}) == 1
    last = presets[name].depth - 1
    together = next(line for line in lines if line.startswith(f"blocks.1 to blocks.{last} "))
    assert sum(line.startswith("blocks.") for line in lines) == 1 + sum(
        line.startswith("blocks.0.") for line in lines
    )
    for column in (-2, -1):  # weights and FLOPs, of which a column's lines add up to its last
        numbers = [int(line.split()[column].replace(",", "")) for line in lines[1:]]
        assert sum(numbers[:-1]) == numbers[-1]
        block = sum(
            int(line.split()[column].replace(",", ""))
            for line in lines
            if line.startswith("blocks.0.")
        )
        assert together.split()[column] == f"{last * block:,}"
