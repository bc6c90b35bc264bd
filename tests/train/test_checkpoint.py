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
    load_checkpoint,
    save_checkpoint,
)

NOTE = {"step": 3, "names": ["a", "b"]}
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
    save_checkpoint(tmp_path, {"step": 1}, ARRAYS)
    save_checkpoint(tmp_path, {"step": 2}, ARRAYS)
    save_checkpoint(tmp_path, NOTE, ARRAYS)
    assert is_saved(load_checkpoint(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == [CHECKPOINT, PREVIOUS]
    assert load_npz(tmp_path / PREVIOUS, KIND)[0] == {"step": 2}


def test_the_file_names_and_the_kind_are_those_of_existing_runs():
    assert (CHECKPOINT, PREVIOUS) == ("checkpoint.npz", "checkpoint.previous.npz")
    assert KIND == "numpyvit checkpoint 1"


def test_a_damaged_checkpoint_is_replaced_by_the_previous_one_with_a_message(tmp_path):
    save_checkpoint(tmp_path, NOTE, ARRAYS)
    save_checkpoint(tmp_path, {"step": 4}, ARRAYS)
    path = tmp_path / CHECKPOINT
    messages = []
    path.write_bytes(path.read_bytes()[:-100])
    assert is_saved(load_checkpoint(tmp_path, messages.append))
    assert "damaged" in messages[0]
    assert "continuing from checkpoint.previous.npz" in messages[0]
    # The damaged file was renamed, so the next save does not keep it.
    assert (tmp_path / DAMAGED).exists()
    save_checkpoint(tmp_path, {"step": 5}, ARRAYS)
    assert load_npz(tmp_path / PREVIOUS, KIND)[0] == NOTE
    # A process killed between the two moves of a save leaves only the previous one.
    path.unlink()
    assert is_saved(load_checkpoint(tmp_path, messages.append))
    assert "is missing" in messages[1]
    (tmp_path / PREVIOUS).unlink()
    with pytest.raises(UserError, match="does not exist"):
        load_checkpoint(tmp_path)
