"""What a ViT can be asked to do: checks of its size and of the arguments of its forward."""

import math
from typing import Any

import numpy as np

from .backend.arrays import Array, check_array, check_dtype, is_array, on_host
from .backend.device import machine_memory
from .config import ViTConfig
from .errors import UserError, check_type, shown
from .layers.block import Block
from .layers.head import Head
from .params import Buffer, params_of

MOST_BLOCKS = 1000
MOST_WEIGHTS = 2**31  # 8 GB in float32; ViT-H/14 has 632 million


def check_inputs(config: ViTConfig, params: Buffer, images: Array, rng: Any, keep: Any) -> None:
    """Raise UserError unless these arguments of ViT.forward fit the model and each other."""
    check_images(config, params, images)
    check_options(config, rng, keep)


def check_images(config: ViTConfig, params: Buffer, images: Array) -> None:
    """Raise UserError unless images are finite floats that fit the model and its weights."""
    check_type("params", params, Buffer, "the weights, such as init() returns")
    check_shape(config, images)
    if images.dtype.kind != "f":
        raise UserError(
            f"images are {images.dtype}, not normalised floats: "
            "nv.data.normalise(images, mean, std)"
        )
    if on_host(images) != on_host(params.flat):
        there, here = ("the host", "a GPU") if on_host(images) else ("a GPU", "the host")
        raise UserError(
            f"images are on {there} and the weights on {here}: bring them together with "
            "params.to(device) and data.to(device)"
        )
    if images.dtype != params.flat.dtype:
        raise UserError(
            f"images are {images.dtype} and the weights {params.flat.dtype}: "
            f"images.astype('{params.flat.dtype}')"
        )
    if on_host(images) and not np.isfinite(images).all():
        raise UserError(
            "images contain NaN or infinity: look for a division by zero where they were made"
        )


def check_options(config: ViTConfig, rng: Any, keep: Any) -> None:
    """Raise UserError unless the optional arguments of forward are None or usable."""
    if rng is not None and not hasattr(rng, "integers"):
        raise UserError(f"rng is {shown(rng)}: it must be a generator, or None")
    if keep is not None:
        check_array("keep", keep, "integers", ("B", "m"))
        most = config.patches
        if on_host(keep) and keep.size and not 0 <= keep.min() <= keep.max() < most:
            raise UserError(
                f"keep goes from {keep.min()} to {keep.max()}: the model has {most} patches"
            )


def check_shape(config: ViTConfig, images: Array) -> None:
    """Raise UserError unless images are an array whose shape fits the model."""
    (H, W), C = config.image, config.channels
    if not is_array(images):
        check_array("images", images, "floats", ("B", H, W, C))
    shape = tuple(images.shape)
    if shape[1:] != (H, W, C):
        raise UserError(
            f"images have shape {shape}, the model needs (B, {H}, {W}, {C}): "
            + shape_hint(shape, H, W, C)
        )


def shape_hint(shape: tuple[int, ...], H: int, W: int, C: int) -> str:
    """Return what to do with images of a shape that does not fit."""
    if len(shape) == 4 and shape[1:] == (C, H, W):
        return "they look channels-first: images.transpose(0, 2, 3, 1)"
    if shape == (H, W, C):
        return "for one image, images[None]"
    if C == 1 and shape[1:] == (H, W):
        return "the last axis is for the channels: images[..., None]"
    return "resize them, or make a ViTConfig for their size"


def check_size(c: ViTConfig, embed: object, positions: object) -> None:
    """Raise UserError if this machine cannot hold a model, before its blocks are made.

    embed, positions: the layers of the model before its blocks.

    A config may come from a file. Its numbers could keep the loop over blocks busy for hours,
    or fill the memory.
    """
    outer = [embed, positions, Head(c.width, c.classes, c.head_hidden)]
    weights = count_weights(outer) + c.depth * count_weights(Block(c, 0))
    H, W = c.image
    N = c.tokens
    # The largest array of one image: the image itself, the attention weights, queries, keys and
    # values, or the hidden features. Attention has three such arrays at once.
    largest = max(H * W * c.channels, c.heads * N * N, 3 * N * c.width, N * c.mlp_width)
    memory = machine_memory()
    if c.depth > MOST_BLOCKS or weights > MOST_WEIGHTS:
        raise UserError(
            f"a model of {c.depth:,} blocks has {weights:,} weights, and at most {MOST_BLOCKS:,} "
            f"blocks and {MOST_WEIGHTS:,} weights are possible: choose smaller sizes"
        )
    if 3 * 4 * largest > memory / 2:
        raise UserError(
            f"{N:,} tokens of an image of {H:,}x{W:,} pixels need arrays of {largest:,} numbers, "
            f"and this machine has {memory:,} bytes of memory: choose larger patches, or smaller "
            "images"
        )


def count_weights(layer: object) -> int:
    """Return the number of weights of a layer, in Python's integers, which do not overflow."""
    return sum(math.prod(p.shape) for p in params_of(layer).values())


def check_memory(weights: int, dtype: Any) -> None:
    """Raise UserError if this machine's memory cannot hold so many weights of a dtype."""
    check_dtype("dtype", dtype)
    size = np.dtype(dtype).itemsize * weights
    if size > machine_memory():
        raise UserError(
            f"{weights:,} weights need {size:,} bytes, more than this machine has memory: "
            "choose a smaller model"
        )
