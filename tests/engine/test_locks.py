"""A lock names the process that really holds it, and no process that is left over keeps it."""

import contextlib
import ctypes
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from faults import run_in_child, start_child, wait_for_child

from runner.engine.saving.locking import lock
from runner.errors import Locked

HOST = socket.gethostname()


@contextlib.contextmanager
def native_orphan(folder):
    """Yield the pids of a process that has locked a folder and ended, and of its fork that Python knows nothing of."""

    def work():
        lock(folder)
        libc = ctypes.CDLL(None)
        child = libc.fork()
        if not child:
            libc.pause()
        (folder / "writing").write_text(str(child))
        (folder / "writing").rename(folder / "child")

    pid = start_child(work)
    wait_for_child(pid)
    child = int((folder / "child").read_text())
    yield pid, child
    os.kill(child, signal.SIGKILL)


def test_a_forked_process_does_not_keep_the_lock_of_its_parent(tmp_path):
    def work():
        lock(tmp_path)
        if not os.fork():
            (tmp_path / "left").write_text(str(os.getpid()))
            time.sleep(60)
        while not (tmp_path / "left").exists() or not (tmp_path / "left").read_text():
            time.sleep(0.01)

    wait_for_child(start_child(work))
    lock(tmp_path).release()
    os.kill(int((tmp_path / "left").read_text()), signal.SIGKILL)


def test_the_message_names_the_process_that_really_holds_the_lock(tmp_path):
    with native_orphan(tmp_path) as (owner, child):
        with pytest.raises(Locked) as caught:
            lock(tmp_path)
        words = f"locked by pid {child} on {HOST} (from pid {owner} on {HOST}, which has ended)"
        assert str(caught.value) == f"{tmp_path}: {words}"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{own} {host} 12", "locked by pid {} on {host} (from pid {own} on {host}, which has ended)"),
        ("1 {host} 99999999999", "locked by pid {} on {host} (from pid 1 on {host}, which has ended)"),
        ("12 another.host 34", "locked by pid 12 on another.host"),
        ("12 another.host", "locked by pid 12 on another.host"),  # as older versions wrote it
        ("{own} {host}", "locked by pid {own} on {host}"),
    ],
)
def test_a_number_that_another_process_has_by_now_is_not_the_owner(tmp_path, line, words):
    with native_orphan(tmp_path) as (_, child):
        names = {"host": HOST, "own": os.getpid()}
        (tmp_path / ".lock").write_text(line.format(**names) + "\n")
        with pytest.raises(Locked) as caught:
            lock(tmp_path)
    assert str(caught.value) == f"{tmp_path}: {words.format(child, **names)}"


def test_a_lock_says_when_its_owner_started(tmp_path):
    with lock(tmp_path):
        pid, host, start = (tmp_path / ".lock").read_text().split()
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
        began = int(boot.split()[1]) + int(start) / os.sysconf("SC_CLK_TCK")
        assert (int(pid), host) == (os.getpid(), HOST)
        assert began < time.time()
        assert abs(began - Path(f"/proc/{pid}").stat().st_ctime) < 5


def test_a_lock_that_is_lent_is_given_back(tmp_path):
    with lock(tmp_path) as outer:
        with outer.lend():
            with lock(tmp_path) as inner, pytest.raises(Locked):
                lock(tmp_path)
            with lock(tmp_path):
                pass
            del inner
        with pytest.raises(Locked):
            lock(tmp_path)
    assert run_in_child(lambda: lock(tmp_path).release()) == 0
