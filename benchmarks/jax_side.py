"""The same model in JAX: a training step is one jitted function that reuses its inputs' memory."""

import os
from typing import Any

import numpy as np

from numpyvit import Buffer, ViT, ViTConfig

LR = 1e-3
WEIGHT_DECAY = 0.05


class Side:
    """The model with its weights and AdamW's moments."""

    def __init__(self, model: ViT, weights: Buffer, threads: int) -> None:
        use_cores(threads)
        import jax
        import jax.numpy as jnp

        self.version = f"JAX {jax.__version__}"
        self.jax = jax
        self.jnp = jnp
        self.config = model.config
        self.decay = {name: WEIGHT_DECAY * p.decay for name, p in model.params.items()}
        self.state = {}  # of each weight: its value and AdamW's two moments
        for name, value in weights.items():
            moments = jnp.zeros_like(value), jnp.zeros_like(value)  # two: both are donated
            self.state[name] = jnp.asarray(value), *moments
        self.t = 0
        self.forward = jax.jit(lambda w, x: vit(jax, w, x, model.config))
        self.grad = jax.jit(jax.grad(self.loss))
        self.train = jax.jit(self.adamw, donate_argnums=0)

    @property
    def weights(self) -> dict[str, Any]:
        """The values of all weights."""
        return {name: p for name, (p, _, _) in self.state.items()}

    def loss(self, w: dict[str, Any], images: Any, labels: Any) -> Any:
        """Return the mean cross-entropy of a batch."""
        logp = self.jax.nn.log_softmax(vit(self.jax, w, images, self.config))
        return -self.jnp.take_along_axis(logp, labels[:, None], 1).mean()

    def adamw(self, state: Any, images: Any, labels: Any, t: Any) -> Any:
        """Return the state after step t, and the loss before it."""
        w = {name: p for name, (p, _, _) in state.items()}
        loss, grads = self.jax.value_and_grad(self.loss)(w, images, labels)
        new = {}
        for name, (p, m, v) in state.items():
            m = 0.9 * m + 0.1 * grads[name]
            v = 0.999 * v + 0.001 * grads[name] ** 2
            update = (m / (1 - 0.9**t)) / (self.jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)
            new[name] = p - LR * (update + self.decay[name] * p), m, v
        return new, loss

    def step(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Train on one batch and return its loss."""
        self.t += 1
        self.state, loss = self.train(self.state, images, labels, np.float32(self.t))
        return float(loss)

    def gradients(self, images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Return the gradient of each weight, by its name in numpyvit."""
        grads = self.grad(self.weights, images, labels)
        return {name: np.asarray(g) for name, g in grads.items()}

    def logits(self, images: np.ndarray) -> np.ndarray:
        """images (B, H, W, C)  ->  logits (B, K)."""
        return np.asarray(self.forward(self.weights, images))


def use_cores(threads: int) -> None:
    """Keep this process to as many cores: XLA starts a thread for each core that it may use."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > threads:
        os.sched_setaffinity(0, cores[:threads])


def vit(jax: Any, w: dict[str, Any], images: Any, c: ViTConfig) -> Any:
    """images (B, H, W, C)  ->  logits (B, K)."""
    jnp = jax.numpy

    def norm(x: Any, name: str) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        variance = (centred**2).mean(-1, keepdims=True)
        xhat = centred / jnp.sqrt(variance + c.norm_eps)
        return xhat * w[name + ".gamma"] + w[name + ".beta"]

    def linear(x: Any, name: str) -> Any:
        return x @ w[name + ".w"] + w[name + ".b"]

    def attention(x: Any, name: str) -> Any:
        B, N, D = x.shape
        E = D // c.heads
        qkv = linear(x, name + ".qkv").reshape(B, N, 3, c.heads, E)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # each (B, h, N, E)
        weights = jax.nn.softmax(q @ k.swapaxes(-1, -2) * E**-0.5)
        heads = (weights @ v).transpose(0, 2, 1, 3)  # (B, N, h, E)
        return linear(heads.reshape(B, N, D), name + ".proj")

    def mlp(x: Any, name: str) -> Any:
        return linear(jax.nn.gelu(linear(x, name + ".fc1"), approximate=True), name + ".fc2")

    B, H, W, C = images.shape
    p1, p2 = c.patch
    x = images.reshape(B, H // p1, p1, W // p2, p2, C)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(B, -1, p1 * p2 * C)  # (B, patches, p1 * p2 * C)
    cls = jnp.broadcast_to(w["prefix.w"], (B, 1, c.width))
    x = jnp.concatenate([cls, linear(x, "embed")], 1) + w["positions.w"]  # (B, N, D)
    for i in range(c.depth):
        block = f"blocks.{i}."
        x = x + attention(norm(x, block + "norm1"), block + "attention")
        x = x + mlp(norm(x, block + "norm2"), block + "mlp")
    return linear(norm(x[:, 0], "norm"), "head.out")
