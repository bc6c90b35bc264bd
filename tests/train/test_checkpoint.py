import os
import sys
import zipfile

import numpy as np
import pytest

from numpyvit import UserError
from numpyvit.storage.archives import load_npz
from numpyvit.testing import normal
from numpyvit.train.checkpoint import (
    CHECKPOINT,
    DAMAGED,
    KIND,
    PREVIOUS,
    check_size,
    load_checkpoint,
    save_checkpoint,
)

NOTE = {
    "config": {},
    "step": 3,
    "loss_sum": 1.5,
    "train_seconds": 0.5,
    "seconds": 2,
    "best": [0.5, -1.25],
    "classes": ["a", "b"],
}
ARRAYS = {"w": normal((50,), 0), "t": np.array(7)}


def is_saved(loaded):
    """Return whether (note, arrays) are NOTE and ARRAYS."""
    note, arrays = loaded
    return (
        note == NOTE
        and arrays.keys() == ARRAYS.keys()
        and all(np.array_equal(arrays[name], ARRAYS[name]) for name in ARRAYS)
    )


def test_the_last_two_checkpoints_are_kept(tmp_path):
    save_checkpoint(tmp_path, NOTE | {"step": 1}, ARRAYS)
    save_checkpoint(tmp_path, NOTE | {"step": 2}, ARRAYS)
    save_checkpoint(tmp_path, NOTE, ARRAYS)
    assert is_saved(load_checkpoint(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == [CHECKPOINT, PREVIOUS]
    assert load_npz(tmp_path / PREVIOUS, KIND)[0]["step"] == 2


def test_the_file_names_and_the_kind_are_those_of_existing_runs():
    assert (CHECKPOINT, PREVIOUS) == ("checkpoint.npz", "checkpoint.previous.npz")
    assert KIND == "numpyvit checkpoint 1"


def test_a_damaged_checkpoint_is_replaced_by_the_previous_one_with_a_message(tmp_path):
    save_checkpoint(tmp_path, NOTE, ARRAYS)
    save_checkpoint(tmp_path, NOTE | {"step": 4}, ARRAYS)
    path = tmp_path / CHECKPOINT
    messages = []
    path.write_bytes(path.read_bytes()[:-100])
    assert is_saved(load_checkpoint(tmp_path, messages.append))
    assert "damaged" in messages[0]
    assert "continuing from checkpoint.previous.npz" in messages[0]
    # The damaged file was renamed, so the next save does not keep it.
    assert (tmp_path / DAMAGED).exists()
    save_checkpoint(tmp_path, NOTE | {"step": 5}, ARRAYS)
    assert load_npz(tmp_path / PREVIOUS, KIND)[0] == NOTE
    # A process killed between the two moves of a save leaves only the previous one.
    path.unlink()
    assert is_saved(load_checkpoint(tmp_path, messages.append))
    assert "is missing" in messages[1]
    (tmp_path / PREVIOUS).unlink()
    with pytest.raises(UserError, match="does not exist"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("header", ["{", "(" * 9000, "{'descr': '|V0', 'shape': (10**12,)}", "'"])
def test_a_checkpoint_with_a_malicious_header_gives_way_to_the_previous_one(tmp_path, header):
    save_checkpoint(tmp_path, NOTE, ARRAYS)
    save_checkpoint(tmp_path, {"step": 4}, ARRAYS)
    with zipfile.ZipFile(tmp_path / CHECKPOINT) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    raw = header.encode()
    members["w.npy"] = b"\x93NUMPY\1\0" + len(raw).to_bytes(2, "little") + raw
    with zipfile.ZipFile(tmp_path / CHECKPOINT, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert is_saved(load_checkpoint(tmp_path, lambda line: None))
    assert (tmp_path / DAMAGED).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
def test_something_else_in_the_place_of_a_checkpoint_gives_way_to_the_previous_one(tmp_path):
    save_checkpoint(tmp_path, NOTE, ARRAYS)
    (tmp_path / CHECKPOINT).rename(tmp_path / PREVIOUS)
    os.mkfifo(tmp_path / CHECKPOINT)
    assert is_saved(load_checkpoint(tmp_path, lambda line: None))


def test_a_model_larger_than_the_checkpoint_is_refused_before_it_is_allocated(tmp_path):
    check_size(tmp_path, 10**9)  # without checkpoints, the run begins at step 0
    save_checkpoint(tmp_path, NOTE, ARRAYS)
    check_size(tmp_path, 50)
    with pytest.raises(UserError, match="a model of 1,000,000 weights"):
        check_size(tmp_path, 10**6)
