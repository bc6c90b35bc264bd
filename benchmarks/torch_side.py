"""The same model in PyTorch, as usual there: with its own attention, layer norm, GELU and AdamW."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from numpyvit import Buffer, ViT, ViTConfig

LR = 1e-3
WEIGHT_DECAY = 0.05


class Block(nn.Module):
    """An encoder block."""

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
        """x (B, N, D)  ->  (B, N, D)."""
        B, N, D = x.shape
        qkv = self.qkv(self.norm1(x)).view(B, N, 3, self.heads, D // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, h, N, E)
        a = F.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(a.transpose(1, 2).reshape(B, N, D))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x)), approximate="tanh"))


class TorchViT(nn.Module):
    """A ViT with a class token and learned positions."""

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
        """images (B, H, W, C)  ->  logits (B, K)."""
        B, H, W, C = images.shape
        p1, p2 = self.config.patch
        x = images.view(B, H // p1, p1, W // p2, p2, C).permute(0, 1, 3, 2, 4, 5)
        x = self.embed(x.reshape(B, -1, p1 * p2 * C))
        x = torch.cat([self.cls_token.expand(B, 1, -1), x], 1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))


def torch_name(name: str) -> str:
    """Return the name in TorchViT of a weight of numpyvit.

    "blocks.0.attention.qkv.w" is "blocks.0.qkv.weight".
    """
    for ours, theirs in (
        ("attention.", ""),
        ("mlp.", ""),
        ("head.out", "head"),
        (".gamma", ".weight"),
        (".beta", ".bias"),
        ("prefix.w", "cls_token"),
        ("positions.w", "positions"),
    ):
        name = name.replace(ours, theirs)
    if name.endswith(".w"):
        return name.removesuffix(".w") + ".weight"
    if name.endswith(".b"):
        return name.removesuffix(".b") + ".bias"
    return name


class Side:
    """The model with its weights and AdamW.

    mode: "eager", "compile" (torch.compile) or "bf16" (eager, under autocast).
    """

    def __init__(
        self, mode: str, model: ViT, weights: Buffer, threads: int, device: str = "cpu"
    ) -> None:
        torch.set_num_threads(threads)
        self.bf16 = mode == "bf16"
        self.device = device
        self.version = f"PyTorch {torch.__version__}"
        self.module = TorchViT(model.config).to(device)
        self.weights = dict(self.module.named_parameters())
        # The weights that decay are the matrices, which PyTorch stores transposed.
        self.is_matrix = {name: p.decay for name, p in model.params.items()}
        with torch.no_grad():
            for name, matrix in self.is_matrix.items():
                value = torch.from_numpy(weights[name])
                self.weights[torch_name(name)].copy_(value.T if matrix else value)
        groups = []
        for decay in (True, False):
            names = [name for name, matrix in self.is_matrix.items() if matrix is decay]
            params = [self.weights[torch_name(name)] for name in names]
            groups.append({"params": params, "weight_decay": WEIGHT_DECAY * decay})
        self.optimizer = torch.optim.AdamW(groups, lr=LR, fused=True)
        self.call: Any = torch.compile(self.module) if mode == "compile" else self.module

    def run(self, images: Tensor) -> Tensor:
        """images (B, H, W, C)  ->  logits (B, K)."""
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            return self.call(images)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of a batch."""
        return F.cross_entropy(self.run(images).float(), labels)

    def tensor(self, x: np.ndarray) -> Tensor:
        """Return an array as a tensor on the device."""
        return torch.from_numpy(x).to(self.device)

    def step(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Train on one batch and return its loss."""
        self.optimizer.zero_grad()
        loss = self.loss(self.tensor(images), self.tensor(labels))
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def gradients(self, images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Return the gradient of each weight, by its name in numpyvit."""
        self.optimizer.zero_grad()
        self.loss(self.tensor(images), self.tensor(labels)).backward()
        grads = {}
        for name, matrix in self.is_matrix.items():
            g = self.weights[torch_name(name)].grad.cpu().numpy()
            grads[name] = g.T if matrix else g
        return grads

    def logits(self, images: np.ndarray) -> np.ndarray:
        """images (B, H, W, C)  ->  logits (B, K)."""
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
    """Return a training step with clipping, or an evaluation, that does not wait for the GPU.

    precision: "float32", "tf32" or "bf16". mode: "eager", "compile", "graph" (all of it is
    captured as a CUDA graph) or "compile+graph".
    """
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    # PyTorch's manual asks for this with CUDA graphs, as for the warm-up in `captured`.
    torch.set_autocast_cache_enabled("graph" not in mode)
    if "compile" in mode:
        torch.compiler.reset()
    side_mode = "compile" if "compile" in mode else "eager"
    side = Side(side_mode, model, weights, torch.get_num_threads(), device)
    side.bf16 = precision == "bf16"
    for group in side.optimizer.param_groups:
        group["capturable"] = "graph" in mode
    x = side.tensor(images)
    t = side.tensor(labels)

    def evaluate() -> Tensor:
        with torch.inference_mode():
            return side.run(x)

    def step() -> Tensor:
        side.optimizer.zero_grad()
        loss = side.loss(x, t)
        loss.backward()
        nn.utils.clip_grad_norm_(side.module.parameters(), 1.0)
        side.optimizer.step()
        return loss.detach()

    call = step if train else evaluate
    return captured(call) if "graph" in mode else call


def captured(call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Capture a call as a CUDA graph, and return a function that replays it."""
    warm_up = torch.cuda.Stream()
    warm_up.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm_up):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(warm_up)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay
