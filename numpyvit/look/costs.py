"""The layers of a model with their output shapes, weights and FLOPs: `numpyvit info`."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..config import ViTConfig
from ..params import Buffer, Param
from ..vit import ViT
from ..watch import Call, watch
from .products import record_products


@dataclass(frozen=True)
class Cost:
    """One layer. name: as in the names of weights; kind: its class; shape: of its output.

    weights: the number of its own weights; flops: those of its own matrix products in one
    forward pass, with a multiplication and an addition counted as two. Both are without the
    layers inside it. shape and flops are for one image.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    weights: int
    flops: int


def costs(config: ViTConfig) -> list[Cost]:
    """Return the layers in the order in which they finish, from the image to the scores.

    What is computed element by element is not counted, and neither is the saving in the
    last block of a model with a class token. Layers that only combine others, and those
    that do nothing, are left out. All blocks cost the same, so only one is run.
    """
    one_block = dataclasses.replace(config, depth=1)
    rows = run_costs(one_block)
    block = [row for row in rows if row.name.startswith("blocks.")]
    before = rows[: rows.index(block[0])]
    after = rows[rows.index(block[-1]) + 1 :]
    blocks = [
        dataclasses.replace(row, name=row.name.replace("blocks.0", f"blocks.{i}", 1))
        for i in range(config.depth)
        for row in block
    ]
    return before + blocks + after


def run_costs(config: ViTConfig) -> list[Cost]:
    """Return the layers of a model that is run on one image."""
    flops: dict[str, int] = {}
    for product in record_products(config, 1, backward=False):
        flops[product.layer] = flops.get(product.layer, 0) + product.flops
    rows: list[Cost] = []

    def hook(call: Call) -> Any:
        y, cache = call()
        own = [p for p in vars(call.layer).values() if isinstance(p, Param)]
        combines = any(hasattr(part, "forward") for part in vars(call.layer).values())
        does_nothing = y is call.args[1]
        if call.name and (own or call.name in flops or not (combines or does_nothing)):
            kind, weights = type(call.layer).__name__, sum(p.size for p in own)
            rows.append(Cost(call.name, kind, y.shape[1:], weights, flops.get(call.name, 0)))
        return y, cache

    model = ViT(config, shortcuts=False)
    params = Buffer(model.params, np.zeros(model.count(), np.float32))
    image = np.zeros((1, *config.image, config.channels), np.float32)
    with watch(model, hook):
        model.forward(params, image, need_cache=False)
    return rows


def is_like_first_block(row: Cost) -> bool:
    """Return whether the layer belongs to a block after the first."""
    return row.name.startswith("blocks.") and not row.name.startswith("blocks.0.")


def total(rows: list[Cost], name: str, kind: str = "") -> Cost:
    """Return a row with the sums of the rows' weights and FLOPs."""
    weights, flops = sum(row.weights for row in rows), sum(row.flops for row in rows)
    return Cost(name, kind, (), weights, flops)


def summary(config: ViTConfig) -> str:
    """Return the table as text, with the totals in its last line.

    The blocks after the first, which are like it, share a line with their sums.
    """
    rows = costs(config)
    (H, W), C = config.image, config.channels
    image = Cost("images", "", (H, W, C), 0, 0)
    others = [row for row in rows if is_like_first_block(row)]
    if others:
        last = config.depth - 1
        name = "blocks.1" if last == 1 else f"blocks.1 to blocks.{last}"
        together = total(others, name, "like blocks.0")
        at = rows.index(others[0])
        rows = [*rows[:at], together, *rows[at + len(others) :]]
    lines = [f"{'layer':24}{'kind':24}{'output':>12}{'weights':>14}{'FLOPs':>18}"]
    for row in (image, *rows, total(rows, "total")):
        shape = "x".join(map(str, row.shape))
        lines.append(f"{row.name:24}{row.kind:24}{shape:>12}{row.weights:14,}{row.flops:18,}")
    return "\n".join(lines)
