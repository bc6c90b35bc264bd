"""The training loop: from a TrainConfig to a folder with a trained model, stoppable and resumable at any step."""

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import data as datasets
from ..backend.arrays import Array, get_xp
from ..backend.device import free_memory, module_of, number, stream, to, to_host
from ..classifier import Classifier
from ..data import Dataset
from ..engine.process import ctrl_c
from ..engine.workers import Workers, ahead, micro_batch_size
from ..errors import UserError, check_choice
from ..losses import accuracy, cross_entropy, cross_entropy_forward
from ..optim.schedules import schedule
from ..storage.archives import CHECKPOINT, PREVIOUS, load_checkpoint, save_checkpoint
from ..vit import ViT
from .folder import (
    MODEL,
    add_row,
    data_md5,
    locked,
    make_folder,
    metrics_sha256,
    read_config,
    read_metrics,
    take_back_rows,
    versions,
)
from .recipes import OPTIMIZERS, TrainConfig, augmentation, mixing

# Within an epoch it is saved when a minute has gone by, and 50 times as long as saving took.
SAVE_EVERY, SAVE_COST = 60.0, 50.0
LOOK_EVERY = 1.0  # seconds between two looks at what a GPU has computed


class Run:
    """One training: `Run.start(config, folder, train, test)` or `Run.resume(folder, train, test)`, then `run.train()`."""

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        train: Dataset,
        test: Dataset,
        device: str = "cpu",
        precision: str = "float32",
    ) -> None:
        self.folder, self.test, self.device, self.precision = folder, test, device, precision
        if device != "cpu":
            from ..backend.kernels.gemm import (
                PRECISIONS,  # here, since a CPU can do without reading all the kernels' code
            )

            check_choice("--precision", precision, PRECISIONS)
        elif precision != "float32":
            raise UserError(
                f"--precision {precision} is for GPUs: add --device cuda, or leave it at float32"
            )
        self.train_set, self.val_set = train, None
        if config.val:
            self.train_set, self.val_set = datasets.hold_out(train, config.val, config.seed)
        r = config.recipe
        if config.micro_batch is None:  # fixed once, so that resuming cuts the batches alike
            share = 1 - config.model.patch_dropout if r.whole < 1 else 1.0
            tokens = round(
                config.model.tokens * math.sqrt(share)
            )  # between those of the run's two parts
            config = dataclasses.replace(config, micro_batch=micro_batch_size(tokens, r.batch_size))
        self.config, self.model = config, ViT(config.model)
        self.params = self.model.init(config.seed).to(device)
        self.optimizer = OPTIMIZERS[r.optimizer](
            self.params, (0.9, r.beta2), weight_decay=r.weight_decay, average=r.average
        )
        self.scale = None
        if precision == "float16":
            from ..engine.loss_scale import LossScale

            self.scale = LossScale(module_of(device))
        self.kept = self.optimizer.average  # the weights to evaluate and to keep
        self.epoch_steps = datasets.steps_per_epoch(len(self.train_set), r.batch_size)
        self.steps = r.epochs * self.epoch_steps
        self.rate = schedule(
            r.schedule, r.lr, min(round(r.warmup * self.epoch_steps), self.steps // 5), self.steps
        )
        self.step, self.train_seconds, self.seconds = 0, 0.0, 0.0
        self.loss_sum: Any = 0.0  # over this epoch's images; with
        self.failed: Any = -1  # the first step that was not finite: on a GPU arrays, until settle
        self.saved_step = 0  # of the newest checkpoint
        self.best: tuple[float, float] | None = None  # validation accuracy, minus validation loss
        self.stale = 0  # epochs since the best
        self.metrics: str | None = None  # checksum of the rows when the checkpoint was made

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
        """A new run in `folder`. Raises UserError where that holds a run already, or the device is not to be had."""
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
        """The run in `folder`, where its last whole checkpoint stands; rows of metrics after it are taken back.

        Raises UserError where the folder, its files and the data do not belong together.
        """
        config, md5, before = read_config(folder)
        run = cls(config, folder, train, test, device, precision)
        if md5 != data_md5(train, test):
            raise UserError(
                f"{folder} was trained on another version of {config.data} than the one found now"
            )
        for name, version in versions().items():
            if before.get(name) != version:
                say(
                    f"this run began with {name} {before.get(name)}, now it is {version}: the last digits may differ"
                )
        with locked(folder):
            if (folder / CHECKPOINT).exists() or (folder / PREVIOUS).exists():
                run.load(*load_checkpoint(folder, say))
            elif read_metrics(folder) or (folder / MODEL).exists():
                raise UserError(
                    f"{folder} has lost its checkpoints: restore {CHECKPOINT}, or train again in another folder"
                )
            take_back_rows(
                folder, run.step // run.epoch_steps, run.metrics
            )  # no checkpoint: killed at once, so step 0
            if run.finished and not config.val and not (folder / MODEL).exists():
                run.save_model()
        return run

    def load(self, note: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Take up the state of a checkpoint. Raises UserError for one of another run."""
        try:
            mine, theirs = self.config.flat(), TrainConfig.from_dict(note["config"]).flat()
            differs = [
                key for key in mine if theirs[key] != mine[key] and key != "data"
            ]  # it may have been moved
            weights, step = arrays["weights"], note["step"]
            if differs:
                raise UserError(
                    f"it was made with {differs[0]} {theirs[differs[0]]}, not {mine[differs[0]]}"
                )
            if (
                classes := tuple(note.get("classes", self.train_set.classes))
            ) != self.train_set.classes:
                raise UserError(
                    f"it knows the classes {', '.join(classes)}, now they are "
                    f"{', '.join(self.train_set.classes)}"
                )
            if weights.shape != self.params.flat.shape or weights.dtype != self.params.flat.dtype:
                raise UserError(
                    f"it holds {weights.size:,} {weights.dtype} weights, the model has "
                    f"{self.params.flat.size:,} of {self.params.flat.dtype}"
                )
            if not (isinstance(step, int) and 0 <= step <= self.steps and step == arrays["t"]):
                raise UserError(f"it stands at step {step!r} of {self.steps}")
            if not all(np.isfinite(a).all() for a in arrays.values()):
                raise UserError("it holds NaN or infinity")
            self.optimizer.load_state(arrays)
            self.loss_sum, self.train_seconds = (
                float(note["loss_sum"]),
                float(note["train_seconds"]),
            )
            self.seconds, best = float(note["seconds"]), note["best"]
            self.best = None if best is None else (float(best[0]), float(best[1]))
            self.stale, self.metrics = (
                int(note.get("stale", 0)),
                note.get("metrics"),
            )  # version 0.2.0 had neither
            if self.scale:
                self.scale.load(note.get("loss_scale"))
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise UserError(
                f"the checkpoint in {self.folder} does not belong to its config.json: {error}"
            ) from None
        self.params.flat[...] = get_xp(self.params.flat).asarray(weights)
        self.step = self.saved_step = step

    def train(
        self, workers: int | None = None, say: Callable[[str], None] = print, bar: bool = False
    ) -> None:
        """Train to the end. say: takes a line for each epoch. bar: show a progress bar.

        Ctrl-C ends the step, saves, and raises KeyboardInterrupt. Raises UserError where the loss is no longer finite.
        """
        from tqdm import tqdm

        c, r = self.config, self.config.recipe
        loss_function = partial(cross_entropy, smoothing=r.smoothing)
        hidden = None if bar and sys.stderr else True  # None: where stderr is no terminal
        with (
            locked(self.folder),
            ctrl_c() as stop,
            Workers(self.model, loss_function, c.seed, workers, c.micro_batch) as threads,
            np.errstate(over="ignore", invalid="ignore"),  # what is not finite is looked for below
            stream(self.device),
            self.stepper(threads) as take,
            tqdm(
                total=self.steps, initial=self.step, unit="step", disable=hidden, leave=False
            ) as shown,
        ):
            began = mark = time.perf_counter()
            seconds_before = self.seconds
            saved, save_seconds, looked = began, 0.0, 0.0
            for images, labels in self.batches() if not self.finished else ():
                whole = self.step >= (1 - r.whole) * self.steps
                loss, norm = take(images, labels, self.step, self.rate(self.step), whole)
                self.watch(loss, norm)
                self.step += 1
                self.loss_sum = self.loss_sum + loss * len(labels)
                ends = self.step % self.epoch_steps == 0
                if ends or self.device == "cpu" or time.perf_counter() - looked > LOOK_EVERY:
                    self.settle()  # a GPU is waited for here
                    shown.set_postfix(loss=f"{number(loss):.3f}", refresh=False)
                    looked = time.perf_counter()
                now = time.perf_counter()
                shown.update()
                self.train_seconds, self.seconds = (
                    self.train_seconds + now - mark,
                    seconds_before + now - began,
                )
                if ends:
                    line = self.end_epoch(
                        threads, lambda: seconds_before + time.perf_counter() - began
                    )
                    with tqdm.external_write_mode():  # else the bar and the line mix
                        say(line)
                    saved = time.perf_counter()
                    if self.finished:
                        break
                stopping = stop.is_set()
                if (stopping and self.saved_step < self.step) or now - saved > max(
                    SAVE_EVERY, SAVE_COST * save_seconds
                ):
                    self.save()
                    saved = time.perf_counter()
                    save_seconds = saved - now
                if stopping:
                    raise KeyboardInterrupt
                mark = time.perf_counter()

    @contextmanager
    def stepper(self, threads: Workers) -> Iterator[Callable[..., tuple[Any, Any]]]:
        """(images, labels, step, rate, all_patches) -> loss, norm: a step, over threads or on a GPU; there also what is
        evaluated meanwhile is in the precision asked for."""
        clip = self.config.recipe.clip

        def on_threads(
            images: Array, labels: Array, step: int, lr: float, all_patches: bool
        ) -> tuple[Any, Any]:
            loss, grads = threads.loss_and_grad(
                self.params, images, labels, step, all_patches=all_patches
            )
            self.watch(loss, 0.0)
            return loss, self.optimizer.step(self.params, grads, lr, clip, threads.each)

        if self.device == "cpu":
            yield on_threads
        else:
            from ..backend.kernels.gemm import precision
            from ..engine.cuda_graph import GraphStep

            step = GraphStep(threads, self.params, self.optimizer, clip, scale=self.scale)
            with precision(self.precision), closing(step):
                yield step

    def batches(self) -> Iterator[tuple[Array, Array]]:
        """Those that are left. A GPU gets the whole data set once, if it has the room, and makes them itself."""
        c, r, data = self.config, self.config.recipe, self.train_set
        fits = data.images.nbytes < free_memory(self.device) / 2
        found = datasets.batches(
            data.to(self.device) if fits else data,
            r.batch_size,
            r.epochs,
            c.seed,
            augmentation(r),
            mixing(r),
            self.step,
        )
        if self.device == "cpu":
            return ahead(found)
        return (
            found
            if fits
            else ((to(images, self.device), to(labels, self.device)) for images, labels in found)
        )

    def watch(self, loss: Any, norm: Any) -> None:
        """Stop where one of them is not finite: at once, or on a GPU, where a look would make it wait, when settle looks."""
        if isinstance(loss, float):
            self.check_finite(loss, "loss")
            self.check_finite(norm, "gradients' norm")
        else:
            xp = get_xp(loss)
            self.failed = xp.where(
                (self.failed == xp.asarray(-1)) & ~xp.isfinite(loss + norm), self.step, self.failed
            )

    def settle(self) -> None:
        """Read what a GPU has added up since the last time, and stop where a step was not finite."""
        self.failed, self.loss_sum = int(number(self.failed)), number(self.loss_sum)
        if self.failed >= 0:
            self.step = self.failed
            self.check_finite(math.nan, "loss, or the gradients' norm,")

    @property
    def finished(self) -> bool:
        """Whether the last step is done, or --patience at its end."""
        return self.step == self.steps or bool(
            self.config.patience and self.stale >= self.config.patience
        )

    def end_epoch(self, threads: Workers, seconds: Callable[[], float]) -> str:
        """Evaluate, add a row to the metrics, save. In this order: a row that was written before a kill and is not in
        the checkpoint is taken back on resuming, one that was not written could not be. Returns the row in words."""
        n = len(self.train_set)
        row: dict[str, Any] = {
            "epoch": self.step // self.epoch_steps,
            "step": self.step,
            "train_loss": self.loss_sum / n,
        }
        better = True
        if self.val_set:
            row["val_loss"], row["val_accuracy"] = evaluate(threads, self.kept, self.val_set)
            score = (row["val_accuracy"], -row["val_loss"])
            better = self.best is None or score > self.best
            self.best, self.stale = (score, 0) if better else (self.best, self.stale + 1)
        row["test_loss"], row["test_accuracy"] = evaluate(threads, self.kept, self.test)
        row["lr"] = self.rate(self.step - 1)
        row["images_per_second"] = n / self.train_seconds if self.train_seconds else 0.0
        row["seconds"] = self.seconds = seconds()
        self.loss_sum = self.train_seconds = 0.0
        self.check_finite(
            row["test_loss"] + number(abs(self.params.flat).sum()), "test loss or a weight"
        )
        row = {
            key: value if isinstance(value, int) else float(f"{value:.6g}")
            for key, value in row.items()
        }
        add_row(self.folder, row)
        if better:
            self.save_model()
        self.save()
        val = f"val {row['val_accuracy']:7.2%}  " if self.val_set else ""
        return (
            f"epoch {row['epoch']:3d}  train loss {row['train_loss']:.4f}  {val}test loss {row['test_loss']:.4f}  "
            f"test accuracy {row['test_accuracy']:.2%}  {row['images_per_second']:,.0f} images/s  "
            f"{row['seconds']:.1f} s"
        )

    def check_finite(self, value: float, what: str) -> None:
        """Stop the run where it has diverged."""
        if not math.isfinite(value):
            last = (
                f"; {self.folder / MODEL} is of the last good epoch"
                if (self.folder / MODEL).exists()
                else ""
            )
            r = self.config.recipe
            raise UserError(
                f"the {what} is not finite at step {self.step} ({value}): train again, in another folder, "
                f"with a lower --lr than {r.lr:g} or --weight-decay than {r.weight_decay:g}{last}"
            )

    def save_model(self) -> None:
        """Write model.npz, which evaluate and predict read."""
        Classifier.of(self.model, self.kept.to("cpu"), self.train_set).save(self.folder / MODEL)

    def save(self) -> None:
        """Write the checkpoint: all that resume needs, on any device."""
        self.settle()
        note = {
            "config": self.config.to_dict(),
            "step": self.step,
            "loss_sum": self.loss_sum,
            "train_seconds": self.train_seconds,
            "seconds": self.seconds,
            "best": self.best,
            "stale": self.stale,
            "metrics": metrics_sha256(self.folder),
            "classes": self.train_set.classes,
        }
        if self.scale:
            note["loss_scale"] = self.scale.state()
        save_checkpoint(
            self.folder, note, {"weights": to_host(self.params.flat), **self.optimizer.state()}
        )
        self.saved_step = self.step


def evaluate(threads: Workers, params: Any, data: Dataset) -> tuple[float, float]:
    """(mean loss without smoothing, accuracy) on a data set."""
    logits = threads.predict(params, data)
    return float(cross_entropy_forward(logits, data.labels)[0]), accuracy(logits, data.labels)
