"""numpyvit itself, as its user would train and evaluate with it."""

import numpy as np

import numpyvit as nv
from numpyvit import Buffer, ViT


class Side:
    def __init__(self, model: ViT, weights: Buffer, threads: int) -> None:
        self.version = f"numpyvit {nv.__version__}, NumPy {np.__version__}"
        self.params = weights.copy()
        self.optimizer = nv.AdamW(self.params, weight_decay=0.05)
        self.workers = nv.Workers(model, workers=threads)
        self.workers.__enter__()

    def step(self, images: np.ndarray, labels: np.ndarray) -> float:
        loss, grads = self.workers.loss_and_grad(self.params, images, labels)
        self.optimizer.step(self.params, grads, lr=1e-3)
        return loss

    def gradients(self, images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        grads = self.workers.loss_and_grad(self.params, images, labels)[1]
        return {name: grads[name] for name in grads.names()}

    def logits(self, images: np.ndarray) -> np.ndarray:
        return self.workers.predict(self.params, images)
