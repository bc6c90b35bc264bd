"""The Vision Transformer of "An Image is Worth 16x16 Words" (Dosovitskiy et al., 2021): its configuration and its stack."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from .backend.arrays import Array, get_xp, on_host
from .errors import UserError, check_choice
from .layers.block import Block
from .layers.dropout import dropout_backward, dropout_forward
from .layers.head import Head
from .layers.layernorm import LayerNorm
from .layers.patch_dropout import patch_dropout_backward, patch_dropout_forward
from .layers.patches import PatchEmbed
from .layers.positions import ClsToken, Positions, sinusoidal
from .layers.rotary import turns
from .params import Buffer, init, params_of


@dataclass(frozen=True)
class ViTConfig:
    """What a ViT is made of. Raises UserError where the parts do not fit each other."""

    image_size: int | tuple[int, int] = 28  # (H, W); one number: square
    patch_size: int | tuple[int, int] = 7
    channels: int = 1
    classes: int = 10
    width: int = 64  # D
    depth: int = 4  # L
    heads: int = 4  # h
    mlp_width: int = 128  # F
    pooling: str = "cls"  # "cls": a class token; "mean": of all tokens, no class token
    positions: str = "learned"  # "learned", "sinusoidal", "rotary", "none"
    gelu: str = "tanh"  # "tanh", "erf"
    head_hidden: int = 0  # 0: one linear layer; else the paper's pre-training head
    qkv_bias: bool = True
    norm_eps: float = 1e-6
    dropout: float = 0.0  # after embeddings, attention projection, MLP
    attention_dropout: float = 0.0
    drop_path: float = 0.0  # at the last block; rises linearly with depth
    patch_dropout: float = 0.0  # share of the patches that each image goes on without
    patch_overlap: int = 0  # pixels of its neighbours that a patch sees, on each side

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size"):
            value = getattr(self, name)
            pair = (value, value) if isinstance(value, int) else value
            if not (
                isinstance(pair, list | tuple) and len(pair) == 2 and all(is_count(n) for n in pair)
            ):
                raise UserError(
                    f"{name} is {value!r}: it must be a whole number above 0, or two (height, width)"
                )
            object.__setattr__(self, name, value if isinstance(value, int) else tuple(value))
        for name in ("channels", "classes", "width", "depth", "heads", "mlp_width"):
            if not is_count(getattr(self, name)):
                raise UserError(
                    f"{name} is {getattr(self, name)!r}: it must be a whole number above 0"
                )
        if not (self.head_hidden == 0 or is_count(self.head_hidden)):
            raise UserError(
                f"head_hidden is {self.head_hidden!r}: it must be 0 (no hidden layer) or a width"
            )
        if not isinstance(self.qkv_bias, bool):
            raise UserError(f"qkv_bias is {self.qkv_bias!r}: it must be True or False")
        if not (is_real(self.norm_eps) and self.norm_eps > 0):
            raise UserError(f"norm_eps is {self.norm_eps!r}: it must be a number above 0")
        for name in ("dropout", "attention_dropout", "drop_path", "patch_dropout"):
            if not (is_real(getattr(self, name)) and 0 <= getattr(self, name) <= 0.99):
                raise UserError(
                    f"{name} is {getattr(self, name)!r}: it must be a number from 0 to 0.99"
                )
        check_choice("pooling", self.pooling, ["cls", "mean"])
        check_choice("positions", self.positions, ["learned", "sinusoidal", "rotary", "none"])
        check_choice("gelu", self.gelu, ["tanh", "erf"])
        (H, W), (p1, p2) = self.image, self.patch
        if H % p1 or W % p2:
            raise UserError(
                f"an image of {H}x{W} cannot be cut into patches of {p1}x{p2}: "
                "choose a patch_size that divides the image_size"
            )
        if not (
            self.patch_overlap == 0 or is_count(self.patch_overlap)
        ) or self.patch_overlap > min(p1, p2):
            raise UserError(
                f"patch_overlap is {self.patch_overlap!r}: it must be a whole number of pixels, 0 to "
                f"{min(p1, p2)}, the patch's side"
            )
        if self.width % self.heads:
            raise UserError(
                f"width {self.width} cannot be split over {self.heads} heads: choose heads that divide it"
            )
        if self.positions == "rotary" and self.width // self.heads % 4:
            raise UserError(
                f"heads of width {self.width // self.heads} cannot turn by row and by column: for rotary "
                "positions choose width and heads so that it is a multiple of 4"
            )

    @property
    def image(self) -> tuple[int, int]:
        """(H, W)."""
        return (
            (self.image_size, self.image_size)
            if isinstance(self.image_size, int)
            else self.image_size
        )

    @property
    def patch(self) -> tuple[int, int]:
        """(P1, P2)."""
        return (
            (self.patch_size, self.patch_size)
            if isinstance(self.patch_size, int)
            else self.patch_size
        )

    @property
    def window(self) -> tuple[int, int]:
        """What a patch sees: itself, and so much of its neighbours as they overlap."""
        return self.patch[0] + 2 * self.patch_overlap, self.patch[1] + 2 * self.patch_overlap

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        (H, W), (p1, p2) = self.image, self.patch
        return H // p1, W // p2

    @property
    def tokens(self) -> int:
        """N: the patches, and the class token where there is one."""
        return self.grid[0] * self.grid[1] + (self.pooling == "cls")

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "ViTConfig":
        """The inverse of to_dict, also after JSON. Raises UserError for a field that is not ours."""
        for name in fields:
            check_choice("ViTConfig field", name, [f.name for f in dataclasses.fields(cls)])
        return cls(**fields)


def is_count(n: object) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and 0 < n < 2**31


def is_real(x: object) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < 1e300  # NaN is not


class ViT:
    """The structure only: `init` makes the weights. Equation numbers are the paper's."""

    def __init__(self, config: ViTConfig) -> None:
        c = self.config = config
        self.embed = PatchEmbed(c.image, c.patch, c.channels, c.width, c.patch_overlap)
        self.cls_token = ClsToken(c.width) if c.pooling == "cls" else None
        self.positions = Positions(c.tokens, c.width) if c.positions == "learned" else None
        self.blocks = [
            Block(
                c.width,
                c.heads,
                c.mlp_width,
                gelu=c.gelu,
                qkv_bias=c.qkv_bias,
                eps=c.norm_eps,
                dropout=c.dropout,
                attention_dropout=c.attention_dropout,
                drop_path=c.drop_path * (i + 1) / c.depth,
            )
            for i in range(c.depth)
        ]
        self.norm = LayerNorm(c.width, c.norm_eps)
        self.head = Head(c.width, c.classes, c.head_hidden)
        self.params = params_of(self)  # {"blocks.0.attention.qkv.w": Param, ...}

    def init(self, seed: int = 0, dtype: Any = np.float32) -> Buffer:
        """First weights, by the seed alone."""
        return init(self, seed, dtype)

    def count(self) -> int:
        """How many weights the model has."""
        return sum(p.size for p in self.params.values())

    def forward(
        self,
        params: Buffer,
        images: Array,
        rng: np.random.Generator | None = None,
        taps: dict[str, Any] | None = None,
        need_cache: bool = True,
        all_patches: bool = False,
    ) -> tuple[Array, tuple | Any]:
        """images (B, H, W, C), normalised, of the weights' dtype  ->  logits (B, K), cache.

        rng: draws dropout's masks; None: no dropout. all_patches: no patch dropout. need_cache=False: for evaluation; each
        layer's cache is dropped as it comes. taps: a dict that receives {"blocks.0": {"attention": (B, h, N, N), "output":
        (B, N, D)}, ...}.
        Raises UserError for images that do not fit.
        """
        self.check_images(params, images)
        x, c_embed = self.embed.forward(params, images)  # (1)  x_p E, in the paper's letters
        if self.cls_token:
            x, _ = self.cls_token.forward(params, x)  # (1)  [x_class; ...]     (B, N, D)
        if self.positions:
            x, _ = self.positions.forward(params, x)  # (1)  + E_pos
        elif self.config.positions == "sinusoidal":
            x = x + sinusoidal(*x.shape[1:], get_xp(x), x.dtype)
        p = 0.0 if all_patches else self.config.patch_dropout
        x, c_patches = patch_dropout_forward(x, p, rng, 1 if self.cls_token else 0)
        turn = self.places(x)
        if turn is not None and c_patches is not None:
            turn = turn[c_patches[1]]  # the places of the tokens that are left
        x, c_drop = dropout_forward(x, self.config.dropout, rng)

        caches: list[tuple] = []
        for i, block in enumerate(self.blocks):  # (2), (3)
            # Only the class token's row of the last block is read, so only that is computed (which saves four fifths of that
            # block), unless the caller wants to see all of it.
            last = self.cls_token and block is self.blocks[-1] and taps is None
            tap = None if taps is None else taps.setdefault(f"blocks.{i}", {})
            x, c = block.forward(params, x, rng, 1 if last else None, tap, turn)
            if need_cache:
                caches.append(c)
            del c  # else it lives through the next block
        n = x.shape[1]
        x, c_norm = self.norm.forward(params, x[:, :1] if self.cls_token else x)
        x = (
            x[:, 0] if self.cls_token else x.sum(1) / n
        )  # (4)  y = norm(z_L^0), or the mean   (B, D)
        logits, c_head = self.head.forward(params, x)  # (B, K)
        return logits, (
            c_embed,
            c_patches,
            c_drop,
            caches,
            n,
            c_norm,
            c_head,
        ) if need_cache else None

    def backward(
        self, dlogits: Array, cache: tuple, grads: Buffer, need_dx: bool = False
    ) -> Array | Any:
        """dlogits (B, K)  ->  dimages (B, H, W, C) where need_dx, else None; adds the weights' gradients into grads."""
        c_embed, c_patches, c_drop, caches, n, c_norm, c_head = cache
        dx = self.head.backward(dlogits, c_head, grads)  # (B, D)
        if self.cls_token:
            dx = self.norm.backward(dx[:, None], c_norm, grads)  # (B, 1, D)
            if n > 1:  # the rows that the norm did not read
                rest = get_xp(dx).zeros((dx.shape[0], n - 1, dx.shape[2]), dx.dtype)
                dx = get_xp(dx).concatenate([dx, rest], axis=1)
        else:
            dx = get_xp(dx).broadcast_to(
                dx[:, None] / n, (dx.shape[0], n, dx.shape[1])
            )  # x.sum(1) / n
            dx = self.norm.backward(dx, c_norm, grads)
        for block, c in zip(reversed(self.blocks), reversed(caches), strict=True):
            dx = block.backward(dx, c, grads)
        dx = dropout_backward(dx, c_drop)
        dx = patch_dropout_backward(dx, c_patches)
        if self.positions:
            dx = self.positions.backward(dx, None, grads)
        if self.cls_token:
            dx = self.cls_token.backward(dx, None, grads)
        return self.embed.backward(dx, c_embed, grads, need_dx)

    def places(self, x: Array) -> Array | None:
        """The tokens' places for rotary.py, in x's precision and where x is."""
        c = self.config
        if c.positions != "rotary":
            return None
        return turns(
            c.grid,
            c.width // c.heads,
            int(c.pooling == "cls"),
            get_xp(x),
            f"c{2 * max(x.itemsize, 4)}",
        )

    def check_images(self, params: Buffer, images: Array) -> None:
        """Raise UserError unless images are finite floats of the weights' dtype and of the model's size."""
        (H, W), C = self.config.image, self.config.channels
        found, wanted = tuple(images.shape), f"(B, {H}, {W}, {C})"
        if found[1:] != (H, W, C):
            channels_first = len(found) == 4 and found[1:] == (C, H, W)
            hint = "resize them, or make a ViTConfig for their size"
            if channels_first:
                hint = "they look channels-first: images.transpose(0, 2, 3, 1)"
            elif found == (H, W, C):
                hint = "for one image, images[None]"
            elif C == 1 and found[1:] == (H, W):
                hint = "the last axis is for the channels: images[..., None]"
            raise UserError(f"images have shape {found}, the model wants {wanted}: {hint}")
        if images.dtype.kind != "f":
            raise UserError(
                f"images are {images.dtype}, not normalised floats: nv.data.normalise(images, mean, std)"
            )
        if on_host(images) != on_host(params.flat):
            where = ("the host", "a GPU") if on_host(images) else ("a GPU", "the host")
            raise UserError(
                f"images are on {where[0]} and the weights on {where[1]}: bring them together by "
                "params.to(device) and data.to(device)"
            )
        if images.dtype != params.flat.dtype:
            raise UserError(
                f"images are {images.dtype} and the weights {params.flat.dtype}: "
                f"images.astype('{params.flat.dtype}')"
            )
        if on_host(images) and not np.isfinite(images).all():
            raise UserError(
                "images hold NaN or infinity: look for a division by zero where they were made"
            )


def paper_presets() -> dict[str, ViTConfig]:
    """ViT-Ti to ViT-H for 224x224 images and 1000 classes: Ti, S from "Training data-efficient image transformers"
    (Touvron et al., 2021, table 1), B, L, H from "An Image is Worth 16x16 Words" (table 1)."""
    table = {
        "Ti": (192, 12, 3),
        "S": (384, 12, 6),
        "B": (768, 12, 12),
        "L": (1024, 24, 16),
        "H": (1280, 32, 16),
    }
    return {
        f"ViT-{name}/{patch}": ViTConfig(224, patch, 3, 1000, width, depth, heads, 4 * width)
        for name, (width, depth, heads) in table.items()
        for patch in (16, 14)
    }


presets: dict[str, ViTConfig] = {
    "digits": ViTConfig(8, 4, 1, 10, width=64, depth=4, heads=4, mlp_width=128),
    "mnist": ViTConfig(28, 7, 1, 10, width=64, depth=3, heads=4, mlp_width=128),
    "mnist-best": ViTConfig(
        28, 4, 1, 10, width=64, depth=4, heads=4, mlp_width=128, pooling="mean"
    ),
    "mnist-30k": ViTConfig(
        28,
        4,
        1,
        10,
        width=32,
        depth=3,
        heads=2,
        mlp_width=80,
        pooling="mean",
        positions="rotary",
        patch_dropout=0.5,
    ),
    "fashion-mnist": ViTConfig(
        28,
        4,
        1,
        10,
        width=96,
        depth=5,
        heads=3,
        mlp_width=192,
        pooling="mean",
        positions="rotary",
        patch_dropout=0.5,
        patch_overlap=1,
    ),
    "cifar10": ViTConfig(
        32,
        4,
        3,
        10,
        width=128,
        depth=6,
        heads=4,
        mlp_width=256,
        pooling="mean",
        positions="rotary",
        patch_dropout=0.75,
    ),
    "cifar10-150k": ViTConfig(
        32,
        4,
        3,
        10,
        width=64,
        depth=4,
        heads=2,
        mlp_width=144,
        pooling="mean",
        positions="rotary",
        patch_dropout=0.75,
    ),
    "cifar10-large": ViTConfig(
        32,
        4,
        3,
        10,
        width=384,
        depth=7,
        heads=12,
        mlp_width=384,
        pooling="mean",
        positions="rotary",
        drop_path=0.1,
    ),  # for a GPU
    "photos": ViTConfig(64, 8, 3, 10, width=128, depth=6, heads=4, mlp_width=256),
    **paper_presets(),
}
