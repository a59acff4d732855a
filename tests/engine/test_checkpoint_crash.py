"""A kill, a full disk or a power cut at any moment of a save leaves a valid checkpoint."""

import errno
import itertools
import os
import random
import shutil
import signal
import time

import pytest
from faults import (
    RecordingDisk,
    WatchedDisk,
    disk_that_fails,
    disk_that_kills,
    file_contents,
    limit_file_size,
    power_cuts,
    run_in_child,
    start_child,
    wait_for_child,
)
from saving import SLOTS, is_checkpoint_of, save_step

from runner.engine.saving import checkpoint, rotation, storage
from runner.engine.saving.checkpoint import load
from runner.errors import CheckpointError, StorageError


@pytest.fixture
def run(tmp_path):
    """A run folder with the checkpoints of steps 10 and 20."""
    save_step(tmp_path, 10)
    save_step(tmp_path, 20)
    return tmp_path


# Crashes


def operations(folder, step):
    """How many operations on the disk a save makes."""
    disk = WatchedDisk(lambda *_: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "disk", disk)
        save_step(folder, step, newest=1)
    return next(disk.count)


def killed_saves(tmp_path):
    """Yield for each operation of a save the folder of a run that was killed before it, in its second save."""
    (tmp_path / "count").mkdir()
    save_step(tmp_path / "count", 10)
    for at in range(operations(tmp_path / "count", 20)):
        run = tmp_path / str(at)
        run.mkdir()
        save_step(run, 10)

        def body(run=run, at=at):
            storage.disk = disk_that_kills(at)
            save_step(run, 20, newest=1)

        assert run_in_child(body) == -signal.SIGKILL
        yield run


def test_a_kill_before_any_operation_leaves_a_valid_checkpoint(tmp_path):
    count = 0
    for run in killed_saves(tmp_path):
        count += 1
        snapshot = load(run)
        assert is_checkpoint_of(snapshot, snapshot.step) and snapshot.step in (10, 20) and snapshot.notes == []
        save_step(run, 30, newest=1)
        assert is_checkpoint_of(load(run), 30)
        assert len(file_contents(run)) == 3  # nothing is left over
    assert count > 15


def test_what_a_killed_save_had_yet_to_remove_can_be_removed_later(tmp_path):
    late = 0
    for run in killed_saves(tmp_path):
        step = load(run).step
        late += step == 20
        rotation.clean(run)
        checkpoint.remove_outdated(run, step, keep=[], newest=1)
        assert storage.names(run / "checkpoints") == sorted(slot.replace("20", str(step)) for slot in SLOTS)
    assert late >= 4  # the sync of the names, and three files to remove


def test_what_is_newer_and_what_is_to_stay_is_not_removed_later(run):
    save_step(run, 30)
    save_step(run, 40, keep=[20])
    (run / "checkpoints" / "00000050.json").write_bytes(b"damaged")
    (run / "checkpoints" / "notes.txt").write_bytes(b"x")
    before = file_contents(run)
    checkpoint.remove_outdated(run, 40, keep=[20])
    assert file_contents(run) == before
    checkpoint.remove_outdated(run, 40, keep=[])
    assert {path.name for path in before.keys() - file_contents(run).keys()} == set(SLOTS)


def test_a_kill_in_the_first_save_leaves_none_or_a_valid_one(tmp_path):
    (tmp_path / "count").mkdir()
    for at in range(operations(tmp_path / "count", 10)):
        run = tmp_path / str(at)
        run.mkdir()

        def body(run=run, at=at):
            storage.disk = disk_that_kills(at)
            save_step(run, 10)

        assert run_in_child(body) == -signal.SIGKILL
        snapshot = load(run)
        assert snapshot is None or is_checkpoint_of(snapshot, 10)


def test_a_kill_at_any_time_leaves_a_valid_checkpoint(run):
    draw = random.Random(0)
    moments = [time.monotonic()]
    for _ in range(5):
        save_step(run, 20)
        moments.append(time.monotonic())
    usual = min(end - begin for begin, end in itertools.pairwise(moments))

    def body():
        for step in itertools.count(30, 10):
            save_step(run, step, newest=1)

    for _ in range(20):
        pid = start_child(body)
        time.sleep(draw.uniform(0, 2.5 * usual))
        os.kill(pid, signal.SIGKILL)
        assert wait_for_child(pid) == -signal.SIGKILL
        snapshot = load(run)
        assert is_checkpoint_of(snapshot, snapshot.step) and snapshot.notes == []
        save_step(run, 20)


@pytest.mark.parametrize("step", [20, 10], ids=["the next step", "the same step again"])
def test_power_may_go_at_any_moment(tmp_path, monkeypatch, step):
    run = tmp_path / "run"
    run.mkdir()
    save_step(run, 10)
    before = file_contents(run)
    disk = RecordingDisk()
    monkeypatch.setattr(storage, "disk", disk)
    save_step(run, step, newest=1, meta={"threads": step, "new": True})
    monkeypatch.undo()
    seen = survivors(tmp_path / "cut", run, before, disk.events)
    assert len(seen) > 10 and all(seen)
    assert {snapshot.meta.get("new", False) for snapshot in seen} == {False, True}
    after = survivors(tmp_path / "cut", run, before, disk.events, first=len(disk.events))
    assert all(snapshot.meta.get("new") for snapshot in after)


def survivors(place, run, before, events, first=0):
    """What is loaded after a power cut at each moment from event `first` on, in each way it may go (None: nothing)."""
    loaded = {}
    for moment in range(first, len(events) + 1):
        for disk in power_cuts(before, events[:moment]):
            key = tuple(sorted((str(path), data) for path, data in disk.items()))
            if key not in loaded:
                loaded[key] = after_cut(place, {path.relative_to(run): data for path, data in disk.items()})
    return list(loaded.values())


def after_cut(place, files):
    for path, data in files.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(data)
    try:
        snapshot = load(place)
        assert snapshot is None or is_checkpoint_of(snapshot, snapshot.step)
        return snapshot
    except CheckpointError:
        return None
    finally:
        shutil.rmtree(place, ignore_errors=True)


@pytest.mark.parametrize("missing", range(5))
def test_a_save_syncs_no_more_than_the_power_asks_for(tmp_path, monkeypatch, missing):
    run = tmp_path / "run"
    run.mkdir()
    save_step(run, 10)
    before = file_contents(run)
    disk = RecordingDisk()
    monkeypatch.setattr(storage, "disk", disk)
    save_step(run, 20, newest=1)
    syncs = [number for number, event in enumerate(disk.events) if event[0].startswith("fsync")]
    assert len(syncs) == 5
    assert all(snapshot and not snapshot.notes for snapshot in survivors(tmp_path / "cut", run, before, disk.events))
    del disk.events[syncs[missing]]
    found = survivors(tmp_path / "cut", run, before, disk.events)
    assert not all(snapshot and not snapshot.notes for snapshot in found)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_a_failing_disk_is_a_storage_error_and_the_old_checkpoint_stays(tmp_path, monkeypatch, error):
    (tmp_path / "count").mkdir()
    save_step(tmp_path / "count", 10)
    failures = 0
    for at in range(operations(tmp_path / "count", 20)):
        run = tmp_path / str(at)
        run.mkdir()
        save_step(run, 10)
        old = file_contents(run)
        with monkeypatch.context() as patch:
            patch.setattr(storage, "disk", disk_that_fails(at, error))
            try:
                save_step(run, 20, newest=1)
            except StorageError as refusal:
                failures += 1
                assert os.strerror(error) in str(refusal) and "\n" not in str(refusal)
        snapshot = load(run)
        assert is_checkpoint_of(snapshot, snapshot.step)
        if snapshot.step == 10:
            assert {path: file_contents(run)[path] for path in old} == old
    assert failures > 15


@pytest.mark.parametrize("size", [0, 50, 200, 600])
def test_under_a_file_size_limit_the_old_checkpoint_stays(run, size):
    old = file_contents(run)

    def body():
        limit_file_size(size)
        with pytest.raises(StorageError, match="File too large"):
            save_step(run, 30)

    assert run_in_child(body) == 0
    assert is_checkpoint_of(load(run), 20)
    assert {path: file_contents(run)[path] for path in old} == old
    assert not list(run.rglob(".tmp-*"))


def test_a_disk_that_lies_is_caught_before_the_old_checkpoint_goes(run, monkeypatch):
    class Lying(RecordingDisk):
        def write(self, file, data):
            return super().write(file, memoryview(bytes(data[:-1]) + b"?"))

    monkeypatch.setattr(storage, "disk", Lying())
    with pytest.raises(StorageError, match="the file read back differs from what was written"):
        save_step(run, 30, newest=1)
    assert is_checkpoint_of(load(run), 20)


def test_a_deleted_folder_is_a_storage_error(run):
    shutil.rmtree(run)
    with pytest.raises(StorageError, match="No such file or directory"):
        save_step(run, 30)


def test_what_killed_saves_left_is_cleaned_and_nothing_else(run):
    place = run / "checkpoints"
    for path in (run / ".tmp-9-9", place / ".tmp-1-1", place / "00000030.state.safetensors", place / "notes.txt"):
        path.write_bytes(b"x")
    (place / "00000010.json").write_bytes(b"damaged")
    rotation.clean(run)
    names = {name.replace("20", step) for name in SLOTS for step in ("10", "20")}
    assert storage.names(place) == sorted({*names, "notes.txt"})
    assert storage.names(run) == ["checkpoints"]


def test_leftovers_make_room_before_anything_is_written(run, monkeypatch):
    leftover = run / "checkpoints" / "00000030.state.safetensors"
    leftover.write_bytes(b"half")
    monkeypatch.setattr(storage, "disk", disk_that_fails(1, errno.ENOSPC))
    with pytest.raises(StorageError):
        save_step(run, 30)
    assert not leftover.exists()
