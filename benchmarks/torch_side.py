"""The same model in PyTorch, written as one would there: its own fused attention, layer norm, GELU and AdamW."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from numpyvit import Buffer, ViT, ViTConfig


class Block(nn.Module):
    def __init__(self, c: ViTConfig) -> None:
        super().__init__()
        self.heads = c.heads
        self.norm1 = nn.LayerNorm(c.width, c.norm_eps)
        self.qkv = nn.Linear(c.width, 3 * c.width)
        self.proj = nn.Linear(c.width, c.width)
        self.norm2 = nn.LayerNorm(c.width, c.norm_eps)
        self.fc1 = nn.Linear(c.width, c.mlp_width)
        self.fc2 = nn.Linear(c.mlp_width, c.width)

    def forward(self, x: Tensor) -> Tensor:
        B, N, D = x.shape
        qkv = self.qkv(self.norm1(x)).view(B, N, 3, self.heads, D // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, h, N, E)
        a = F.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(a.transpose(1, 2).reshape(B, N, D))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x)), approximate="tanh"))


class TorchViT(nn.Module):
    def __init__(self, c: ViTConfig) -> None:
        super().__init__()
        self.config = c
        self.embed = nn.Linear(c.patch[0] * c.patch[1] * c.channels, c.width)
        self.cls_token = nn.Parameter(torch.zeros(c.width))
        self.positions = nn.Parameter(torch.zeros(c.tokens, c.width))
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.depth))
        self.norm = nn.LayerNorm(c.width, c.norm_eps)
        self.head = nn.Linear(c.width, c.classes)

    def forward(self, images: Tensor) -> Tensor:
        B, H, W, C = images.shape
        p1, p2 = self.config.patch
        x = (
            images.view(B, H // p1, p1, W // p2, p2, C)
            .permute(0, 1, 3, 2, 4, 5)
            .reshape(B, -1, p1 * p2 * C)
        )
        x = torch.cat([self.cls_token.expand(B, 1, -1), self.embed(x)], 1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))


def torch_name(name: str) -> str:
    """What a weight of ours is called over there: blocks.0.attention.qkv.w -> blocks.0.qkv.weight."""
    for ours, theirs in (
        ("attention.", ""),
        ("mlp.", ""),
        ("head.out", "head"),
        (".gamma", ".weight"),
        (".beta", ".bias"),
        ("cls_token.w", "cls_token"),
        ("positions.w", "positions"),
    ):
        name = name.replace(ours, theirs)
    return (
        name.removesuffix(".w") + ".weight"
        if name.endswith(".w")
        else name.removesuffix(".b") + ".bias"
        if name.endswith(".b")
        else name
    )


class Side:
    """mode: "eager", "compile" (torch.compile) or "bf16" (eager, under autocast)."""

    def __init__(
        self, mode: str, model: ViT, weights: Buffer, threads: int, device: str = "cpu"
    ) -> None:
        torch.set_num_threads(threads)
        self.bf16, self.device = mode == "bf16", device
        self.version = f"PyTorch {torch.__version__}"
        self.module = TorchViT(model.config).to(device)
        self.weights = dict(self.module.named_parameters())
        self.matrices = {name: p.decay for name, p in model.params.items()}
        with torch.no_grad():
            for name, decay in self.matrices.items():
                value = torch.from_numpy(weights[name])
                self.weights[torch_name(name)].copy_(value.T if decay else value)
        groups = [
            {
                "params": [
                    self.weights[torch_name(n)] for n, d in self.matrices.items() if d is decay
                ],
                "weight_decay": 0.05 * decay,
            }
            for decay in (True, False)
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-3, fused=True)
        self.call: Any = torch.compile(self.module) if mode == "compile" else self.module

    def run(self, images: Tensor) -> Tensor:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            return self.call(images)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.run(images).float(), labels)

    def tensor(self, x: np.ndarray) -> Tensor:
        return torch.from_numpy(x).to(self.device)

    def step(self, images: np.ndarray, labels: np.ndarray) -> float:
        self.optimizer.zero_grad()
        loss = self.loss(self.tensor(images), self.tensor(labels))
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def gradients(self, images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        self.optimizer.zero_grad()
        self.loss(self.tensor(images), self.tensor(labels)).backward()
        grads = {n: self.weights[torch_name(n)].grad.cpu().numpy() for n in self.matrices}
        return {n: g.T if self.matrices[n] else g for n, g in grads.items()}

    def logits(self, images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return self.run(self.tensor(images)).float().cpu().numpy()


def gpu_call(
    mode: str,
    model: ViT,
    weights: Buffer,
    images: np.ndarray,
    labels: np.ndarray,
    device: str,
    precision: str,
    train: bool,
) -> Callable[[], Tensor]:
    """A training step with clipping, or an evaluation, that does not wait for the GPU. precision: "float32", "tf32", "bf16".
    mode: "eager", "compile", "graph" (all of it captured as a CUDA graph) or "compile+graph"."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.set_autocast_cache_enabled(
        "graph" not in mode
    )  # as PyTorch's manual has it, and the capture below
    if "compile" in mode:
        torch.compiler.reset()
    side = Side(
        "compile" if "compile" in mode else "eager", model, weights, torch.get_num_threads(), device
    )
    side.bf16 = precision == "bf16"
    for group in side.optimizer.param_groups:
        group["capturable"] = "graph" in mode
    x, t = side.tensor(images), side.tensor(labels)

    def call() -> Tensor:
        if not train:
            with torch.inference_mode():
                return side.run(x)
        side.optimizer.zero_grad()
        loss = side.loss(x, t)
        loss.backward()
        nn.utils.clip_grad_norm_(side.module.parameters(), 1.0)
        side.optimizer.step()
        return loss.detach()

    def replay() -> Tensor:
        graph.replay()
        return result

    if "graph" not in mode:
        return call
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(aside)
    with torch.cuda.graph(graph := torch.cuda.CUDAGraph()):
        result = call()
    return replay
