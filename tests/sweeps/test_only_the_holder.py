"""Only the process that holds the lock of a folder writes there; a process that lost the lock stops writing."""

import json
import os
import socket
import subprocess
import sys
import time

import kills
import pytest
from running import result
from trials import HERE, PATHS, launcher_settings, trial

from runner.__main__ import main
from runner.engine import processes
from runner.engine.saving.folder import Result, write_result
from runner.engine.saving.locking import lock
from runner.sweeps.in_process import InProcess
from runner.sweeps.outcome import begin, finalize_result, lost_ending
from runner.sweeps.pool import Pool, all_done

HOST = socket.gethostname()

# In every process that a command starts: each change of a file in a folder with a lock is checked against the kernel
WATCHED = """
import os, sys

TOP = os.environ["RUNNER_TEST_TOP"]
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
busy = False


def holds(folder):
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}") == f"{folder}/.lock":
                with open(f"/proc/self/fdinfo/{name}") as info:
                    if "FLOCK" in info.read():
                        return True
        except OSError:
            pass
    return False


def check(event, path):
    path = os.path.abspath(os.fspath(path))
    name, folder = os.path.basename(path), os.path.dirname(path)
    if name == ".lock" or not folder.startswith(TOP + "/outputs"):
        return
    # The folder of a run or sweep, and what is below it
    while not os.path.lexists(f"{folder}/.lock"):
        if folder == TOP or event == "os.mkdir":
            return
        folder = os.path.dirname(folder)
    line = f"{event} {os.path.relpath(path, TOP)}"
    if event == "os.mkdir" and folder == os.path.dirname(path) and os.path.lexists(f"{folder}/sweep.yaml"):
        return  # a trial makes its folder
    with open(f"{TOP}/{'seen' if holds(folder) else 'wrong'}", "a") as log:
        log.write(f"{os.getpid()} {line}\\n")


def hook(event, arguments):
    global busy
    if busy or not event.startswith(("open", "os.")):
        return
    busy = True
    try:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
            if not isinstance(arguments[0], int):
                check(event, arguments[0])
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.truncate", "os.symlink", "os.link"):
            for path in arguments[:2] if event in ("os.rename",) else arguments[:1]:
                if not isinstance(path, int):
                    check(event, path)
    finally:
        busy = False


sys.addaudithook(hook)
"""
TINY = ("model=mlp", "model.hidden=[4]", "augment=[]", "probe=[]", "steps=6", "checkpoint_every=2steps")
PLUGIN = ("plugins=[faulty]", "--config-dir", str(HERE / "conf"))
COMMANDS = [
    ("run", 0, (*TINY, "name=run")),
    ("run that is over", 0, ("resume=outputs/run",)),
    ("evaluation", 0, ("task=evaluate", "run=outputs/run", "task.split=test")),
    ("run that fails", 2, (*TINY, "name=fails", "mix=faulty", "mix.which=1", "mix.at=2", *PLUGIN)),
    ("resumed run", 2, ("resume=outputs/fails", *PLUGIN)),
    (
        *("sweep with failing trials", 1),
        ("-m", *TINY, "sweep=s", "mix=faulty", "mix.which=0,1,5,7", "mix.at=2", "hydra.launcher.retries=1", *PLUGIN),
    ),
    (
        *("the same again, by another launcher", 1),
        ("-m", *TINY, "sweep=s", "mix=faulty", "mix.which=0,1", "mix.at=2", "hydra/launcher=basic", *PLUGIN),
    ),
    (
        *("sweep with a time limit", 1),
        ("-m", *TINY, "sweep=t", "task=stay", "hydra.launcher.timeout=2", "seed=0,1", *PLUGIN),
    ),
    (
        *("search", 0),
        ("-m", *TINY, "sweep=o", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "optim.lr=interval(0.01,0.1)"),
    ),
    (
        *("task that launches runs", 0),
        ("recipe=grid_vs_random", *TINY, "name=grid", "task.side=2", "task.draws=1", "hydra.launcher.workers=1"),
    ),
]


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """Return the exit codes of all commands, the writes that the kernel saw with the lock, and those without it."""
    top = tmp_path_factory.mktemp("watched").resolve()
    (top / "sitecustomize.py").write_text(WATCHED)
    more = {"PYTHONPATH": f"{top}:{PATHS}", "RUNNER_TEST_TOP": str(top), "OMP_NUM_THREADS": "1"}
    codes = {}
    for name, _, words in COMMANDS:
        line = [sys.executable, "-m", "runner", *words]
        done = subprocess.run(line, cwd=top, env=os.environ | more, capture_output=True, text=True, timeout=300)
        codes[name] = done.returncode, done.stdout + done.stderr
    read = {name: (top / name).read_text().splitlines() if (top / name).exists() else [] for name in ("seen", "wrong")}
    return codes, read["seen"], read["wrong"]


@pytest.mark.slow
@pytest.mark.ci_slice
def test_every_write_in_a_folder_is_made_with_its_lock(watched):
    codes, seen, wrong = watched
    assert {name: code for name, (code, _) in codes.items()} == {name: code for name, code, _ in COMMANDS}, codes
    assert sorted({line.split(" ", 1)[1] for line in wrong}) == []
    names = {line.split("/")[-1] for line in seen}
    assert {"trial.log", "metrics.jsonl", "result.json", "config.yaml", "sweep.yaml", "environment.json"} <= names
    assert len({line.split()[0] for line in seen}) > 15  # processes


# A trial whose folder another process holds


@pytest.fixture
def held(tmp_path):
    """Yield the job of a trial whose folder this process holds, as a living run does, and what is in the folder."""
    job = trial(tmp_path / "x", "task=nothing")
    (tmp_path / "x").mkdir()
    with lock(tmp_path / "x"):
        write_result(tmp_path / "x", Result(status="running", steps=3))
        (tmp_path / "x" / "trial.log").write_text("of its owner\n")
        before = {path.name: path.read_bytes() for path in (tmp_path / "x").iterdir()}
        yield job
        assert {path.name: path.read_bytes() for path in (tmp_path / "x").iterdir()} == before


WORDS = f"locked by pid {{}} on {HOST}"


@pytest.mark.ci_slice
@pytest.mark.slow
def test_a_trial_without_the_lock_fails_and_changes_nothing(held, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with Pool(launcher_settings(workers=1, retries=1), like=held) as pool:
        ended = all_done(pool, [held, trial(tmp_path / "other", "task=nothing")])
    assert [each.result.status for each in ended] == ["failed", "done"]
    assert ended[0].result.exit == 6
    assert ended[0].result.reason == f"{tmp_path / 'x'}: {WORDS.format(os.getpid())}"


def test_the_same_for_a_launcher_without_processes(held, tmp_path):
    launcher = InProcess(lambda job: pytest.fail("it must not run"))
    launcher.submit(held)
    ended = launcher.next_done()
    assert (ended.result.status, ended.result.exit) == ("failed", 6)


def test_the_sweep_itself_writes_no_status_there(held):
    begin(held)
    found = finalize_result(held, lost_ending("lost"), 1.0)
    assert (found.status, found.exit) == ("failed", 6)
    assert WORDS.format(os.getpid()) in found.reason


@pytest.mark.slow
@pytest.mark.ci_slice
def test_trials_that_come_at_many_moments_of_a_run_leave_it_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder, job = tmp_path / "x", trial(tmp_path / "x", "steps=40", "checkpoint_every=3steps", "validate_every=5steps")
    second = trial(tmp_path / "x", "steps=40")

    def owner():
        from runner.engine.learner import Learner

        step_optimizer = Learner.step_optimizer

        def slowly(learner, loss):
            time.sleep(0.1)
            step_optimizer(learner, loss)

        Learner.step_optimizer = slowly
        kills.run(job)
        return 0

    outcomes = []
    with Pool(launcher_settings(workers=2), like=second) as pool:
        assert all_done(pool, [trial(tmp_path / "first", "task=nothing")])[0].result.status == "done"
        pid = kills.start_child(owner, tmp_path / "printed")
        while not (folder / "config.yaml").exists():
            time.sleep(0.01)
        while processes.is_alive(pid) and len(outcomes) < 100:
            pool.submit(second)
            one = pool.next_done()
            outcomes.append((one.result.status, one.result.exit))
            now = json.loads((folder / "result.json").read_text())
            assert (now["status"], now["exit"]) in {("running", None), ("done", 0)}
    code, printed = kills.wait_for_child(pid, tmp_path / "printed")
    assert code == 0, printed
    assert len(outcomes) > 3
    assert set(outcomes) <= {("failed", 6), ("done", 0)}
    assert ("failed", 6) in outcomes
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert result(folder)["status"] == "done"


# A lock that is lost during a run


LOSSES = {
    "the lock file is removed": lambda folder: (folder / ".lock").unlink(),
    "another process takes it": lambda folder: ((folder / ".lock").unlink(), lock(folder)),
    "the folder is made again": lambda folder: (folder.rename(folder.with_name("old")), folder.mkdir()),
    "another run is there": lambda folder: (folder.rename(folder.with_name("old")), folder.mkdir(), lock(folder)),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_run_that_loses_its_lock_writes_no_more_unless_it_gets_it_again(tmp_path, loss):
    folder = tmp_path / "run"
    there, go = tmp_path / "there", tmp_path / "go"

    def owner():
        from runner.engine.learner import Learner

        step_optimizer = Learner.step_optimizer

        def held(learner, loss):
            if learner.step == 3 and not go.exists():
                there.touch()
                while not go.exists():
                    time.sleep(0.01)
            step_optimizer(learner, loss)

        Learner.step_optimizer = held
        return main([*TINY, "figures=never", "log_every=1", f"hydra.run.dir={folder}"])

    pid = kills.start_child(owner, tmp_path / "printed")
    while not there.exists():
        time.sleep(0.01)
    LOSSES[loss](folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    go.touch()
    code, printed = kills.wait_for_child(pid, tmp_path / "printed")
    if loss == "the lock file is removed":
        assert (code, result(folder)["status"]) == (0, "done"), printed
        assert (folder / ".lock").read_text().split()[:2] == [str(pid), HOST]
        return
    assert code == 6, printed
    assert printed.splitlines()[-1].startswith(f"runner: error: {folder}: ")
    assert printed.splitlines()[-1].endswith("; this process no longer writes here")
    assert "Traceback" not in printed
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    for each in list(_held_here(folder)):
        each.close()


def _held_here(folder):
    from runner.engine.saving import held

    return [each for each in held._held if each.folder == folder]
