"""The training loop: from a TrainConfig to a folder with a trained model, stoppable and resumable at any step."""

import dataclasses
import hashlib
import json
import math
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import data as datasets
from .checkpoint import CHECKPOINT, PREVIOUS, load_checkpoint, save_checkpoint, write_atomically
from .classifier import Classifier
from .data import Dataset
from .errors import UserError, check_choice
from .losses import accuracy, cross_entropy, cross_entropy_forward
from .optim import AdamW, clip_norm
from .parallel import Workers, micro_batch_size
from .recipes import Recipe, recipes
from .schedules import warmup_cosine
from .vit import ViT, ViTConfig, is_count, is_real, presets

CONFIG, METRICS, MODEL = "config.json", "metrics.jsonl", "model.npz"


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the result of a run, but for the versions of the libraries."""

    data: str
    model: ViTConfig
    recipe: Recipe
    seed: int = 0
    val: float = 0.0                                  # share of the training set that is held out to choose the best epoch
    micro_batch: int | None = None                    # None: micro_batch_size's

    def __post_init__(self) -> None:
        r = self.recipe
        for name, value in (("epochs", r.epochs), ("batch-size", r.batch_size), ("micro-batch", self.micro_batch)):
            if not is_count(value) and not (name == "micro-batch" and value is None):
                raise UserError(f"--{name} is {value!r}: it must be a whole number above 0")
        if not (is_real(r.lr) and r.lr > 0):
            raise UserError(f"--lr is {r.lr!r}: it must be a number above 0")
        if not (is_real(r.weight_decay) and r.weight_decay >= 0):
            raise UserError(f"--weight-decay is {r.weight_decay!r}: it must be a number, 0 or above")
        if self.seed < 0:
            raise UserError(f"--seed is {self.seed}: it must be 0 or above")
        if not 0 <= self.val < 1:
            raise UserError(f"--val is {self.val}: it must be a share of the training set, from 0 to below 1")

    @classmethod
    def make(cls, name: str, train: Dataset, preset: str | None = None, **changes: Any) -> "TrainConfig":
        """The recipe of data set `name`, with the preset's model made to fit its images, and with `changes`, which are
        fields of Recipe or of TrainConfig; those that are None change nothing."""
        changes = {key: value for key, value in changes.items() if value is not None}
        ours = {f.name for f in dataclasses.fields(cls)}
        recipe = dataclasses.replace(recipes[name], **{k: v for k, v in changes.items() if k not in ours})
        recipe = dataclasses.replace(recipe, preset=preset or recipe.preset)
        check_choice("preset", recipe.preset, presets)
        H, W, C = train.images.shape[1:]
        model = dataclasses.replace(presets[recipe.preset], image_size=H if H == W else (H, W), channels=C,
                                    classes=len(train.classes))
        return cls(name, model, recipe, **{k: v for k, v in changes.items() if k in ours})

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "TrainConfig":
        return cls(**{**fields, "model": ViTConfig.from_dict(fields["model"]), "recipe": Recipe(**fields["recipe"])})


class Run:
    """One training: `Run.start(config, folder, train, test)` or `Run.resume(folder, train, test)`, then `run.train()`."""

    def __init__(self, config: TrainConfig, folder: Path, train: Dataset, test: Dataset) -> None:
        self.config, self.folder, self.test = config, folder, test
        self.train_set, self.val_set = train, None
        if config.val:
            self.train_set, self.val_set = datasets.hold_out(train, config.val, config.seed)
        r = config.recipe
        self.micro_batch = config.micro_batch or micro_batch_size(config.model.tokens, r.batch_size)
        self.model = ViT(config.model)
        self.params = self.model.init(config.seed)
        self.optimizer = AdamW(self.params, weight_decay=r.weight_decay)
        self.epoch_steps = datasets.steps_per_epoch(len(self.train_set), r.batch_size)
        self.steps = r.epochs * self.epoch_steps
        self.rate = warmup_cosine(r.lr, round(r.warmup * self.epoch_steps), self.steps)
        self.augment = augmentation(r)
        self.step, self.loss_sum, self.train_seconds, self.seconds = 0, 0.0, 0.0, 0.0
        self.best: tuple[float, float] | None = None  # validation accuracy, minus validation loss

    @classmethod
    def start(cls, config: TrainConfig, folder: Path, train: Dataset, test: Dataset) -> "Run":
        """A new run in `folder`. Raises UserError where that holds a run already."""
        run = cls(config, folder, train, test)
        held = [name for name in (CONFIG, METRICS, CHECKPOINT, PREVIOUS, MODEL) if (folder / name).exists()]
        if held:
            raise UserError(f"{folder} holds a run already ({held[0]}): go on with it by --resume {folder}, "
                            "or choose another --out")
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file: --out wants a folder")
        folder.mkdir(parents=True, exist_ok=True)
        from . import __version__
        text = json.dumps({**config.to_dict(), "micro_batch": run.micro_batch, "data_md5": data_md5(train, test),
                           "versions": {"numpyvit": __version__, "numpy": np.__version__,
                                        "python": platform.python_version()}}, indent=1)
        write_atomically(folder / CONFIG, lambda f: f.write(text.encode() + b"\n"))
        write_atomically(folder / METRICS, lambda f: f.write(b""))
        run.save()
        return run

    @classmethod
    def resume(cls, folder: Path, train: Dataset, test: Dataset, say: Callable[[str], None] = print) -> "Run":
        """The run in `folder`, where its last whole checkpoint stands; rows of metrics after it are taken back."""
        fields = read_config(folder)
        versions, md5 = fields.pop("versions"), fields.pop("data_md5")
        run = cls(TrainConfig.from_dict(fields), folder, train, test)
        if md5 != data_md5(train, test):
            raise UserError(f"{folder} was trained on another version of {run.config.data} than the one found now")
        if versions["numpy"] != np.__version__:
            say(f"this run began with NumPy {versions['numpy']}, now it is {np.__version__}: the last digits may differ")
        note, arrays = load_checkpoint(folder, say)
        try:
            weights = arrays.pop("weights")
            if weights.shape != run.params.flat.shape or weights.dtype != run.params.flat.dtype:
                raise UserError(f"it holds {weights.size:,} {weights.dtype} weights, the model of {CONFIG} has "
                                f"{run.params.flat.size:,} of {run.params.flat.dtype}")
            run.optimizer.load_state(arrays)
            run.step, run.loss_sum, run.best = note["step"], note["loss_sum"], note["best"]
            run.train_seconds, run.seconds = note["train_seconds"], note["seconds"]
        except (KeyError, TypeError, UserError) as error:
            raise UserError(f"the checkpoint in {folder} does not belong to its {CONFIG}: {error}") from None
        run.best = None if run.best is None else (run.best[0], run.best[1])
        run.params.flat[...] = weights
        rows = [row for row in read_metrics(folder) if row["step"] <= run.step]
        write_atomically(folder / METRICS, lambda f: f.write("".join(json.dumps(row) + "\n" for row in rows).encode()))
        return run

    def train(self, workers: int | None = None, say: Callable[[str], None] = print, bar: bool = False) -> None:
        """Train to the end. say: takes a line for each epoch. bar: show a progress bar.

        Ctrl-C ends the step, saves, and raises KeyboardInterrupt. Raises UserError where the loss is no longer finite.
        """
        from tqdm import tqdm

        r = self.config.recipe
        loss_function = partial(cross_entropy, smoothing=r.smoothing)
        with (Workers(self.model, loss_function, self.config.seed, workers, self.micro_batch) as threads,
              ctrl_c() as stop,
              tqdm(total=self.steps, initial=self.step, unit="step", disable=None if bar else True, leave=False) as shown):
            began = mark = time.perf_counter()
            seconds_before = self.seconds
            for images, labels in datasets.batches(self.train_set, r.batch_size, r.epochs, self.config.seed,
                                                   self.augment, self.step):
                loss, grads = threads.loss_and_grad(self.params, images, labels, self.step)
                if not math.isfinite(loss):
                    raise UserError(f"the loss is {loss} at step {self.step}: start again with a lower --lr than {r.lr}; "
                                    f"the weights of the last epoch are in {self.folder}")
                try:
                    clip_norm(grads, r.clip)
                except UserError as error:
                    raise UserError(f"at step {self.step}: {error}") from None
                self.optimizer.step(self.params, grads, self.rate(self.step))
                self.step += 1
                self.loss_sum += loss * len(labels)
                shown.set_postfix(loss=f"{loss:.3f}", refresh=False)
                shown.update()
                now = time.perf_counter()
                self.train_seconds, self.seconds = self.train_seconds + now - mark, seconds_before + now - began
                if self.step % self.epoch_steps == 0:
                    with tqdm.external_write_mode():
                        say(self.end_epoch(threads, lambda: seconds_before + time.perf_counter() - began))
                if stop.is_set():
                    self.save()
                    raise KeyboardInterrupt
                mark = time.perf_counter()

    def end_epoch(self, threads: Workers, seconds: Callable[[], float]) -> str:
        """Evaluate, add a row to the metrics, save. In this order: a row that was written before a kill and is not in
        the checkpoint is taken back on resuming, one that was not written could not be. Returns the row in words."""
        n = len(self.train_set)
        row: dict[str, Any] = {"epoch": self.step // self.epoch_steps, "step": self.step, "train_loss": self.loss_sum / n}
        better = True
        if self.val_set:
            row["val_loss"], row["val_accuracy"] = evaluate(threads, self.params, self.val_set)
            score = (row["val_accuracy"], -row["val_loss"])
            better = self.best is None or score > self.best
            self.best = score if better else self.best
        row["test_loss"], row["test_accuracy"] = evaluate(threads, self.params, self.test)
        row["lr"] = self.rate(self.step - 1)
        row["images_per_second"] = n / self.train_seconds if self.train_seconds else 0.0
        row["seconds"] = self.seconds = seconds()
        self.loss_sum = self.train_seconds = 0.0
        row = {key: value if isinstance(value, int) else float(f"{value:.6g}") for key, value in row.items()}
        with open(self.folder / METRICS, "a") as f:
            f.write(json.dumps(row) + "\n")
        if better:
            Classifier.of(self.model, self.params, self.train_set).save(self.folder / MODEL)
        self.save()
        val = f"val {row['val_accuracy']:7.2%}  " if self.val_set else ""
        return (f"epoch {row['epoch']:3d}  train loss {row['train_loss']:.4f}  {val}test loss {row['test_loss']:.4f}  "
                f"test accuracy {row['test_accuracy']:.2%}  {row['images_per_second']:,.0f} images/s  "
                f"{row['seconds']:.1f} s")

    def save(self) -> None:
        """Write the checkpoint: all that resume needs."""
        note = {"step": self.step, "loss_sum": self.loss_sum, "train_seconds": self.train_seconds,
                "seconds": self.seconds, "best": self.best}
        save_checkpoint(self.folder, note, {"weights": self.params.flat, **self.optimizer.state()})


def augmentation(r: Recipe) -> datasets.Augment | None:
    """What the recipe does to the training images."""
    steps = [datasets.flip()] if r.flip else []
    if r.turn or r.scale or r.shift % 1:
        steps.append(datasets.affine(r.turn, r.scale, r.shift))
    elif r.shift:
        steps.append(datasets.shift(int(r.shift)))
    return datasets.compose(*steps) if steps else None


def evaluate(threads: Workers, params: Any, data: Dataset) -> tuple[float, float]:
    """(mean loss without smoothing, accuracy) on a data set."""
    logits = threads.predict(params, data)
    return float(cross_entropy_forward(logits, data.labels)[0]), accuracy(logits, data.labels)


def read_config(folder: Path) -> dict[str, Any]:
    """A run's config.json. Raises UserError where the folder holds no run."""
    try:
        fields = json.loads((folder / CONFIG).read_text())
        return {key: fields[key] for key in (*(f.name for f in dataclasses.fields(TrainConfig)), "versions", "data_md5")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} holds no run: its {CONFIG} is missing or damaged ({error})") from None


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, up to the first that a kill left unfinished."""
    rows = []
    for line in (folder / METRICS).read_text().splitlines() if (folder / METRICS).exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def data_md5(*parts: Dataset) -> str:
    """Tells one version of a data set from another."""
    digest = hashlib.md5(usedforsecurity=False)
    for part in parts:
        digest.update(part.images.tobytes())
        digest.update(part.labels.tobytes())
    return digest.hexdigest()


@contextmanager
def ctrl_c() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second one interrupts as ever."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():        # only the main thread may handle signals
        yield event
        return

    def handler(*_: object) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    old = signal.signal(signal.SIGINT, handler)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, old)
