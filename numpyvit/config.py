"""The configuration of a Vision Transformer: which parts it has and how large they are."""

import dataclasses
import numbers
import operator
from dataclasses import dataclass
from typing import Any

from .errors import UserError, check_choice, is_positive_int, is_real_number, shown

POOLING = ["cls", "mean"]
POSITIONS = ["learned", "sinusoidal", "rotary", "none"]
GELU = ["tanh", "erf"]


@dataclass(frozen=True)
class ViTConfig:
    """The parts and sizes of a ViT.

    image_size: (H, W) of the images, or one number if they are square.
    patch_size: (P1, P2) of a patch, or one number; it must divide the image size.
    channels: C, 1 for grey and 3 for colour.
    classes: K.
    width: D, the features of a token.
    depth: L, the number of blocks.
    heads: h, the heads of attention; they must divide the width.
    mlp_width: F, the hidden features of the MLP.
    pooling: "cls" (a class token, which the head reads) or "mean" (of all tokens).
    positions: "learned", "sinusoidal", "rotary" or "none".
    gelu: "tanh" (an approximation) or "erf" (exact).
    head_hidden: features of a hidden layer in the head; 0 for a linear head.
    qkv_bias: whether queries, keys and values have a bias.
    norm_eps: added to the variance in layer norms.
    dropout: after the embedding and at the end of each branch, in training.
    attention_dropout: of the attention weights, in training.
    drop_path: of whole branches, in training; the last block's, increasing linearly.
    patch_overlap: how many pixels of its neighbours a patch sees on each side.

    Raises UserError if the parts do not fit each other.
    """

    image_size: int | tuple[int, int] = 28
    patch_size: int | tuple[int, int] = 7
    channels: int = 1
    classes: int = 10
    width: int = 64
    depth: int = 4
    heads: int = 4
    mlp_width: int = 128
    pooling: str = "cls"
    positions: str = "learned"
    gelu: str = "tanh"
    head_hidden: int = 0
    qkv_bias: bool = True
    norm_eps: float = 1e-6
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    patch_overlap: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = plain(field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        self._check_sizes()
        self._check_options()
        self._check_that_parts_fit()

    def _check_sizes(self) -> None:
        for name in ("image_size", "patch_size"):
            value = getattr(self, name)
            pair = (value, value) if isinstance(value, int) else value
            is_pair = isinstance(pair, list | tuple) and len(pair) == 2
            if not (is_pair and all(is_positive_int(n) for n in pair)):
                raise UserError(
                    f"{name} is {value!r}: it must be a positive integer, or two (height, width)"
                )
            # JSON has lists where we have tuples.
            object.__setattr__(self, name, value if isinstance(value, int) else tuple(value))
        for name in ("channels", "classes", "width", "depth", "heads", "mlp_width"):
            if not is_positive_int(getattr(self, name)):
                raise UserError(f"{name} is {getattr(self, name)!r}: it must be a positive integer")

    def _check_options(self) -> None:
        if not (self.head_hidden == 0 or is_positive_int(self.head_hidden)):
            raise UserError(
                f"head_hidden is {self.head_hidden!r}: it must be 0 (no hidden layer) or a width"
            )
        if not isinstance(self.qkv_bias, bool):
            raise UserError(f"qkv_bias is {self.qkv_bias!r}: it must be True or False")
        if not (is_real_number(self.norm_eps) and self.norm_eps > 0):
            raise UserError(f"norm_eps is {self.norm_eps!r}: it must be a number above 0")
        for name in ("dropout", "attention_dropout", "drop_path"):
            value = getattr(self, name)
            if not (is_real_number(value) and 0 <= value <= 0.99):
                raise UserError(f"{name} is {value!r}: it must be a number from 0 to 0.99")
        check_choice("pooling", self.pooling, POOLING)
        check_choice("positions", self.positions, POSITIONS)
        check_choice("gelu", self.gelu, GELU)

    def _check_that_parts_fit(self) -> None:
        (H, W), (p1, p2) = self.image, self.patch
        if H % p1 or W % p2:
            raise UserError(
                f"an image of {H}x{W} cannot be cut into patches of {p1}x{p2}: "
                "choose a patch_size that divides the image_size"
            )
        overlap = self.patch_overlap
        if not (overlap == 0 or is_positive_int(overlap)) or overlap > min(p1, p2):
            raise UserError(
                f"patch_overlap is {overlap!r}: it must be an integer from 0 to {min(p1, p2)}, "
                "the side of a patch in pixels"
            )
        if self.width % self.heads:
            raise UserError(
                f"width {self.width} cannot be divided among {self.heads} heads: "
                "choose a number of heads that divides it"
            )
        if self.positions == "rotary" and self.width // self.heads % 4:
            raise UserError(
                f"rotary positions need heads whose width is a multiple of 4, and width "
                f"{self.width} with {self.heads} heads gives {self.width // self.heads}: "
                "change the width or the number of heads"
            )

    @property
    def image(self) -> tuple[int, int]:
        """(H, W)."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else size

    @property
    def patch(self) -> tuple[int, int]:
        """(P1, P2)."""
        size = self.patch_size
        return (size, size) if isinstance(size, int) else size

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        (H, W), (p1, p2) = self.image, self.patch
        return H // p1, W // p2

    @property
    def patches(self) -> int:
        """The number of patches of an image."""
        return self.grid[0] * self.grid[1]

    @property
    def prefix(self) -> int:
        """The number of tokens before the patches: 1 with a class token, otherwise 0."""
        return int(self.pooling == "cls")

    @property
    def tokens(self) -> int:
        """N, the tokens in the sequence."""
        return self.prefix + self.patches

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict that JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "ViTConfig":
        """Make a config from the result of to_dict, also after a round trip through JSON.

        A patch_dropout of older files, which concerned training only, is ignored.
        Raises UserError for an unknown field.
        """
        fields = dict(fields)
        fields.pop("patch_dropout", None)
        for name in fields:
            check_choice("ViTConfig field", name, [f.name for f in dataclasses.fields(cls)])
        return cls(**fields)


def plain(name: str, value: Any) -> Any:
    """Return an integer of NumPy, also inside a tuple, as an int, which JSON can hold.

    Raises UserError for an array.
    """
    if getattr(value, "shape", ()):
        raise UserError(f"{name} is {shown(value)}: it cannot be an array")
    if isinstance(value, tuple | list):
        return tuple(plain(name, item) for item in value)
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return operator.index(value) if is_integer else value
