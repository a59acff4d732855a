"""Processes of a sweep that are stopped, and code that writes to their channels: neither costs more than one trial."""

import contextlib
import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from trials import PLUGIN, BackgroundSweep, launcher_settings, trial

from runner.engine import processes
from runner.errors import TrialsFailed
from runner.sweeps.channel import BadMessage, Channel
from runner.sweeps.pool import Pool, all_done

INLINE = """
import ast, sys
sys.path[:] = ast.literal_eval(sys.argv[1])
from runner.sweeps import loading, server
load = loading.load
loading.load = lambda message: load(message) or 1
server.main(int(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def chain(pool, number):
    """Return the pids of a trial's process, its template and its server."""
    (worker,) = pool._group.workers
    return worker.groups[number], parent_of(worker.groups[number]), worker.pid


def begin(pool, job, mark="begun"):
    """Submit a trial, and return its number when it has begun and the pool knows so."""
    number = pool.submit(job)
    deadline = time.monotonic() + 60
    while not ((Path(job.folder) / mark).exists() and any(number in each.groups for each in pool._group.workers)):
        assert pool.next_done(timeout=0.1) is None
        assert time.monotonic() < deadline
    return number


def until_gone(pids):
    deadline = time.monotonic() + 20
    while any(map(processes.is_alive, pids)):
        assert time.monotonic() < deadline, [pid for pid in pids if processes.is_alive(pid)]
        time.sleep(0.02)


# The sweep is killed while others are stopped


@pytest.mark.parametrize("which", ["server", "template", "trial", "all"])
def test_a_stopped_process_ends_when_the_sweep_is_killed(tmp_path, which):
    sweep = BackgroundSweep("task=wait", "seed=0,1", "hydra.launcher.workers=1", *PLUGIN, cwd=tmp_path)
    try:
        sweep.until(lambda: list(tmp_path.glob("outputs/sweeps/*/*/begun")))
        (server,) = (pid for pid in processes.children(sweep.process.pid))
        (template,) = processes.children(server)
        forks = processes.children(template)
        stopped = {"server": [server], "template": [template], "trial": forks, "all": [server, template, *forks]}
        for pid in stopped[which]:
            os.kill(pid, signal.SIGSTOP)
        sweep.end(signal.SIGKILL)
    finally:
        left = sweep.left()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert left == []


# The sweep goes on while others are stopped


@pytest.mark.parametrize("which", [pytest.param("server", marks=[pytest.mark.slow, pytest.mark.ci_slice]), "template"])
def test_a_stopped_process_that_trials_come_from_is_replaced_with_one_line(tmp_path, monkeypatch, capfd, which):
    waits = trial(tmp_path / "waits", "task=wait")
    with Pool(launcher_settings(workers=1), like=waits) as pool:
        number = begin(pool, waits)
        # Not before: on a loaded machine a process takes as long to start
        monkeypatch.setattr("runner.sweeps.worker_group.SILENCE", 5.0)
        pids = chain(pool, number)
        (tmp_path / "waits" / "begun").unlink()
        os.kill(pids[2 if which == "server" else 1], signal.SIGSTOP)
        while pool._group.workers and pool._group.workers[0].pid == pids[2]:
            assert pool.next_done(timeout=0.1) is None
        monkeypatch.undo()
        deadline = time.monotonic() + 90
        while not (tmp_path / "waits" / "begun").exists():
            assert pool.next_done(timeout=0.1) is None
            assert time.monotonic() < deadline
        until_gone(pids)
        pool.stop(number)
        assert pool.next_done().result.status == "interrupted"
    printed = capfd.readouterr().err
    assert printed.count("has not answered for") == 1
    assert printed.count("\n") == 1


STOPS_ITSELF = "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)"


def test_processes_that_are_always_stopped_end_the_sweep(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("runner.sweeps.worker_group.SILENCE", 0.5)
    monkeypatch.setattr("runner.sweeps.worker_group.START", STOPS_ITSELF)
    job = trial(tmp_path / "x", "task=nothing")
    with Pool(launcher_settings(), like=job) as pool:
        pool.submit(job)
        with pytest.raises(TrialsFailed, match="ended 3 times"):
            pool.next_done()
    assert capfd.readouterr().err.count("has not answered for") == 3


def test_time_in_which_the_sweep_itself_was_stopped_is_not_counted(tmp_path, monkeypatch):
    waits = trial(tmp_path / "waits", "task=wait")
    with Pool(launcher_settings(workers=1), like=waits) as pool:
        number = begin(pool, waits)
        monkeypatch.setattr("runner.sweeps.worker_group.SILENCE", 30.0)
        before = chain(pool, number)
        now, leaps = time.monotonic, iter(range(10**9))
        # Each look at the clock is an hour later
        monkeypatch.setattr("runner.sweeps.pool.time.monotonic", lambda: now() + 3600 * next(leaps))
        for _ in range(4):
            pool._run_once(0.1)
        assert chain(pool, number) == before


@pytest.mark.slow
@pytest.mark.ci_slice
@pytest.mark.parametrize("inline", [False, True])
def test_a_stopped_trial_is_ended_by_its_time_limit(tmp_path, monkeypatch, inline):
    if inline:
        monkeypatch.setattr("runner.sweeps.worker_group.START", INLINE)
    waits, quick = trial(tmp_path / "waits", "task=wait"), trial(tmp_path / "quick", "task=nothing")
    with Pool(launcher_settings(workers=1, timeout=15.0), like=waits) as pool:
        number = begin(pool, waits)
        os.kill(chain(pool, number)[0], signal.SIGSTOP)
        pool.submit(quick)
        ended = [pool.next_done(), pool.next_done()]
    assert [each.result.status for each in ended] == ["timeout", "done"]


# Code that writes to descriptors which are not its own


@pytest.mark.slow
@pytest.mark.ci_slice
@pytest.mark.parametrize("inline", [False, True])
def test_rubbish_on_every_descriptor_costs_one_trial_at_most(tmp_path, monkeypatch, capfd, inline):
    if inline:
        monkeypatch.setattr("runner.sweeps.worker_group.START", INLINE)
    kinds = ["nothing", "rubbish", "nothing", "rubbish", "nothing"]
    jobs = [trial(tmp_path / str(number), f"task={kind}") for number, kind in enumerate(kinds)]
    with Pool(launcher_settings(workers=1), like=jobs[0]) as pool:
        pool._group.start(len(jobs))
        (first,) = pool._group.workers
        ended = all_done(pool, jobs)
        if not inline:
            assert pool._group.workers == [first]
    statuses = [each.result.status for each in ended]
    assert [status for status, kind in zip(statuses, kinds, strict=True) if kind == "nothing"] == ["done"] * 3
    if inline:
        assert {each.result.reason for each in ended[1::2]} == {"its process sent what is no message of runner's"}
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("inline", [False, True])
def test_a_trial_has_no_descriptors_of_others_and_its_children_have_none_of_its_own(tmp_path, monkeypatch, inline):
    if inline:
        monkeypatch.setattr("runner.sweeps.worker_group.START", INLINE)
    job = trial(tmp_path / "x", "task=descriptors")
    with Pool(launcher_settings(workers=1), like=job) as pool:
        assert all_done(pool, [job])[0].result.status == "done"
    found = json.loads((tmp_path / "x" / "found").read_text())
    ends = {who: [each for each in names if each.startswith(("socket:", "pipe:"))] for who, names in found.items()}
    locks = {who: [each for each in names if each.endswith(".lock")] for who, names in found.items()}
    assert (len(ends["own"]), len(locks["own"])) == (1, 1)
    assert (ends["forked"], locks["forked"], locks["started"]) == ([], [], [])
    assert [each.partition(":")[0] for each in ends["started"]] == ["pipe", "pipe"]  # of its output


@pytest.mark.parametrize(
    "line",
    [b"rubbish", b"", b"[1]", b"1", b"null", b'{"a": ', b"\xff\xfe", b"[" * 100_000, b'{"\\u0000items": 3}', b'"x"'],
)
def test_what_is_no_message_is_refused(line):
    left, right = socket.socketpair()
    theirs = Channel(right)
    left.sendall(line + b"\n")
    with pytest.raises(BadMessage):
        theirs.only()
    theirs.close()
    left.close()


@pytest.mark.parametrize(
    "message",
    [{}, {"did": "dance"}, {"did": ["end"]}, {"did": "end", "number": 1}, {"did": "end", "number": "1", "code": 0},
     {"did": "start", "number": 1, "pid": 0}, {"did": "start", "number": 1, "pid": -1}, {"did": "load", "gpus": True}],
)  # fmt: skip
def test_a_message_with_other_fields_is_refused(message):
    from runner.sweeps import worker_group

    with pytest.raises(BadMessage):
        worker_group._check_message(message)
