"""What a training changes, in memory: weights, optimizer, counters and sums."""

import dataclasses
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from .. import data as datasets
from ..backend.arrays import Array, get_xp
from ..backend.device import free_memory, module_of, to, to_float, to_host
from ..data import Dataset
from ..engine.base import Engine, check_precision, make_engine
from ..engine.loss_scale import LossScale
from ..engine.prefetch import prefetch
from ..errors import UserError
from ..layers.patch_dropout import patches_kept
from ..losses import cross_entropy
from ..optim.schedules import schedule
from ..vit import ViT
from .config import TrainConfig, default_micro_batch
from .folder import MODEL
from .recipe import OPTIMIZERS, augmentation, mixing


class State:
    """The state of one training, without its files (see Run).

    train_set and val_set: the images to train on, and those held out, if any.
    eval_params: the weights that are evaluated and saved in model.npz: their average,
    if the recipe has one, otherwise the last weights.
    learning_rate: the function that returns the learning rate of a step.
    step, steps, epoch_steps: steps taken so far, of the whole run, and of an epoch.
    loss_sum, train_seconds: the sum of the losses of all images of this epoch so far,
    and the time that its steps took.
    seconds: the time of the whole run, evaluation included.
    best: validation accuracy and minus the validation loss of the best epoch.
    best_weights: the weights of that epoch, if there are validation images.
    rows: what metrics.jsonl holds.
    incomplete: True while a step, or the end of an epoch, is computed. If it stays
    True, because an exception came in between, the weights and sums may be half of one
    step and half of the next, and only `restore` may follow.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        train: Dataset,
        test: Dataset,
        device: str = "cpu",
        precision: str = "float32",
    ) -> None:
        check_precision(precision, device)
        recipe = config.recipe
        self.folder = folder
        self.device = device
        self.precision = precision
        self.train_set = train
        self.val_set: Dataset | None = None
        self.test_set = test
        if config.val:
            self.train_set, self.val_set = datasets.hold_out(train, config.val, config.seed)
        if config.micro_batch is None:  # stored, so that a resumed run cuts batches alike
            config = dataclasses.replace(config, micro_batch=default_micro_batch(config))
        self.config = config
        self.model = ViT(config.model)
        self.params = self.model.init(config.seed).to(device)
        self.optimizer = OPTIMIZERS[recipe.optimizer](
            self.params,
            betas=(0.9, recipe.beta2),
            weight_decay=recipe.weight_decay,
            average=recipe.average,
        )
        self.loss_scale = LossScale(module_of(device)) if precision == "float16" else None
        self.eval_params = self.optimizer.average
        self.epoch_steps = datasets.steps_per_epoch(len(self.train_set), recipe.batch_size)
        self.steps = recipe.epochs * self.epoch_steps
        warmup = min(round(recipe.warmup * self.epoch_steps), self.steps // 5)
        self.learning_rate = schedule(recipe.schedule, recipe.lr, warmup, self.steps)
        self.step = 0
        self.saved_step = 0  # of the newest checkpoint
        self.loss_sum: Any = 0.0  # a device array until synchronised, and so is failed_step
        self.failed_step: Any = -1  # the first step that was not finite, or -1
        self.train_seconds = 0.0
        self.seconds = 0.0
        self.best: tuple[float, float] | None = None
        self.best_weights: Array | None = None
        self.epochs_without_improvement = 0
        self.rows: list[dict[str, Any]] = []
        self.incomplete = False

    def engine(self, workers: int | None = None) -> Engine:
        """Return an engine with `workers` threads that trains this run's weights."""
        c = self.config
        return make_engine(
            self.model,
            self.params,
            self.optimizer,
            partial(cross_entropy, smoothing=c.recipe.smoothing),
            clip=c.recipe.clip,
            seed=c.seed,
            workers=workers,
            micro_batch=c.micro_batch,
            device=self.device,
            precision=self.precision,
            loss_scale=self.loss_scale,
        )

    def batches(self) -> Iterator[tuple[Array, Array]]:
        """Return the batches that are left, on the run's device.

        A GPU gets the whole data set once, if it has the memory, and augments the
        images itself.
        """
        if self.finished:
            return iter(())
        recipe = self.config.recipe
        fits = self.train_set.images.nbytes < free_memory(self.device) / 2
        found = datasets.batches(
            self.train_set.to(self.device) if fits else self.train_set,
            recipe.batch_size,
            recipe.epochs,
            self.config.seed,
            augmentation(recipe),
            mixing(recipe),
            self.step,
        )
        if self.device == "cpu":
            return prefetch(found)
        if fits:
            return found
        return ((to(images, self.device), to(labels, self.device)) for images, labels in found)

    @property
    def patches(self) -> int | None:
        """How many patches of each image take part in the next step; None for all."""
        recipe = self.config.recipe
        if recipe.patch_dropout == 0 or self.step >= (1 - recipe.full_patches) * self.steps:
            return None
        return patches_kept(recipe.patch_dropout, self.config.model.patches)

    @property
    def epoch(self) -> int:
        """The number of epochs that have ended."""
        return self.step // self.epoch_steps

    @property
    def epoch_ended(self) -> bool:
        """Whether the last step was the last of an epoch."""
        return self.step % self.epoch_steps == 0

    @property
    def model_weights(self) -> Array | None:
        """The weights that belong in model.npz: of the best epoch, or of the last.

        None if no epoch has ended, or, without validation images, within an epoch, when
        the weights of its beginning are no longer in memory.
        """
        if self.val_set:
            return self.best_weights
        return to_host(self.eval_params.flat) if self.step and self.epoch_ended else None

    @property
    def finished(self) -> bool:
        """Whether the last step has been taken, or `patience` has run out."""
        patience = self.config.patience
        out_of_patience = patience and self.epochs_without_improvement >= patience
        return self.step == self.steps or bool(out_of_patience)

    def count(self, loss: Any, norm: Any, images: int) -> None:
        """Count a step on this many images, with its loss and gradient norm.

        Raises UserError if the loss or the norm is not finite.
        """
        self.check_finite(loss, norm)
        self.step += 1
        self.loss_sum = self.loss_sum + loss * images

    def check_finite(self, loss: Any, norm: Any) -> None:
        """Raise UserError if the loss or the norm of the gradients is not finite.

        On a GPU a look at them would make the program wait; there the number of the
        first such step is kept on the device until `synchronise` reads it.
        """
        if isinstance(loss, float):
            self.require_finite(loss, "loss")
            self.require_finite(norm, "gradients' norm")
            return
        xp = get_xp(loss)
        fails_first = (self.failed_step == xp.asarray(-1)) & ~xp.isfinite(loss + norm)
        self.failed_step = xp.where(fails_first, self.step, self.failed_step)

    def synchronise(self) -> None:
        """Wait for the GPU's sums. Raises UserError if a step was not finite."""
        self.failed_step = int(to_float(self.failed_step))
        self.loss_sum = to_float(self.loss_sum)
        if self.failed_step >= 0:
            self.step = self.failed_step
            self.require_finite(math.nan, "loss, or the gradients' norm,")

    def require_finite(self, value: float, what: str) -> None:
        """Raise UserError, since the run has diverged, if the value is not finite."""
        if math.isfinite(value):
            return
        recipe = self.config.recipe
        model = self.folder / MODEL
        last = f"; {model} is from the last good epoch" if model.exists() else ""
        raise UserError(
            f"the {what} is not finite at step {self.step} ({value}): train again, in another "
            f"folder, with a lower lr than {recipe.lr:g} or a lower weight_decay than "
            f"{recipe.weight_decay:g}{last}"
        )
