"""Storage: after any failure a file is the old one or the new one, complete; errors are one line with the reason."""

import errno
import hashlib
import os
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from faults import RecordingDisk, WatchedDisk, disk_that_fails, file_contents, limit_file_size, run_in_child

from runner.engine.saving import storage
from runner.engine.saving.disk import Disk
from runner.errors import StorageError

OLD = b"old" * 5000
NEW = b"new!" * 50_000


@pytest.fixture
def path(tmp_path):
    (tmp_path / "file").write_bytes(OLD)
    return tmp_path / "file"


@pytest.fixture
def alarm():
    signal.alarm(5)  # a hang is a failure
    yield
    signal.alarm(0)


def refused(call, *arguments):
    with pytest.raises(StorageError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("data", [b"", b"x", NEW, os.urandom(storage.PIECE + 17)], ids=len)
def test_what_is_written_is_there_with_its_sha256(path, data):
    assert storage.write_atomic(path, data) == hashlib.sha256(data).hexdigest()
    assert file_contents(path.parent) == {path: data}
    assert storage.sha256_of(path) == hashlib.sha256(data).hexdigest()


def test_chunks_are_joined(path):
    digest = storage.write_atomic(path, (bytes([i]) * i for i in range(100)))
    whole = b"".join(bytes([i]) * i for i in range(100))
    assert path.read_bytes() == whole and digest == hashlib.sha256(whole).hexdigest()


def test_new_files_have_the_rights_of_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        storage.write_atomic(tmp_path / "file", b"")
    finally:
        os.umask(old)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_bytes_are_synced_before_the_name_and_the_name_before_the_return(path, monkeypatch):
    disk = RecordingDisk()
    monkeypatch.setattr(storage, "disk", disk)
    storage.write_atomic(path, b"new")
    temporary = disk.events[0][1]
    assert temporary.parent == path.parent
    assert temporary.name.startswith(f".tmp-{os.getpid()}-")
    assert disk.events == [
        ("create", temporary),
        ("write", temporary, b"new"),
        ("fsync", temporary),
        ("replace", temporary, path),
        ("fsync_folder", path.parent),
    ]


@pytest.mark.parametrize("size", [0, 1, 100, 4096, 65_536, 199_999])
def test_under_a_file_size_limit_the_old_file_stays(path, size):
    def body():
        limit_file_size(size)
        said = refused(storage.write_atomic, path, NEW)
        assert said.startswith(f"{path}: File too large (needs at least 200000 bytes, ")
        said = refused(storage.write_atomic, path, (NEW[i : i + 1000] for i in range(0, len(NEW), 1000)))
        assert f"needs at least {(size // 1000 + 1) * 1000} bytes" in said

    assert run_in_child(body) == 0
    assert file_contents(path.parent) == {path: OLD}


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("at", range(4))
def test_whatever_operation_fails_the_old_file_stays(path, monkeypatch, error, at):
    monkeypatch.setattr(
        storage, "disk", disk_that_fails(at + (at == 3), error)
    )  # create, write, fsync, (close), replace
    said = refused(storage.write_atomic, path, NEW)
    assert said.startswith(f"{path}: {os.strerror(error)}")
    assert file_contents(path.parent) == {path: OLD}
    if error == errno.EIO:
        assert "free" not in said
    else:
        assert f"needs at least {len(NEW) if at else 0} bytes" in said
        free = int(said.rpartition(", ")[2].split()[0])
        assert abs(free - shutil.disk_usage(path.parent).free) < 1 << 30


def test_a_folder_that_cannot_be_synced_is_an_error(path, monkeypatch):
    monkeypatch.setattr(storage, "disk", disk_that_fails(5, errno.EIO))
    refused(storage.write_atomic, path, NEW)
    assert file_contents(path.parent) == {path: NEW}


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system without fsync on folders")
def test_file_systems_that_cannot_sync_folders_are_taken_as_they_are():
    Disk().fsync_folder(Path("/proc/self"))  # says EINVAL, as SMB mounts do


def test_short_writes_are_continued(path, monkeypatch):
    class Slow(Disk):
        def write(self, file, data):
            return super().write(file, data[:1000])

    monkeypatch.setattr(storage, "disk", Slow())
    assert storage.write_atomic(path, NEW) == hashlib.sha256(NEW).hexdigest()
    assert path.read_bytes() == NEW


def test_an_interrupt_leaves_the_old_file_and_nothing_else(path, monkeypatch):
    def interrupt(number, operation, *_):
        if operation == "fsync":
            raise KeyboardInterrupt

    monkeypatch.setattr(storage, "disk", WatchedDisk(interrupt))
    with pytest.raises(KeyboardInterrupt):
        storage.write_atomic(path, NEW)
    assert file_contents(path.parent) == {path: OLD}


def test_leftovers_of_a_killed_process_with_this_pid_do_no_harm(path):
    number = next(storage._numbers)
    leftovers = [path.parent / f".tmp-{os.getpid()}-{number + i}" for i in (1, 2, 3)]
    for leftover in leftovers:
        leftover.write_bytes(b"half")
    storage.write_atomic(path, NEW)
    assert path.read_bytes() == NEW
    assert all(leftover.read_bytes() == b"half" for leftover in leftovers)
    storage.remove_temporary(path.parent)
    assert file_contents(path.parent) == {path: NEW}


def test_sweeping_takes_only_what_is_ours(tmp_path):
    for name in (".tmp-1-2", ".tmp-", ".tmp-1-2x", "tmp-1-2", ".tmp-a-b"):
        (tmp_path / name).write_bytes(b"")
    storage.remove_temporary(tmp_path)
    assert storage.names(tmp_path) == [".tmp-", ".tmp-1-2x", ".tmp-a-b", "tmp-1-2"]


def test_a_path_below_a_file_and_a_missing_folder_are_refused(path):
    assert refused(storage.write_atomic, path / "x", b"") == f"{path}/x: Not a directory"
    missing = path.parent / "gone" / "x"
    assert refused(storage.write_atomic, missing, b"") == f"{missing}: No such file or directory"
    assert refused(storage.make_folder, missing) == f"{missing}: No such file or directory"
    assert refused(storage.names, missing) == f"{missing}: No such file or directory"


@pytest.mark.skipif(os.getuid() != 0, reason="drops root")
def test_a_folder_of_others_is_refused():
    with tempfile.TemporaryDirectory() as name:  # pytest's own are closed to other users
        path = Path(name, "file")
        path.write_bytes(OLD)
        path.parent.chmod(0o755)

        def body():
            os.setuid(65534)
            assert refused(storage.write_atomic, path, NEW) == f"{path}: Permission denied"
            assert refused(storage.remove, path) == f"{path}: Permission denied"
            assert refused(storage.truncate, path, 1) == f"{path}: Permission denied"

        assert run_in_child(body) == 0
        assert file_contents(path.parent) == {path: OLD}


def test_a_symbolic_link_is_replaced_not_followed(path):
    link = path.parent / "link"
    link.symlink_to(path)
    storage.write_atomic(link, NEW)
    assert not link.is_symlink() and link.read_bytes() == NEW and path.read_bytes() == OLD


def test_a_path_with_a_line_break_is_shown_in_one_line(tmp_path):
    assert "\\n" in refused(storage.write_atomic, tmp_path / "a\nb" / "x", b"")


def test_truncate_cuts_and_refuses_to_grow(path, monkeypatch):
    synced = []
    monkeypatch.setattr(storage, "disk", WatchedDisk(lambda number, operation, *_: synced.append(operation)))
    storage.truncate(path, 100)
    assert path.read_bytes() == OLD[:100]
    assert synced == ["open", "truncate", "fsync", "close"]
    assert refused(storage.truncate, path, 101) == f"{path}: has 100 bytes, cannot be truncated to 101"
    assert path.read_bytes() == OLD[:100]


def test_truncate_follows_no_link_and_waits_for_no_pipe(path, alarm):
    (path.parent / "link").symlink_to(path)
    os.mkfifo(path.parent / "pipe")
    refused(storage.truncate, path.parent / "link", 1)
    refused(storage.truncate, path.parent / "pipe", 0)
    assert path.read_bytes() == OLD


def test_remove_takes_a_file_once_or_twice(path):
    storage.remove(path)
    storage.remove(path)
    assert not path.exists()


def test_make_folder_says_when_it_is_there(tmp_path):
    storage.make_folder(tmp_path / "a")
    with pytest.raises(FileExistsError):
        storage.make_folder(tmp_path / "a")


def test_only_regular_files_of_bounded_size_are_read(path, alarm):
    (path.parent / "link").symlink_to(path)
    os.mkfifo(path.parent / "pipe")
    assert storage.read(path, len(OLD)) == OLD
    with pytest.raises(OSError, match="expected at most 14999"):
        storage.read(path, len(OLD) - 1)
    for name in ("link", "pipe", ".", "missing"):
        with pytest.raises(OSError):
            storage.read(path.parent / name, 1 << 20)
        with pytest.raises(OSError):
            storage.sha256_of(path.parent / name)


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")
def test_no_descriptor_is_left_open(path, monkeypatch):
    count = open_files()
    storage.write_atomic(path, NEW)
    for at in range(6):
        with monkeypatch.context() as patch:
            patch.setattr(storage, "disk", disk_that_fails(at, errno.EIO))
            with suppress(StorageError):
                storage.write_atomic(path, NEW)
    storage.read(path, 1 << 20), storage.sha256_of(path), storage.truncate(path, 1)
    assert open_files() == count
