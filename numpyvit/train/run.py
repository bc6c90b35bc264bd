"""A run: the state of a training, and the files that keep it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..backend.arrays import Array, get_xp
from ..backend.device import to_host
from ..classifier import Classifier
from ..data import Dataset
from ..errors import UserError, say
from ..params import Buffer
from ..vit import ViT
from .checkpoint import CHECKPOINT, PREVIOUS, check_size, load_checkpoint, save_checkpoint
from .config import TrainConfig
from .folder import (
    MODEL,
    data_md5,
    locked,
    make_folder,
    read_config,
    remove_left_overs,
    versions,
)
from .metrics import metrics_lines, restore_metrics, rows_text
from .state import State


class Run(State):
    """One training: `Run.start` or `Run.resume` returns it, and loop.train trains it.

    Its attributes are those of State; this class reads and writes the folder.
    """

    @classmethod
    def start(
        cls,
        config: TrainConfig,
        folder: Path,
        train: Dataset,
        test: Dataset,
        device: str = "cpu",
        precision: str = "float32",
        data_dir: str | Path | None = None,
    ) -> "Run":
        """Return a new run in `folder`.

        data_dir: where a known data set was read from, to be stored for `read_data_dir`.

        Raises UserError if the folder already holds a run, or the device is not
        available.
        """
        run = cls(config, folder, train, test, device, precision)
        make_folder(folder, run.config, data_md5(train, test), data_dir)
        run.save()
        return run

    @classmethod
    def resume(
        cls,
        folder: Path,
        train: Dataset,
        test: Dataset,
        say: Callable[[str], None] = say,
        device: str = "cpu",
        precision: str = "float32",
    ) -> "Run":
        """Return the run in `folder` as its last intact checkpoint describes it.

        Rows of metrics.jsonl that were written after that checkpoint are removed. A run
        can be resumed on a different device. `say` receives remarks. Raises UserError
        if the folder, its files and the data do not belong together.
        """
        config, md5, old_versions = read_config(folder)
        check_size(folder, ViT(config.model).count())
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
            run.restore(say)
        return run

    def restore(self, say: Callable[[str], None] = say) -> None:
        """Return to the last intact checkpoint, and make the other files agree with it.

        The caller holds the lock of the folder. `say` receives remarks. Raises UserError
        if there is no checkpoint that belongs to this run.
        """
        folder = self.folder
        is_new = not self.incomplete
        self.incomplete = True  # until all agree again
        remove_left_overs(folder)
        if (folder / CHECKPOINT).exists() or (folder / PREVIOUS).exists():
            note, arrays = load_checkpoint(folder, say)
            self.load(note, arrays)
            rows, sha256 = note.get("rows"), note.get("metrics")
            self.rows = restore_metrics(folder, self.epoch, rows, sha256, say)
            self.restore_model(say)
            self.incomplete = False
        elif is_new and not metrics_lines(folder) and not (folder / MODEL).exists():
            # It was killed before the first checkpoint, and begins at step 0.
            self.rows = restore_metrics(folder, 0, [], None, say)
            self.incomplete = False
            self.save()
        else:
            raise UserError(
                f"{folder} has lost its checkpoints: restore {CHECKPOINT}, or train again in "
                "another folder"
            )

    def prepare(self, say: Callable[[str], None]) -> None:
        """Make sure that training can go on from the present state.

        The caller holds the lock of the folder. After an exception within a step this
        returns to the last checkpoint. Raises UserError if the run has been trained
        elsewhere since it was loaded.
        """
        if self.incomplete:
            self.restore(say)
            say(f"the last step was interrupted: training goes on from step {self.step}")
        elif b"".join(metrics_lines(self.folder)) != rows_text(self.rows):
            raise UserError(
                f"the files in {self.folder} have changed since this run was loaded, by another "
                "training or by hand: resume the run from its folder"
            )
        if self.saved_step < self.step:  # an exception kept it from being saved
            self.save()

    def load(self, note: dict[str, Any], arrays: dict[str, Array]) -> None:
        """Set the state to a checkpoint's. Raises UserError for one of another run."""
        try:
            self.check_checkpoint(note, arrays)
            ours = {name: x for name, x in arrays.items() if name != "best_weights"}
            self.optimizer.load_state(ours)
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise UserError(
                f"the checkpoint in {self.folder} does not belong to its config.json: {error}"
            ) from None
        self.params.flat[...] = get_xp(self.params.flat).asarray(arrays["weights"])
        self.step = self.saved_step = note["step"]
        self.failed_step = -1
        self.loss_sum = note["loss_sum"]
        self.train_seconds = note["train_seconds"]
        self.seconds = note["seconds"]
        self.best = None if note["best"] is None else tuple(note["best"])
        self.best_weights = arrays.get("best_weights")
        # "stale" was its name up to version 0.2. The oldest checkpoints have neither.
        waited = note.get("epochs_without_improvement", note.get("stale"))
        self.epochs_without_improvement = waited or 0
        if self.best and self.best_weights is None and waited == 0 and self.epoch_ended:
            self.best_weights = to_host(self.eval_params.flat).copy()  # of an older version
        if self.loss_scale:
            self.loss_scale.load(note.get("loss_scale"))

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
        flat = self.params.flat
        for weights in (arrays["weights"], arrays.get("best_weights", arrays["weights"])):
            if weights.shape != flat.shape or weights.dtype != flat.dtype:
                raise UserError(
                    f"it holds {weights.size:,} {weights.dtype} weights, the model has "
                    f"{flat.size:,} of {flat.dtype}"
                )
        step = note["step"]
        if not (step <= self.steps and step == arrays["t"]):
            raise UserError(f"it is at step {step} of {self.steps}")

    def save(self) -> None:
        """Write the checkpoint, which holds all that `resume` needs, on any device.

        Raises UserError if it cannot be written, or if a step was interrupted.
        """
        if self.incomplete:
            raise UserError(
                f"the training of {self.folder} was interrupted within a step: train it, which "
                "continues from its last checkpoint, before saving it"
            )
        self.synchronise()
        note = {
            "config": self.config.to_dict(),
            "step": self.step,
            "loss_sum": self.loss_sum,
            "train_seconds": self.train_seconds,
            "seconds": self.seconds,
            "best": self.best,
            "epochs_without_improvement": self.epochs_without_improvement,
            "rows": self.rows,
            "classes": self.train_set.classes,
        }
        if self.loss_scale:
            note["loss_scale"] = self.loss_scale.state()
        arrays = {"weights": to_host(self.params.flat), **self.optimizer.state()}
        if self.best_weights is not None:
            arrays["best_weights"] = self.best_weights
        save_checkpoint(self.folder, note, arrays)
        self.saved_step = self.step

    def save_model(self) -> None:
        """Write model.npz, the trained Classifier, unless its weights are not known."""
        weights = self.model_weights
        if weights is not None:
            params = Buffer(self.model.params, weights)
            Classifier.of(self.model, params, self.train_set).save(self.folder / MODEL)

    def restore_model(self, say: Callable[[str], None]) -> None:
        """Write model.npz again if it is missing, damaged, or not the checkpoint's."""
        path = self.folder / MODEL
        found = self.weights_in_model_file()
        if self.best and self.best_weights is None:  # a checkpoint of an older version
            self.best_weights = found
            if found is None:
                self.best = None
                self.best_weights = to_host(self.eval_params.flat).copy()
                say(
                    "the weights of the best epoch are lost with model.npz, since a checkpoint of "
                    "an older version does not hold them; the present ones take their place"
                )
        wanted = self.model_weights
        if wanted is None or (found is not None and np.array_equal(found, wanted)):
            return
        if path.exists():
            problem = "is damaged" if found is None else "is not that of the checkpoint"
        else:
            problem = "is missing"
        say(f"{path} {problem}: it is written again from the checkpoint")
        self.save_model()

    def weights_in_model_file(self) -> Array | None:
        """Return the weights in model.npz, or None if it is no model of this run."""
        try:
            found = Classifier.load(self.folder / MODEL)
        except UserError:
            return None
        same = found.config == self.config.model and found.classes == self.train_set.classes
        return found.params.flat if same else None
