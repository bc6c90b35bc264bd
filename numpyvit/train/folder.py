"""The folder of a run: making it, reading its config.json, and locking it."""

import hashlib
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..data import Dataset
from ..errors import UserError
from ..storage.files import exclusive_lock, write_atomically
from .checkpoint import CHECKPOINT, PREVIOUS
from .config import TrainConfig
from .metrics import METRICS

CONFIG = "config.json"
MODEL = "model.npz"
FILES = (CONFIG, METRICS, CHECKPOINT, PREVIOUS, MODEL)
BUSY = "{} is being trained by another process: wait until it ends, or stop it"


def versions() -> dict[str, str]:
    """Return the versions of the libraries that decide the last digits of a result."""
    from ..version import __version__

    return {"numpyvit": __version__, "numpy": np.__version__, "python": platform.python_version()}


def data_md5(*parts: Dataset) -> str:
    """Return a checksum that tells one version of a data set from another."""
    digest = hashlib.md5(usedforsecurity=False)
    for part in parts:
        digest.update(part.images.tobytes())
        digest.update(part.labels.tobytes())
    return digest.hexdigest()


def make_folder(folder: Path, config: TrainConfig, data_md5: str) -> None:
    """Write config.json and an empty metrics.jsonl.

    Raises UserError if the folder already holds a run, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: choose a folder for the run")
    require_no_run(folder)
    folder.mkdir(parents=True, exist_ok=True)
    fields = {**config.to_dict(), "data_md5": data_md5, "versions": versions()}
    text = json.dumps(fields, indent=1) + "\n"
    # Of two processes that come here at the same time, the lock lets one go on.
    with open(folder / CONFIG, "a") as f, exclusive_lock(f, BUSY.format(folder)):
        require_no_run(folder)
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
        write_atomically(folder / METRICS, lambda f: f.write(b""))


def require_no_run(folder: Path) -> None:
    """Raise UserError if the folder holds a file of a run that is not empty."""
    for name in FILES:
        path = folder / name
        if path.exists() and (name != CONFIG or path.stat().st_size):
            raise UserError(
                f"{folder} already holds a run ({name}): resume it, or choose another folder"
            )


def read_config(folder: Path) -> tuple[TrainConfig, str, dict[str, str]]:
    """Return config.json's config, the data's checksum, and the library versions.

    Raises UserError if the folder holds no run, or the file is damaged.
    """
    path = folder / CONFIG
    if not path.exists() or not path.stat().st_size:
        raise UserError(
            f"{folder} holds no run: there is no {CONFIG} in it; give the folder that `train` "
            "printed"
        )
    try:
        fields = json.loads(path.read_bytes())
        md5 = fields.pop("data_md5")
        found = fields.pop("versions")
        if not isinstance(md5, str) or not isinstance(found, dict):
            raise UserError("data_md5 must be a string and versions an object")
        return TrainConfig.from_dict(fields), md5, found
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path} is damaged: {reason}") from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from training this run. Raises UserError if one does."""
    with open(folder / CONFIG) as f, exclusive_lock(f, BUSY.format(folder)):
        yield
