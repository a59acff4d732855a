"""The pool of processes: jobs are submitted and returned, also if its processes are killed."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from trials import PATHS, launcher_settings, trial

from runner.door.jobs import trial_job
from runner.errors import TrialsFailed
from runner.sweeps.channel import Channel, Closed
from runner.sweeps.pool import Pool, all_done
from runner.sweeps.trial import message_of
from runner.sweeps.worker_group import gpu_environment


@pytest.fixture
def importable(monkeypatch):
    """Let the pool's processes import the misbehaving parts: they get this process's path."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_jobs_are_submitted_while_others_run_and_stopped_one_by_one(tmp_path, importable, monkeypatch):
    waiting, staying = trial(tmp_path / "waits", "task=wait"), trial(tmp_path / "stays", "task=stay")
    with Pool(launcher_settings(workers=2), like=waiting) as pool:
        first, second = pool.submit(waiting), pool.submit(staying)
        third = pool.submit(trial(tmp_path / "never", "task=wait"))
        deadline = time.monotonic() + 60
        while not ((tmp_path / "waits" / "begun").exists() and (tmp_path / "stays" / "begun").exists()):
            assert pool.next_done(timeout=0.1) is None
            assert time.monotonic() < deadline
        pool.stop(third)
        assert (pool.next_done().number, pool.waiting(), len(pool.running())) == (third, 0, 2)
        assert not (tmp_path / "never").exists()
        # A loaded machine must not turn the orderly end of the first into a kill.
        monkeypatch.setattr("runner.sweeps.pool.GRACE", 60.0)
        pool.stop(first)
        ended = pool.next_done()
        assert (ended.number, ended.result.status, ended.result.exit) == (first, "interrupted", 143)
        quick = trial(tmp_path / "quick", "task=nothing")
        fourth = pool.submit(quick)
        ended = pool.next_done()
        assert (ended.number, ended.result.status, ended.has_result, ended.ran) == (fourth, "done", True, True)
        pool.submit(quick)
        # The second one ignores SIGTERM, so it lives for as long as it is given.
        monkeypatch.setattr("runner.sweeps.pool.GRACE", 0.5)
        pool.stop(second)
        assert pool.next_done().ran
        ended = pool.next_done()
        assert (ended.number, ended.result.status, ended.result.exit) == (second, "interrupted", 137)
        assert pool.next_done() is None
        assert pool.idle()


def test_a_finished_trial_is_not_run_again(tmp_path, importable):
    job = trial(tmp_path / "x", "task=nothing")
    job = trial(tmp_path / f"x-{job.hash8}", "task=nothing")
    with Pool(launcher_settings(), like=job) as pool:
        assert [ended.ran for ended in all_done(pool, [job])] == [True]
        assert [ended.ran for ended in all_done(pool, [job, job])] == [False, False]


def until(happened, pool):
    """Run the pool until a condition is true."""
    deadline = time.monotonic() + 60
    while not happened():
        assert pool.next_done(timeout=0.1) is None
        assert time.monotonic() < deadline


def children(pid):
    """Return the pids of a process's children, the eldest first."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("lost", ["server", "template"])
def test_trials_survive_the_death_of_the_process_that_they_come_from(tmp_path, importable, lost):
    waits = trial(tmp_path / "waits", "task=wait")
    with Pool(launcher_settings(workers=1), like=waits) as pool:
        number = pool.submit(waits)
        until((tmp_path / "waits" / "begun").exists, pool)
        (worker,) = pool._group.workers
        # The trial may begin before the server's message about it arrives.
        until(lambda: number in worker.groups, pool)
        server = worker._process.pid
        (template,) = children(server)
        forks = children(template)
        assert worker.groups[number] in forks
        (tmp_path / "waits" / "begun").unlink()
        os.kill(server if lost == "server" else template, signal.SIGKILL)
        until((tmp_path / "waits" / "begun").exists, pool)  # begun again, by others
        until(lambda: not any(map(runs, [server, template, *forks])), pool)
        pool.stop(number)
        assert pool.next_done().result.status == "interrupted"


def test_a_process_that_waits_for_a_trial_is_replaced_when_it_is_killed(tmp_path, importable):
    jobs = [trial(tmp_path / str(number), "task=nothing") for number in range(3)]
    with Pool(launcher_settings(workers=1), like=jobs[0]) as pool:
        for job in jobs:
            pool.submit(job)
            assert pool.next_done().result.status == "done"
            (template,) = children(pool._group.workers[0]._process.pid)
            until(lambda: none_left(template), pool)  # noqa: B023


def none_left(template):
    """Kill the forks of a template; True if their parent has collected all of them."""
    left = children(template)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return not left


REFUSED_TWICE = """
import ast, itertools, os, sys
sys.path[:] = ast.literal_eval(sys.argv[1])
from runner.sweeps import server
fork, numbers = os.fork, itertools.count()
def refusing():
    if next(numbers) in (2, 3):
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()
os.fork = refusing
server.main(int(sys.argv[2]))
"""


def test_a_fork_that_the_system_refuses_is_asked_for_again(tmp_path, importable, monkeypatch):
    monkeypatch.setattr("runner.sweeps.worker_group.START", REFUSED_TWICE)
    jobs = [trial(tmp_path / str(number), "task=nothing") for number in range(3)]
    with Pool(launcher_settings(workers=1), like=jobs[0]) as pool:
        pool._group.start(3)
        (first,) = pool._group.workers
        assert [each.result.status for each in all_done(pool, jobs)] == ["done"] * 3
        assert pool._group.workers == [first]  # no other had to take its place


def test_what_a_trial_leaves_running_ends_with_it(tmp_path, importable):
    job = trial(tmp_path / "x", "task=leave_running")
    with Pool(launcher_settings(workers=1), like=job) as pool:
        pool.submit(job)
        assert pool.next_done().result.status == "done"
        pid = int((tmp_path / "x" / "pid").read_text())
        until(lambda: not runs(pid), pool)


@pytest.mark.ci_slice
@pytest.mark.slow
def test_a_trial_that_held_much_memory_is_over_when_it_has_given_it_back(tmp_path, importable):
    job = trial(tmp_path / "x", "task=hold_much")
    with Pool(launcher_settings(workers=1), like=job) as pool:
        pool.submit(job)
        assert pool.next_done().result.status == "done"
        assert not runs(int((tmp_path / "x" / "pid").read_text()))


def runs(pid):
    """Return True if a process lives; a zombie, which only waits for its parent to collect it, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.ci_slice
@pytest.mark.slow
def test_a_process_that_never_starts_ends_the_sweep(tmp_path, importable, monkeypatch):
    monkeypatch.setattr("runner.sweeps.worker_group.START", "raise SystemExit(3)")
    job = trial(tmp_path / "x", "task=nothing")
    with Pool(launcher_settings(), like=job) as pool:
        pool.submit(job)
        with pytest.raises(TrialsFailed, match="ended 3 times"):
            pool.next_done()


TWO_GPUS = """
import ast, sys
sys.path[:] = ast.literal_eval(sys.argv[1])
from runner.sweeps import loading, server
load = loading.load
loading.load = lambda message: load(message) or 2
server.main(int(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.ci_slice
def test_workers_gpu_environments_run_one_trial_after_the_other_and_one_that_dies_takes_only_its_own(
    tmp_path, importable, monkeypatch
):
    """The GPUs are made up: each of the two processes computes on the processor."""
    monkeypatch.setattr("runner.sweeps.worker_group.START", TWO_GPUS)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    ways = [0, 5, 0, 0, 1, 0]  # 5 ends its process, 1 raises
    jobs = [
        trial(tmp_path / str(number), "mix=faulty", f"mix.which={way}", "mix.at=2", "steps=20")
        for number, way in enumerate(ways)
    ]
    with Pool(launcher_settings(workers=None, retries=1), like=jobs[0]) as pool:
        ended = all_done(pool, jobs)
        assert [worker.inline for worker in pool._group.workers] == [True, True]
    assert [each.result.status for each in ended] == ["failed" if way else "done" for way in ways]
    assert ended[1].result.reason == "the process ended with exit code 7 and left no result"
    assert re.fullmatch(r"plugin \S*faulty\.py:\d+: ZeroDivisionError: a mistake", ended[4].result.reason)
    found = [json.loads((tmp_path / str(number) / "environment.json").read_text()) for number in range(6)]
    assert {each["environment"]["CUDA_VISIBLE_DEVICES"] for each in found} <= {"0", "1"}  # one may take all


@pytest.mark.parametrize(
    ("gpus", "visible", "expected"),
    [
        (2, None, "0 1 0 1 0"),
        (1, None, "0 0 0 0 0"),
        (3, "4,6,7", "4 6 7 4 6"),
        (2, "GPU-aa,GPU-bb", "GPU-aa GPU-bb GPU-aa GPU-bb GPU-aa"),
    ],
)
def test_workers_take_the_gpus_in_turn(gpus, visible, expected):
    taken = [gpu_environment(worker, gpus, visible)["CUDA_VISIBLE_DEVICES"] for worker in range(5)]
    assert taken == expected.split()


def test_messages_arrive_whole_and_as_they_were():
    left, right = socket.socketpair()
    ours, theirs = Channel(left), Channel(right)
    mixed = {"a": 1.5, 3: None, "text": "line\nline é\udcff", "list": [True, [1, 2], {None: {"c": {}}}]}
    sent = [mixed, {"b": "x" * 60_000}]
    for message in sent:
        ours.send(message)
    found = []
    while len(found) < 2:
        found += theirs.receive()
    assert found == sent
    ours.close()
    with pytest.raises(Closed):
        list(theirs.receive())
    theirs.close()


ONE = """
import ast, os, sys
from runner.sweeps.loading import load
from runner.sweeps.trial import run_trial, load_start
job = ast.literal_eval(sys.argv[1])
message = {"entry": "runner.door.task_context", "argv": sys.argv, "trials": 1}
message |= { "plugins": ["faulty"], "data": job["config"]["data"], "device": "cpu"}
load(message)
start = load_start(message)
before, said = set(sys.modules), os.dup(1)
code = run_trial({"job": job, "memory": None}, start)
os.write(said, repr((code, sorted(set(sys.modules) - before))).encode())
"""


@pytest.mark.ci_slice
@pytest.mark.slow
def test_a_trial_finds_loaded_all_that_it_imports(tmp_path):
    """What it imports itself, every trial would import again."""
    words = [sys.executable, "-c", ONE, repr(message_of(trial(tmp_path / "run", "steps=30")))]
    said = subprocess.run(words, env={**os.environ, "PYTHONPATH": PATHS}, capture_output=True, text=True)
    assert (said.stdout, said.returncode) == ("(0, [])", 0), said.stderr


@pytest.mark.slow
@pytest.mark.parametrize("count", [pytest.param(200, marks=pytest.mark.ci_slice), 1000])
def test_trials_leave_nothing_behind_in_the_processes_that_run_them(tmp_path, importable, count):
    like = trial(tmp_path / "like", "task=nothing")
    with Pool(launcher_settings(workers=2), like=like) as pool:
        all_done(pool, [trial_job(like.config, [], tmp_path / f"w{number}") for number in range(110)])
        server = pool._group.workers[0]._process.pid
        pids = [server, *children(server), os.getpid()]
        before = [measured(pid) for pid in pids]
        ended = all_done(pool, [trial_job(like.config, [], tmp_path / f"t{number}") for number in range(count)])
        after = [measured(pid) for pid in pids]
    assert {each.result.status for each in ended} == {"done"}
    for (memory, descriptors), (later, more) in zip(before, after, strict=True):
        assert abs(more - descriptors) <= 1  # the fork that waits may not have been heard of yet
        assert later - memory < 10 << 20


def measured(pid):
    """Return a process's own memory in bytes and the number of its descriptors."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(list(Path(f"/proc/{pid}/fd").iterdir()))
