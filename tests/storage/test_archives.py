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
from numpyvit.storage.archives import load_npz, save_npz
from numpyvit.storage.files import write_atomically
from numpyvit.testing import normal

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


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "x.npz"
    save_npz(path, "kind", NOTE, ARRAYS)
    return path


@given(
    where=st.floats(0, 1),
    damage=st.sampled_from(["cut", "flip", "fill"]),
    value=st.integers(1, 255),
)
def test_damage_does_no_harm_or_raises_one_line(saved, where, damage, value):
    data = bytearray(saved.read_bytes())
    at = int(where * (len(data) - 1))
    if damage == "cut":
        data = data[:at]
    elif damage == "flip":
        data[at] ^= value
    else:
        data[at : at + 40] = bytes([value]) * 40
    path = saved.with_name("damaged.npz")
    path.write_bytes(data)
    message = ""
    try:
        loaded = load_npz(path, "kind")
    except UserError as error:
        message = str(error)
    assert (str(path) in message and "\n" not in message) if message else is_saved(loaded)


def test_every_flipped_bit_in_the_headers_is_detected(saved):
    """A length that is wrong by one bit could shift the array without an error."""
    data = saved.read_bytes()
    start = data.index(b"\x93NUMPY")
    path = saved.with_name("flipped.npz")
    for at in [*range(start + 140), *range(len(data) - 150, len(data))]:
        for bit in range(8):
            broken = bytearray(data)
            broken[at] ^= 1 << bit
            path.write_bytes(broken)
            message = ""
            try:
                loaded = load_npz(path, "kind")
            except UserError as error:
                message = str(error)
            assert message or is_saved(loaded), (at, bit)


def test_files_of_another_format_are_refused(tmp_path, saved):
    with pytest.raises(UserError, match="is a 'kind', wanted a 'other kind'"):
        load_npz(saved, "other kind")
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


def test_a_pickle_inside_an_archive_is_not_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    np.savez(tmp_path / "bomb.npz", note=np.array([Bomb()], dtype=object))
    with pytest.raises(UserError, match="unpickling can run code"):
        load_npz(tmp_path / "bomb.npz", "kind")
    assert not (tmp_path / "exploded").exists()


def test_a_full_disk_leaves_the_old_file_unchanged(tmp_path):
    path = tmp_path / "x.npz"
    save_npz(path, "kind", NOTE, ARRAYS)

    def write(f):
        f.write(b"half of ")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(
        UserError,
        match=r"No space left on device.*is unchanged; free some space",
    ):
        write_atomically(path, write)
    assert is_saved(load_npz(path, "kind"))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="only Unix has this limit")
def test_a_write_that_fails_halfway_leaves_the_old_file_unchanged(tmp_path):
    """The process may write 20 kB to a file, and the archive has 80 kB."""
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
    assert is_saved(load_npz(path, "kind"))
    assert list(tmp_path.iterdir()) == [path]
