import errno
import io
import json
import os
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numpyvit import UserError
from numpyvit.storage.archives import DamagedError, load_npz, read_arrays, save_npz
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


def npy(header, payload=b""):
    """Return an .npy file with this text as its header."""
    raw = header.encode("latin1")
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(raw)) + raw + payload


def plain(descr="<f4", shape="(2,)"):
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"


def write_zip(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


@pytest.mark.parametrize(
    ("header", "payload"),
    [
        (plain("|V0", "(1000000000000,)"), b""),
        (plain("<U0", "(1000000000000,)"), b""),
        (plain("|S0", "(1000000000000,)"), b""),
        (plain("<f4", "(-2,)"), bytes(8)),
        (plain("<f4", f"({'9' * 5000},)"), bytes(8)),
        (plain("<f4", f"({'1, ' * 70})"), bytes(4)),
        (plain("<f4", f"(0, {'9' * 30})"), b""),
        (plain("<f4", "(2e0,)"), bytes(8)),
        (plain("<f4", "2"), bytes(8)),
        (plain("<U1", "(2,)"), b"\0\0\x11\0" * 2),  # a character above the last one
        (plain(">U1", "(2,)"), b"\0\x11\0\0" * 2),
        (plain("<U1", "(2,)"), b"\xff" * 8),
        (plain("<M8[s]"), bytes(16)),
        (plain("<c8"), bytes(16)),
        (plain("|O"), bytes(16)),
        (plain("<f4") + " " * 9500 + "!", bytes(8)),
        (plain("<f4") + " " * 20000, bytes(8)),
        ("{", bytes(8)),
        ("{'descr'", bytes(8)),
        ("'", bytes(8)),
        ("(" * 9000, bytes(8)),
        ("-" * 9000 + "1", bytes(8)),
        ("{" * 300 + "}" * 300, bytes(8)),
        ("", bytes(8)),
        ("\0", bytes(8)),
    ],
)
def test_a_header_that_is_not_of_a_plain_array_is_damage(tmp_path, header, payload):
    path = tmp_path / "x.npz"
    write_zip(path, {"x": npy(header, payload)})
    start = time.perf_counter()
    with pytest.raises(DamagedError) as error:
        read_arrays(path, ["x"])
    assert "\n" not in str(error.value)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.asfortranarray(normal((3, 4), 0)),
        np.array(3.5),
        np.zeros((0, 5), np.uint8),
        np.array(["é", "漢字", "\U0010ffff"]),
        np.array([True, False]),
        np.array([1, 2], np.float16),
    ],
)
@pytest.mark.parametrize("savez", [np.savez, np.savez_compressed])
def test_arrays_of_numpy_are_read(tmp_path, array, savez):
    savez(tmp_path / "x.npz", x=array)
    found = read_arrays(tmp_path / "x.npz", ["x", "y"])["x"]
    assert np.array_equal(found, array)
    assert found.dtype == array.dtype.newbyteorder("=")
    assert found.dtype.isnative
    assert found.flags.writeable


def test_an_array_that_nobody_wants_is_not_unpacked(tmp_path):
    path = tmp_path / "x.npz"
    large = npy(plain("|u1", "(100000000,)"), bytes(100_000_000))
    write_zip(path, {"large": large, "small": npy(plain(), bytes(8))}, zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    read_arrays(path, ["small"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_files_of_numpyvit_cannot_unpack_to_more_than_their_size(tmp_path):
    note = np.frombuffer(json.dumps({"kind": "kind", "arrays": ["w"]}).encode(), np.uint8)
    path = tmp_path / "x.npz"
    np.savez_compressed(path, note=note, w=np.zeros(10**7))
    with pytest.raises(DamagedError, match="it is compressed"):
        load_npz(path, "kind")
    np.savez(path, note=note, w=np.zeros(10), extra=np.zeros(10))
    with pytest.raises(DamagedError, match="one too many"):
        load_npz(path, "kind")
    np.savez(path, note=np.zeros(5_000_000, np.uint8), w=np.zeros(10))
    with pytest.raises(DamagedError, match="a note that is too long"):
        load_npz(path, "kind")


def test_arrays_that_do_not_fit_into_memory_are_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("numpyvit.storage.archives.machine_memory", lambda: 1000)
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros(10**5), y=np.zeros(10))
    assert "y" in read_arrays(tmp_path / "x.npz", ["y"])
    with pytest.raises(UserError, match="unpacks to 800,128 bytes, and this machine has 1,000"):
        read_arrays(tmp_path / "x.npz", ["x"])


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400", "1" + "0" * 400])
def test_a_note_with_a_number_that_is_none_is_damage(tmp_path, number):
    text = f'{{"kind": "kind", "arrays": [], "seconds": {number}}}'.encode()
    np.savez(tmp_path / "x.npz", note=np.frombuffer(text, np.uint8))
    with pytest.raises(DamagedError):
        load_npz(tmp_path / "x.npz", "kind")


def test_other_compressions_than_numpys_are_refused(tmp_path):
    """The header of LZMA can ask for gigabytes."""
    f = io.BytesIO()
    np.save(f, np.zeros(3))
    for compression in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        write_zip(tmp_path / "x.npz", {"x": f.getvalue()}, compression)
        with pytest.raises(DamagedError, match="compressed in another way"):
            read_arrays(tmp_path / "x.npz", ["x"])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
def test_a_named_pipe_is_no_archive(tmp_path):
    os.mkfifo(tmp_path / "x.npz")
    with pytest.raises(UserError, match="not a regular file"):
        read_arrays(tmp_path / "x.npz", ["x"])
    with pytest.raises(DamagedError, match="does not exist or is not a file"):
        load_npz(tmp_path / "x.npz", "kind")


def test_a_directory_of_too_many_members_is_not_read(tmp_path):
    names = [b"%06d" % i for i in range(60_000)]
    fields = (20, 20, *[0] * 7, 6, *[0] * 6)
    directory = b"".join(struct.pack("<4s6H3I5H2I", b"PK\1\2", *fields) + n for n in names)
    size = len(directory)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 60_000, 60_000, size, 0, 0)
    large = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 60_000, 60_000, size, 0)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, size, 1)
    small_end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0, 0xFFFFFFFF, 0)
    for tail in (end, large + locator + small_end):
        (tmp_path / "x.npz").write_bytes(directory + tail)
        with pytest.raises(DamagedError, match="too many members"):
            read_arrays(tmp_path / "x.npz", ["x"])


def test_an_archive_in_the_form_for_large_files_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    np.savez(tmp_path / "x.npz", x=np.arange(100))
    assert b"PK\6\7" in (tmp_path / "x.npz").read_bytes()
    assert read_arrays(tmp_path / "x.npz", ["x"])["x"][99] == 99
