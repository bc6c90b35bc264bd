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
from ..storage.files import exclusive_lock, read_file, remove_left_over, write_atomically
from ..storage.json_text import parse_json
from .checkpoint import CHECKPOINT, PREVIOUS
from .config import TrainConfig
from .metrics import METRICS

CONFIG = "config.json"
MOST_BYTES = 1_000_000  # of config.json
MODEL = "model.npz"
LOCK = ".lock"  # a file of its own, since an editor would replace any of the others
FILES = (CONFIG, METRICS, CHECKPOINT, PREVIOUS, MODEL)
BUSY = "{} is being trained already, by another process or thread: wait until it ends, or stop it"


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


def make_folder(
    folder: Path, config: TrainConfig, data_md5: str, data_dir: str | Path | None = None
) -> None:
    """Make the folder, unless it exists, and write config.json and an empty metrics.jsonl.

    data_dir: the folder of known data sets, if another one than the default was chosen. It
    decides nothing, and is stored only for read_data_dir.

    Raises UserError if the folder already holds a run, is a file, or cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: choose a folder for the run")
    require_no_run(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the folder {folder} could not be made ({error.strerror}): choose another folder "
            "for the run, where you may write"
        ) from error
    fields = {**config.to_dict(), "data_md5": data_md5, "versions": versions()}
    if data_dir:
        fields["data_dir"] = str(Path(data_dir).resolve())
    text = json.dumps(fields, indent=1).encode() + b"\n"
    # Of several processes that come here at the same time, the lock lets one go on.
    with locked(folder):
        require_no_run(folder)
        remove_left_overs(folder)
        write_atomically(folder / CONFIG, lambda f: f.write(text))
        write_atomically(folder / METRICS, lambda f: f.write(b""))


def remove_left_overs(folder: Path) -> None:
    """Remove the temporary files of a killed process. The caller holds the lock."""
    for name in FILES:
        remove_left_over(folder / name, seconds=0)


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
    text = read_file(path, MOST_BYTES)
    try:
        fields = parse_json(text)
        md5 = fields.pop("data_md5")
        found = fields.pop("versions")
        data_dir = fields.pop("data_dir", None)
        if not isinstance(md5, str) or not isinstance(found, dict):
            raise UserError("data_md5 must be a string and versions an object")
        if not all(isinstance(version, str) for version in found.values()):
            raise UserError("versions must be strings")
        if not (data_dir is None or isinstance(data_dir, str)):
            raise UserError("data_dir must be a string")
        return TrainConfig.from_dict(fields), md5, found
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        lost = not any((folder / name).exists() for name in (CHECKPOINT, PREVIOUS, MODEL))
        advice = f"; no checkpoint is there: delete {folder}, and train again" if lost else ""
        raise UserError(f"{path} is damaged: {reason}{advice}") from None


def read_data_dir(folder: Path) -> str | None:
    """Return the folder of known data sets that the run was started with.

    Returns None for the default, and for runs of version 0.2, which did not store it.
    Raises UserError as read_config does.
    """
    read_config(folder)
    data_dir: str | None = parse_json(read_file(folder / CONFIG, MOST_BYTES)).get("data_dir")
    return data_dir


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep others from training this run.

    Raises UserError if another process or thread does, or if the folder cannot be
    written.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(folder / LOCK, flags, 0o666)
    except OSError as error:
        raise UserError(
            f"{folder / LOCK} could not be opened ({error.strerror}): a run can only be trained "
            "in a folder where you may write"
        ) from error
    with open(descriptor) as file, exclusive_lock(file, BUSY.format(folder)):
        yield
