import errno
import os
import socket
import stat
import sys
import time

import pytest

from numpyvit import UserError
from numpyvit.storage import files
from numpyvit.storage.files import exclusive_lock, open_file, read_file, write_atomically

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
def test_a_lock_is_exclusive_and_is_released(tmp_path):
    path = tmp_path / "file"
    with (
        open(path, "w") as f,
        exclusive_lock(f, "in use"),
        open(path) as other,
        pytest.raises(UserError, match="in use"),
        exclusive_lock(other, "in use"),
    ):
        pass
    with open(path) as f, exclusive_lock(f, "in use"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
def test_a_file_system_without_locks_is_not_taken_for_a_lock(tmp_path, monkeypatch):
    import fcntl

    def no_locks(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with open(tmp_path / "file", "w") as f, exclusive_lock(f, "in use"):
        pass


@posix
def test_only_regular_files_are_opened_and_nothing_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    os.mkfifo("pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nothing")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind("socket")
    for path in tmp_path.iterdir():
        with pytest.raises(UserError, match=path.name):
            open_file(path)
    (tmp_path / "good").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("good")
    for name in ("good", "link"):
        assert read_file(tmp_path / name, 5) == b"12345"
        with pytest.raises(UserError, match="5 bytes, wanted 4 at most"):
            read_file(tmp_path / name, 4)


@posix
@pytest.mark.parametrize("make_link", [os.symlink, os.link])
def test_a_link_in_the_place_of_a_file_or_of_a_temporary_file_is_not_followed(tmp_path, make_link):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("x", ".x.numpyvit.tmp", ".x.0.numpyvit.tmp"):
        make_link(victim, folder / name)
    write_atomically(folder / "x", lambda f: f.write(b"new"))
    assert victim.read_bytes() == b"precious"
    assert (folder / "x").read_bytes() == b"new"
    assert not (folder / "x").is_symlink()


@posix
def test_a_link_under_the_very_name_of_the_temporary_file_is_not_followed(tmp_path, monkeypatch):
    (tmp_path / "victim").write_bytes(b"precious")
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: "known")
    (tmp_path / ".x.known.numpyvit.tmp").symlink_to("victim")
    with pytest.raises(UserError, match=r"could not be written \(File exists\)"):
        write_atomically(tmp_path / "x", lambda f: f.write(b"new"))
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert not (tmp_path / "x").exists()


@posix
def test_the_file_has_the_permissions_of_an_ordinary_one(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "x", lambda f: f.write(b""))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


def test_temporary_files_of_killed_processes_are_removed(tmp_path):
    old = [".x.numpyvit.tmp", ".x.0123.numpyvit.tmp"]
    others = [".x.new.numpyvit.tmp", ".y.0123.numpyvit.tmp", "x.numpyvit.tmp", ".x.0123.tmp", "z"]
    for name in old + others:
        (tmp_path / name).write_bytes(b"")
        if name != ".x.new.numpyvit.tmp":
            os.utime(tmp_path / name, (0, time.time() - 2 * files.LEFT_OVER))
    (tmp_path / ".x.folder.numpyvit.tmp").mkdir()
    os.utime(tmp_path / ".x.folder.numpyvit.tmp", (0, 0))
    write_atomically(tmp_path / "x", lambda f: f.write(b"new"))
    left = {".x.folder.numpyvit.tmp", "x", *others}
    assert {path.name for path in tmp_path.iterdir()} == left


def test_the_message_says_what_has_become_of_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def fail(*args):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(files, "flush_folder", fail)
        with pytest.raises(UserError, match="the new file is complete, but may be lost"):
            write_atomically(path, lambda f: f.write(b"new"))
    assert path.read_bytes() == b"new"

    replace = os.replace

    def replace_old_file_only(source, target):
        if target == path:
            fail()
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_old_file_only)
        with pytest.raises(UserError, match=r"the file that was there before is now .*kept"):
            write_atomically(path, lambda f: f.write(b"newer"), keep=tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == b"new"
    with pytest.raises(UserError, match="the file that was there before is unchanged"):
        write_atomically(tmp_path / "kept", fail)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
