"""The training loop, and the end of an epoch."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np

from ..backend.device import to_float, to_host
from ..data import Dataset
from ..engine.base import Engine
from ..errors import say
from ..losses import accuracy, cross_entropy
from .folder import locked
from .metrics import add_row
from .progress import Progress
from .run import Run
from .stop_signals import exception_for, stop_signals

MOST_OPERATIONS = 14  # of RandAugment that an image stands; there are fourteen kinds


def train(
    run: Run,
    workers: int | None = None,
    say: Callable[[str], None] = say,
    bar: bool = False,
) -> None:
    """Train a run to its end.

    workers is the number of threads, by default one for each core; it changes no
    result. say receives a line for each epoch. bar: show a progress bar. Ctrl-C
    finishes the step, saves, and raises KeyboardInterrupt; a second one raises it at
    once. SIGTERM does the same, but raises SystemExit. After any exception the run can
    be trained on: if it came within a step, from the last checkpoint.

    Raises UserError if the loss is no longer finite, if a file cannot be written, or if
    another process or thread trains the run, or has done so since it was loaded.
    """
    with locked(run.folder), stop_signals() as stopped:
        run.prepare(say)
        if run.step == 0:
            for remark in remarks(run):
                say(remark)
        with (
            closing(run.engine(workers)) as engine,
            Progress(run, say, bar) as progress,
            np.errstate(over="ignore", invalid="ignore"),  # run.count looks for what is not finite
        ):
            for images, labels in run.batches():
                run.incomplete = True
                lr = run.learning_rate(run.step)
                loss, norm = engine.step(images, labels, run.step, lr, run.patches)
                run.count(loss, norm, len(labels))
                progress.count_step(loss)
                if run.epoch_ended:
                    progress.line(end_epoch(run, engine, progress.seconds))
                run.incomplete = False
                if run.finished:
                    break
                if run.saved_step < run.step and (stopped or progress.time_to_save()):
                    progress.save()
                if stopped:
                    raise exception_for(stopped[0])
                progress.start_step()


def remarks(run: Run) -> list[str]:
    """Return what is allowed in the config of a run, but is hardly meant."""
    recipe = run.config.recipe
    images = len(run.train_set)
    found = []
    if recipe.batch_size > images:
        found.append(
            f"batch_size is {recipe.batch_size:,}, but there are {images:,} training images: each "
            "step takes all of them"
        )
    if recipe.randaugment > MOST_OPERATIONS:
        found.append(
            f"randaugment is {recipe.randaugment:,}: after so many operations little is left of an "
            "image; 1 to 4 are usual"
        )
    return found


def end_epoch(run: Run, engine: Engine, seconds: Callable[[], float]) -> str:
    """Evaluate the run, add a row to the metrics, and save; return the row in words.

    The row is written before the checkpoint: if the process is killed between the two,
    resuming removes the row and computes it again, whereas a missing row could not be
    restored. seconds returns the time of the run so far. An exception leaves
    run.incomplete True until the state of the run and the files agree again.
    """
    n = len(run.train_set)
    row: dict[str, Any] = {
        "epoch": run.epoch,
        "step": run.step,
        "train_loss": run.loss_sum / n,
    }
    better = True
    if run.val_set:
        row["val_loss"], row["val_accuracy"] = evaluate(engine, run.val_set)
        score = (row["val_accuracy"], -row["val_loss"])
        better = run.best is None or score > run.best
        if better:
            run.best = score
            run.best_weights = to_host(run.eval_params.flat).copy()
            run.epochs_without_improvement = 0
        else:
            run.epochs_without_improvement += 1
    row["test_loss"], row["test_accuracy"] = evaluate(engine, run.test_set)
    row["lr"] = run.learning_rate(run.step - 1)
    row["images_per_second"] = n / run.train_seconds if run.train_seconds else 0.0
    row["seconds"] = run.seconds = seconds()
    run.loss_sum = run.train_seconds = 0.0
    weights_sum = to_float(abs(run.params.flat).sum())
    run.require_finite(row["test_loss"] + weights_sum, "test loss or a weight")
    row = {name: rounded(value) for name, value in row.items()}
    run.rows.append(row)
    add_row(run.folder, row)
    if better:
        run.save_model()
    run.incomplete = False
    run.save()
    return row_text(row)


def evaluate(engine: Engine, data: Dataset) -> tuple[float, float]:
    """Return the mean loss, without label smoothing, and the accuracy on a data set."""
    logits = engine.predict(data)
    loss, _ = cross_entropy(logits, data.labels)
    return float(loss), accuracy(logits, data.labels)


def rounded(value: int | float) -> int | float:
    """Return a float with six significant digits, an integer unchanged."""
    return value if isinstance(value, int) else float(f"{value:.6g}")


def row_text(row: dict[str, Any]) -> str:
    """Return a row of the metrics as the line that is printed after an epoch."""
    val = f"val {row['val_accuracy']:7.2%}  " if "val_accuracy" in row else ""
    return (
        f"epoch {row['epoch']:3d}  train loss {row['train_loss']:.4f}  {val}"
        f"test loss {row['test_loss']:.4f}  test accuracy {row['test_accuracy']:.2%}  "
        f"{row['images_per_second']:,.0f} images/s  {row['seconds']:.1f} s"
    )
