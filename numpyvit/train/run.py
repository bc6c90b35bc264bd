"""The state of a training: start, resume, count steps, save."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import data as datasets
from ..backend.arrays import Array, get_xp
from ..backend.device import free_memory, module_of, to, to_float, to_host
from ..classifier import Classifier
from ..data import Dataset
from ..engine.base import Engine, check_precision, make_engine
from ..engine.loss_scale import LossScale
from ..engine.prefetch import prefetch
from ..errors import UserError
from ..layers.patch_dropout import patches_kept
from ..losses import cross_entropy
from ..optim.schedules import schedule
from ..vit import ViT
from .checkpoint import CHECKPOINT, PREVIOUS, load_checkpoint, save_checkpoint
from .config import TrainConfig, default_micro_batch
from .folder import MODEL, data_md5, locked, make_folder, read_config, versions
from .metrics import drop_rows_after, metrics_sha256, read_metrics
from .recipe import OPTIMIZERS, augmentation, mixing


class Run:
    """One training: `Run.start` or `Run.resume` returns it, and loop.train trains it.

    train_set and val_set: the images to train on, and those held out, if any.
    eval_params: the weights that are evaluated and saved in model.npz: their average,
    if the recipe has one, otherwise the last weights.
    learning_rate: the function that returns the learning rate of a step.
    step, steps, epoch_steps: steps taken so far, of the whole run, and of an epoch.
    loss_sum, train_seconds: the sum of the losses of all images of this epoch so far,
    and the time that its steps took.
    seconds: the time of the whole run, evaluation included.
    best: validation accuracy and minus the validation loss of the best epoch.
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
        self.epochs_without_improvement = 0
        self.metrics_sha256: str | None = None  # of the rows when the checkpoint was saved

    @classmethod
    def start(
        cls,
        config: TrainConfig,
        folder: Path,
        train: Dataset,
        test: Dataset,
        device: str = "cpu",
        precision: str = "float32",
    ) -> "Run":
        """Return a new run in `folder`.

        Raises UserError if the folder already holds a run, or the device is not
        available.
        """
        run = cls(config, folder, train, test, device, precision)
        make_folder(folder, run.config, data_md5(train, test))
        run.save()
        return run

    @classmethod
    def resume(
        cls,
        folder: Path,
        train: Dataset,
        test: Dataset,
        say: Callable[[str], None] = print,
        device: str = "cpu",
        precision: str = "float32",
    ) -> "Run":
        """Return the run in `folder` as its last intact checkpoint describes it.

        Rows of metrics.jsonl that were written after that checkpoint are removed. A run
        can be resumed on a different device. `say` receives remarks. Raises UserError
        if the folder, its files and the data do not belong together.
        """
        config, md5, old_versions = read_config(folder)
        run = cls(config, folder, train, test, device, precision)
        if md5 != data_md5(train, test):
            raise UserError(
                f"{folder} was trained on another version of {config.data} than the one found now"
            )
        for name, version in versions().items():
            if old_versions.get(name) != version:
                say(
                    f"this run began with {name} {old_versions.get(name)}, now it is {version}: "
                    "the last digits may differ"
                )
        with locked(folder):
            if (folder / CHECKPOINT).exists() or (folder / PREVIOUS).exists():
                run.load(*load_checkpoint(folder, say))
            elif read_metrics(folder) or (folder / MODEL).exists():
                raise UserError(
                    f"{folder} has lost its checkpoints: restore {CHECKPOINT}, or train again in "
                    "another folder"
                )  # otherwise it was killed before the first checkpoint, and begins at step 0
            drop_rows_after(folder, run.step // run.epoch_steps, run.metrics_sha256)
            if run.finished and not config.val and not (folder / MODEL).exists():
                run.save_model()
        return run

    def load(self, note: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Restore a checkpoint's state. Raises UserError for one of another run."""
        try:
            self.check_checkpoint(note, arrays)
            self.optimizer.load_state(arrays)
            self.loss_sum = float(note["loss_sum"])
            self.train_seconds = float(note["train_seconds"])
            self.seconds = float(note["seconds"])
            best = note["best"]
            self.best = None if best is None else (float(best[0]), float(best[1]))
            # "stale" was its name up to version 0.2. The oldest checkpoints have neither,
            # nor a checksum of the metrics.
            waited = note.get("epochs_without_improvement", note.get("stale", 0))
            self.epochs_without_improvement = int(waited)
            self.metrics_sha256 = note.get("metrics")
            if self.loss_scale:
                self.loss_scale.load(note.get("loss_scale"))
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise UserError(
                f"the checkpoint in {self.folder} does not belong to its config.json: {error}"
            ) from None
        self.params.flat[...] = get_xp(self.params.flat).asarray(arrays["weights"])
        self.step = self.saved_step = note["step"]

    def check_checkpoint(self, note: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Raise UserError if a checkpoint does not fit this run."""
        ours = self.config.flat()
        theirs = TrainConfig.from_dict(note["config"]).flat()
        for key, value in ours.items():
            if theirs[key] != value and key != "data":  # the data may have been moved
                raise UserError(f"it was made with {key} {theirs[key]}, not {value}")
        classes = tuple(note.get("classes", self.train_set.classes))
        if classes != self.train_set.classes:
            raise UserError(
                f"it knows the classes {', '.join(classes)}, now they are "
                f"{', '.join(self.train_set.classes)}"
            )
        weights = arrays["weights"]
        flat = self.params.flat
        if weights.shape != flat.shape or weights.dtype != flat.dtype:
            raise UserError(
                f"it holds {weights.size:,} {weights.dtype} weights, the model has "
                f"{flat.size:,} of {flat.dtype}"
            )
        step = note["step"]
        if not (isinstance(step, int) and 0 <= step <= self.steps and step == arrays["t"]):
            raise UserError(f"it is at step {step!r} of {self.steps}")
        if not all(np.isfinite(a).all() for a in arrays.values()):
            raise UserError("it holds NaN or infinity")

    def save(self) -> None:
        """Write the checkpoint, which holds all that `resume` needs, on any device."""
        self.synchronise()
        note = {
            "config": self.config.to_dict(),
            "step": self.step,
            "loss_sum": self.loss_sum,
            "train_seconds": self.train_seconds,
            "seconds": self.seconds,
            "best": self.best,
            "epochs_without_improvement": self.epochs_without_improvement,
            "metrics": metrics_sha256(self.folder),
            "classes": self.train_set.classes,
        }
        if self.loss_scale:
            note["loss_scale"] = self.loss_scale.state()
        arrays = {"weights": to_host(self.params.flat), **self.optimizer.state()}
        save_checkpoint(self.folder, note, arrays)
        self.saved_step = self.step

    def save_model(self) -> None:
        """Write model.npz, the trained Classifier."""
        classifier = Classifier.of(self.model, self.eval_params.to("cpu"), self.train_set)
        classifier.save(self.folder / MODEL)

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
    def epoch_ended(self) -> bool:
        """Whether the last step was the last of an epoch."""
        return self.step % self.epoch_steps == 0

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
