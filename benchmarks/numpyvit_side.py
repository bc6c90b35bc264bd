"""numpyvit in speed.py, used as a program that trains and evaluates would use it."""

import numpy as np

import numpyvit as nv
from numpyvit import Buffer, ViT


class Side:
    """The model with its weights, an optimizer and worker threads."""

    def __init__(self, model: ViT, weights: Buffer, threads: int) -> None:
        self.version = f"numpyvit {nv.__version__}, NumPy {np.__version__}"
        self.params = weights.copy()
        self.optimizer = nv.AdamW(self.params, weight_decay=0.05)
        self.workers = nv.Workers(model, workers=threads)
        self.workers.__enter__()  # until the process ends

    def step(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Train on one batch and return its loss."""
        loss, grads = self.workers.loss_and_grad(self.params, images, labels)
        self.optimizer.step(self.params, grads, lr=1e-3)
        return loss

    def gradients(self, images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Return the gradient of each weight, by its name in numpyvit."""
        _, grads = self.workers.loss_and_grad(self.params, images, labels)
        return dict(grads)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """images (B, H, W, C)  ->  logits (B, K)."""
        return self.workers.predict(self.params, images)
