"""What a configuration is made of and costs: the table of `numpyvit info`."""

from ..vit import ViT, ViTConfig


def costs(config: ViTConfig) -> list[tuple[str, str, int, int]]:
    """(layer, shape of its output for one image, weights, FLOPs) from the image to the scores.

    FLOPs count the matrix products of one forward pass, a multiplication and an addition as two; what is computed
    element by element is left out, and so is the saving in the last block, which needs one query only.
    """
    c = config
    D, F, N, h, K = c.width, c.mlp_width, c.tokens, c.heads, c.classes
    E, patches, (s1, s2) = D // h, N - (c.pooling == "cls"), c.window
    model = ViT(c)

    def weights(prefix: str) -> int:
        return sum(p.size for name, p in model.params.items() if name.startswith(prefix))

    def row(
        name: str, shape: tuple[int, ...], prefix: str | None, flops: int
    ) -> tuple[str, str, int, int]:
        return name, "x".join(map(str, shape)), weights(prefix) if prefix else 0, flops

    (H, W), (p1, p2) = c.image, c.patch
    rows = [
        ("image", f"{H}x{W}x{c.channels}", 0, 0),
        row(
            f"patches of {p1}x{p2}, {f'{s1}x{s2} seen, ' * bool(c.patch_overlap)}linear",
            (patches, D),
            "embed.",
            2 * patches * s1 * s2 * c.channels * D,
        ),
    ]
    if c.pooling == "cls":
        rows.append(row("class token", (N, D), "cls_token.", 0))
    rows.append(row(f"positions ({c.positions})", (N, D), "positions.", 0))
    for i in range(c.depth):
        b = f"blocks.{i}"
        rows += [
            row(f"{b}.norm1", (N, D), f"{b}.norm1.", 0),
            row(f"{b}.attention.qkv", (N, 3 * D), f"{b}.attention.qkv.", 2 * N * D * 3 * D),
            row(f"{b}.attention ({h} heads of {E})", (N, D), None, 2 * 2 * N * N * D),
            row(f"{b}.attention.proj", (N, D), f"{b}.attention.proj.", 2 * N * D * D),
            row(f"{b}.norm2", (N, D), f"{b}.norm2.", 0),
            row(f"{b}.mlp (gelu by {c.gelu})", (N, D), f"{b}.mlp.", 2 * 2 * N * D * F),
        ]
    rows.append(row(f"norm, {'class token' if c.pooling == 'cls' else 'mean'}", (D,), "norm.", 0))
    if c.head_hidden:
        rows.append(
            row("head.hidden, tanh", (c.head_hidden,), "head.hidden.", 2 * D * c.head_hidden)
        )
    rows.append(row("head", (K,), "head.out.", 2 * (c.head_hidden or D) * K))
    return rows


def summary(config: ViTConfig) -> str:
    """The table as text, with the totals in its last line."""
    rows = costs(config)
    total = ("total", "", sum(r[2] for r in rows), sum(r[3] for r in rows))
    lines = [f"{'layer':34}{'output':>12}{'weights':>14}{'FLOPs':>18}"]
    lines += [
        f"{name:34}{shape:>12}{weights:14,}{flops:18,}"
        for name, shape, weights, flops in (*rows, total)
    ]
    return "\n".join(lines)
