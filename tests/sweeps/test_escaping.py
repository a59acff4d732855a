"""Whatever a trial started ends with it: daemons, other sessions, stopped processes; and nobody keeps its lock."""

import contextlib
import os
import signal
import time

import pytest
from trials import PLUGIN, BackgroundSweep, launcher_settings, trial

from runner.engine import processes
from runner.sweeps.pool import Pool, all_done


def alive(pids, seconds=8.0):
    """Return those of some processes that are alive after a while, and end them."""
    deadline = time.monotonic() + seconds
    while (found := [pid for pid in pids if processes.is_alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found


def pids_in(path):
    return list(map(int, path.read_text().split()))


@pytest.fixture
def escaping(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def make(folder, end):
        return trial(folder, "task=escape", f"task.end={end}")

    return make


@pytest.mark.parametrize("end", ["done", "raise", "exit", "killed", "crash"])
def test_all_that_a_trial_started_has_ended_when_its_end_is_reported(tmp_path, escaping, end):
    jobs = [escaping(tmp_path / "first", end), trial(tmp_path / "next", "task=nothing")]
    with Pool(launcher_settings(workers=1), like=jobs[0]) as pool:
        numbers = [pool.submit(job) for job in jobs]
        ended = pool.next_done()
        assert ended.number == numbers[0]
        assert alive(pids_in(tmp_path / "first" / "pids")[1:], seconds=0.5) == []
        assert pool.next_done().result.status == "done"
    assert ended.result.status == ("done" if end == "done" else "failed")
    assert "locked" not in (ended.result.reason or "")


@pytest.mark.parametrize("cause", [pytest.param("timeout", marks=[pytest.mark.slow, pytest.mark.ci_slice]), "stop"])
def test_the_same_for_a_trial_that_the_sweep_ends(tmp_path, escaping, cause):
    job = escaping(tmp_path / "x", "wait")
    with Pool(launcher_settings(workers=1, timeout=20 if cause == "timeout" else None), like=job) as pool:
        number = pool.submit(job)
        while not (tmp_path / "x" / "pids").exists():
            assert pool.next_done(timeout=0.1) is None
        if cause == "stop":
            pool.stop(number)
        ended = pool.next_done()
        assert alive(pids_in(tmp_path / "x" / "pids"), seconds=1.0) == []
    assert ended.result.status == ("timeout" if cause == "timeout" else "interrupted")


def test_a_living_trial_keeps_what_it_started_when_another_ends(tmp_path, escaping):
    stays, dies = escaping(tmp_path / "stays", "wait"), escaping(tmp_path / "dies", "killed")
    with Pool(launcher_settings(workers=2), like=stays) as pool:
        pool.submit(stays)
        while not (tmp_path / "stays" / "pids").exists():
            assert pool.next_done(timeout=0.1) is None
        pool.submit(dies)
        assert pool.next_done().result.reason.startswith("killed (SIGKILL)")
        assert alive(pids_in(tmp_path / "dies" / "pids")) == []
        kept = pids_in(tmp_path / "stays" / "pids")
        assert all(map(processes.is_alive, kept))
    assert alive(kept) == []


INLINE = """
import ast, sys
sys.path[:] = ast.literal_eval(sys.argv[1])
from runner.sweeps import loading, server
load = loading.load
loading.load = lambda message: load(message) or 1
server.main(int(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.ci_slice
@pytest.mark.parametrize("end", ["done", "killed"])
def test_the_same_in_the_process_of_a_gpu(tmp_path, escaping, monkeypatch, end):
    monkeypatch.setattr("runner.sweeps.worker_group.START", INLINE)
    jobs = [escaping(tmp_path / "first", end), trial(tmp_path / "next", "task=nothing")]
    with Pool(launcher_settings(workers=1), like=jobs[0]) as pool:
        ended = all_done(pool, jobs)
        assert [worker.inline for worker in pool._group.workers] == [True]
        assert alive(pids_in(tmp_path / "first" / "pids")[1:], seconds=0.5) == []
    assert [each.result.status for each in ended] == ["done" if end == "done" else "failed", "done"]


@pytest.mark.parametrize(
    ("victim", "number"),
    [
        ("sweep", signal.SIGKILL),
        ("sweep", signal.SIGINT),
        ("sweep", signal.SIGHUP),
        pytest.param("server", signal.SIGKILL, marks=[pytest.mark.slow]),
        pytest.param("template", signal.SIGKILL, marks=[pytest.mark.slow]),
        pytest.param("trial", signal.SIGKILL, marks=[pytest.mark.slow]),
    ],
)
def test_a_real_sweep_leaves_no_process(tmp_path, victim, number):
    words = (*PLUGIN, "task=escape", "task.end=wait", "seed=0,1", "hydra.launcher.workers=2")
    sweep = BackgroundSweep(*words, cwd=tmp_path)
    try:
        sweep.until(lambda: len(list(tmp_path.glob("outputs/sweeps/*/*/pids"))) == 2)
        found = [pid for path in tmp_path.glob("outputs/sweeps/*/*/pids") for pid in pids_in(path)]
        own = found[0]
        template = int((processes._PROC / str(own) / "stat").read_text().rpartition(")")[2].split()[1])
        server = int((processes._PROC / str(template) / "stat").read_text().rpartition(")")[2].split()[1])
        if victim == "sweep":
            code, _ = sweep.end(number)
            assert code == (128 + number if number != signal.SIGKILL else -number)
        else:
            os.kill({"server": server, "template": template, "trial": own}[victim], number)
            gone = found if victim != "trial" else found[:6]
            assert alive(gone) == []
            sweep.end(signal.SIGTERM)
        assert alive(found) == []
    finally:
        sweep.process.kill()
        sweep.process.communicate()
    assert sweep.left() == []


NOBODY_ADOPTS = """
import ast, sys
sys.path[:] = ast.literal_eval(sys.argv[1])
from runner.engine import processes
processes.adopt_orphans = lambda adopt=True: False
from runner.sweeps import server
server.main(int(sys.argv[2]))
"""


def test_where_nobody_adopts_orphans_they_end_with_the_sweep(tmp_path, escaping, monkeypatch):
    monkeypatch.setattr("runner.sweeps.worker_group.START", NOBODY_ADOPTS)
    monkeypatch.setattr(processes, "adopt_orphans", lambda adopt=True: False)
    job = escaping(tmp_path / "x", "killed")
    with Pool(launcher_settings(workers=1), like=job) as pool:
        pool.submit(job)
        assert pool.next_done().result.status == "failed"
    left = alive(pids_in(tmp_path / "x" / "pids"), seconds=1.0)
    # Only the mark in its environment tells whose process it was
    assert len(left) <= 1


def test_a_program_that_uses_the_pool_keeps_its_own_processes(tmp_path, escaping):
    import subprocess

    job = escaping(tmp_path / "x", "done")
    before = subprocess.Popen(["sleep", "100"], start_new_session=True)
    with Pool(launcher_settings(workers=1), like=job) as pool:
        meanwhile = subprocess.Popen(["sleep", "100"], start_new_session=True)
        pool.submit(job)
        pool.next_done()
    own = [before, meanwhile]
    try:
        assert [each.poll() for each in own] == [None, None]
        assert not processes.adopts_orphans()
    finally:
        for each in own:
            each.kill()
            each.wait()
