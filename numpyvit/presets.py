"""Named model sizes: tiny ones for small images, and those of the papers."""

from .config import ViTConfig
from .errors import check_choice


class Presets(dict[str, ViTConfig]):
    """A dict that knows what to say about a name that it does not have."""

    def __missing__(self, name: str) -> ViTConfig:
        check_choice("preset", name, self)
        raise KeyError(name)


def paper_presets() -> dict[str, ViTConfig]:
    """Return ViT-Ti to ViT-H for 224x224 images and 1000 classes.

    Ti and S are from "Training data-efficient image transformers" (Touvron et al., 2021,
    table 1); B, L and H are from "An Image is Worth 16x16 Words" (table 1).
    """
    width_depth_heads = {
        "Ti": (192, 12, 3),
        "S": (384, 12, 6),
        "B": (768, 12, 12),
        "L": (1024, 24, 16),
        "H": (1280, 32, 16),
    }
    return {
        f"ViT-{name}/{patch}": ViTConfig(224, patch, 3, 1000, width, depth, heads, 4 * width)
        for name, (width, depth, heads) in width_depth_heads.items()
        for patch in (16, 14)
    }


presets = Presets(
    {
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
        ),
        # 6.2 million weights, for a GPU.
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
        ),
        "photos": ViTConfig(64, 8, 3, 10, width=128, depth=6, heads=4, mlp_width=256),
        **paper_presets(),
    }
)
