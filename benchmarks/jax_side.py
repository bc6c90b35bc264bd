"""The same model in JAX: one jitted function for a whole training step, weights and moments given away to it."""

import os
from typing import Any

import numpy as np

from numpyvit import Buffer, ViT, ViTConfig


class Side:
    def __init__(self, model: ViT, weights: Buffer, threads: int) -> None:
        if (
            len(os.sched_getaffinity(0)) > threads
        ):  # XLA takes its threads from the cores it may use
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
        import jax
        import jax.numpy as jnp

        self.version = f"JAX {jax.__version__}"
        self.jax, self.jnp, self.config = jax, jnp, model.config
        self.decay = {name: 0.05 * p.decay for name, p in model.params.items()}
        self.state = {
            name: (
                jnp.asarray(weights[name]),
                jnp.zeros_like(weights[name]),
                jnp.zeros_like(weights[name]),
            )
            for name in model.params
        }
        self.t = 0
        self.forward = jax.jit(lambda w, x: vit(jax, w, x, model.config))
        self.grad = jax.jit(jax.grad(self.loss))
        self.train = jax.jit(self.adamw, donate_argnums=0)

    def loss(self, w: dict[str, Any], images: Any, labels: Any) -> Any:
        logp = self.jax.nn.log_softmax(vit(self.jax, w, images, self.config))
        return -self.jnp.take_along_axis(logp, labels[:, None], 1).mean()

    def adamw(self, state: Any, images: Any, labels: Any, t: Any) -> Any:
        w = {n: s[0] for n, s in state.items()}
        loss, grads = self.jax.value_and_grad(self.loss)(w, images, labels)
        new = {}
        for n, (p, m, v) in state.items():
            m, v = 0.9 * m + 0.1 * grads[n], 0.999 * v + 0.001 * grads[n] ** 2
            u = (m / (1 - 0.9**t)) / (self.jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)
            new[n] = p - 1e-3 * (u + self.decay[n] * p), m, v
        return new, loss

    def step(self, images: np.ndarray, labels: np.ndarray) -> float:
        self.t += 1
        self.state, loss = self.train(self.state, images, labels, np.float32(self.t))
        return float(loss)

    def gradients(self, images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        return {
            n: np.asarray(g)
            for n, g in self.grad({n: s[0] for n, s in self.state.items()}, images, labels).items()
        }

    def logits(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self.forward({n: s[0] for n, s in self.state.items()}, images))


def vit(jax: Any, w: dict[str, Any], images: Any, c: ViTConfig) -> Any:
    """images (B, H, W, C)  ->  logits (B, K)."""
    jnp = jax.numpy

    def norm(x: Any, name: str) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        return (
            centred
            / jnp.sqrt((centred**2).mean(-1, keepdims=True) + c.norm_eps)
            * w[name + ".gamma"]
            + w[name + ".beta"]
        )

    def linear(x: Any, name: str) -> Any:
        return x @ w[name + ".w"] + w[name + ".b"]

    (B, H, W, C), (p1, p2), D, h = images.shape, c.patch, c.width, c.heads
    x = (
        images.reshape(B, H // p1, p1, W // p2, p2, C)
        .transpose(0, 1, 3, 2, 4, 5)
        .reshape(B, -1, p1 * p2 * C)
    )
    cls = jnp.broadcast_to(w["cls_token.w"], (B, 1, D))
    x = jnp.concatenate([cls, linear(x, "embed")], 1) + w["positions.w"]
    for i in range(c.depth):
        b = f"blocks.{i}."
        q, k, v = (
            linear(norm(x, b + "norm1"), b + "attention.qkv")
            .reshape(B, -1, 3, h, D // h)
            .transpose(2, 0, 3, 1, 4)
        )
        a = jax.nn.softmax(q @ k.swapaxes(-1, -2) * (D // h) ** -0.5)
        x = x + linear((a @ v).transpose(0, 2, 1, 3).reshape(B, -1, D), b + "attention.proj")
        x = x + linear(
            jax.nn.gelu(linear(norm(x, b + "norm2"), b + "mlp.fc1"), approximate=True),
            b + "mlp.fc2",
        )
    return linear(norm(x[:, 0], "norm"), "head.out")
