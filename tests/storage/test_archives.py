import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit import UserError
from numpyvit.storage.archives import (
    CHECKPOINT,
    PREVIOUS,
    load_checkpoint,
    load_npz,
    save_checkpoint,
    save_npz,
    write_atomically,
)
from numpyvit.testing import normal

NOTE, ARRAYS = {"step": 3, "names": ["a", "b"]}, {"w": normal((50,), 0), "t": np.array(7)}


def same(found):
    note, arrays = found
    return (
        note == NOTE
        and arrays.keys() == ARRAYS.keys()
        and all(np.array_equal(arrays[n], ARRAYS[n]) for n in ARRAYS)
    )


def test_round_trip_and_two_generations(tmp_path):
    save_checkpoint(tmp_path, {"step": 1}, ARRAYS)
    save_checkpoint(tmp_path, {"step": 2}, ARRAYS)
    save_checkpoint(tmp_path, NOTE, ARRAYS)
    assert same(load_checkpoint(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == [CHECKPOINT, PREVIOUS]
    assert load_npz(tmp_path / PREVIOUS, "numpyvit checkpoint 1")[0] == {"step": 2}


def test_a_damaged_one_falls_back_to_the_one_before_and_says_so(tmp_path):
    save_checkpoint(tmp_path, NOTE, ARRAYS)
    save_checkpoint(tmp_path, {"step": 4}, ARRAYS)
    path, said = tmp_path / CHECKPOINT, []
    path.write_bytes(path.read_bytes()[:-100])
    assert same(load_checkpoint(tmp_path, said.append))
    assert "damaged" in said[0]
    assert "going on from checkpoint.previous.npz" in said[0]
    assert (tmp_path / "checkpoint.damaged.npz").exists()  # and not in the way of the next save:
    save_checkpoint(tmp_path, {"step": 5}, ARRAYS)
    assert load_npz(tmp_path / PREVIOUS, "numpyvit checkpoint 1")[0] == NOTE
    path.unlink()  # a kill between the two moves of a save
    assert same(load_checkpoint(tmp_path, said.append))
    assert "is missing" in said[1]
    (tmp_path / PREVIOUS).unlink()
    with pytest.raises(UserError, match="does not exist"):
        load_checkpoint(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "x.npz"
    save_npz(path, "kind", NOTE, ARRAYS)
    return path


@given(
    where=st.floats(0, 1), what=st.sampled_from(["cut", "flip", "fill"]), value=st.integers(1, 255)
)
def test_damage_is_harmless_or_one_line(whole, where, what, value):
    data = bytearray(whole.read_bytes())
    at = int(where * (len(data) - 1))
    if what == "cut":
        data = data[:at]
    elif what == "flip":
        data[at] ^= value
    else:
        data[at : at + 40] = bytes([value]) * 40
    path = whole.with_name("damaged.npz")
    path.write_bytes(data)
    message = ""
    try:
        found = load_npz(path, "kind")
    except UserError as error:
        message = str(error)
    assert (str(path) in message and "\n" not in message) if message else same(found)


def test_every_flipped_bit_of_the_headers_is_found(whole):
    """A length that is off by a bit would shift the array and yet be read: the checksums must be looked at first."""
    data = whole.read_bytes()
    start = data.index(b"\x93NUMPY")
    path = whole.with_name("flipped.npz")
    for at in [*range(start + 140), *range(len(data) - 150, len(data))]:
        for bit in range(8):
            broken = bytearray(data)
            broken[at] ^= 1 << bit
            path.write_bytes(broken)
            message = ""
            try:
                found = load_npz(path, "kind")
            except UserError as error:
                message = str(error)
            assert message or same(found), (at, bit)


def test_what_is_not_ours_is_refused(tmp_path, whole):
    with pytest.raises(UserError, match="is a 'kind', wanted a 'other kind'"):
        load_npz(whole, "other kind")
    with pytest.raises(UserError, match="does not exist or is not a file"):
        load_npz(tmp_path / "none.npz", "kind")
    with pytest.raises(UserError, match="does not exist or is not a file"):
        load_npz(tmp_path, "kind")
    for name, content in {
        "text": b"hello",
        "empty": b"",
        "json": json.dumps(NOTE).encode(),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match="damaged, or not a"):
            load_npz(tmp_path / name, "kind")
    np.save(tmp_path / "plain.npy", np.zeros(3))
    np.savez(tmp_path / "foreign.npz", w=np.zeros(3))
    for name in ("plain.npy", "foreign.npz"):
        with pytest.raises(UserError, match="damaged, or not a"):
            load_npz(tmp_path / name, "kind")


def test_a_pickle_inside_is_not_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    np.savez(tmp_path / "bomb.npz", note=np.array([Bomb()], dtype=object))
    with pytest.raises(UserError, match="unpickling can run code"):
        load_npz(tmp_path / "bomb.npz", "kind")
    assert not (tmp_path / "exploded").exists()


def test_a_full_disk_leaves_what_was_there(tmp_path):
    path = tmp_path / "x.npz"
    save_npz(path, "kind", NOTE, ARRAYS)

    def write(f):
        f.write(b"half of ")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(
        UserError, match=r"No space left on device.*what was there before is untouched.*make room"
    ):
        write_atomically(path, write)
    assert same(load_npz(path, "kind"))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of this kind are Unix's")
def test_a_write_that_the_system_refuses_halfway(tmp_path):
    """The real thing: the process may write 20 kB to a file, the checkpoint has 80."""
    path = tmp_path / "x.npz"
    save_npz(path, "kind", NOTE, ARRAYS)
    script = f"""
import resource, numpy as np
from pathlib import Path
from numpyvit.storage.archives import save_npz
from numpyvit.errors import UserError
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    save_npz(Path({str(path)!r}), "kind", {{}}, {{"w": np.zeros(10000)}})
except UserError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "could not be written (File too large)" in done.stdout
    assert done.stderr == ""
    assert same(load_npz(path, "kind"))
    assert list(tmp_path.iterdir()) == [path]
