"""Sweeps that are ended at any moment and resumed: no finished trial is repeated, none is lost, results are equal."""

import random
import shutil
import signal
import time

import pytest
from running import checkpoint_checksums, command, metrics, result
from trials import PATHS, PLUGIN, SMALL, BackgroundSweep, marked_processes, sweep, trial_folders

GRID = ("optim.lr=0.1,0.01", "seed=0,1", "epochs=3", "checkpoint_every=7steps", "hydra.launcher.workers=2")
FINAL = ("done", "stopped", "diverged", "pruned")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    where = tmp_path_factory.mktemp("whole")
    done = sweep(*GRID, cwd=where)
    assert done.returncode == 0, done.stderr
    return where


def outcome(path):
    """Return the results of a trial, without times."""
    found = result(path)
    return {**found, "seconds": None}, metrics(path), checkpoint_checksums(path)


def files(path):
    """Return what changes if a trial is repeated."""
    return {each.name: each.stat().st_mtime_ns for each in path.iterdir() if each.name != ".lock"}


def same(where, other):
    ours, theirs = trial_folders(where), trial_folders(other)
    assert ours.keys() == theirs.keys()
    for name, path in ours.items():
        assert outcome(path) == outcome(theirs[name])


def killed_and_resumed(where, moments, *, by_folder):
    """Kill the sweep at each of some moments (seconds after it began), then end it by its command or folder."""
    for moment in moments:
        before = {name: files(path) for name, path in trial_folders(where).items() if result(path)["status"] in FINAL}
        going = BackgroundSweep(*GRID, cwd=where)
        deadline = time.monotonic() + moment
        while time.monotonic() < deadline and going.process.poll() is None:
            time.sleep(0.02)
        going.end(signal.SIGKILL)
        assert going.left() == []
        assert {name: files(trial_folders(where)[name]) for name in before} == before
    before = {name: files(path) for name, path in trial_folders(where).items() if result(path)["status"] in FINAL}
    begun = list(where.glob("outputs/sweeps/*/sweep.yaml"))
    resume = [f"resume={path.parent.relative_to(where)}" for path in begun]
    done = command(*resume, cwd=where) if by_folder and begun else sweep(*GRID, cwd=where)
    assert done.returncode == 0, done.stderr
    assert {name: files(trial_folders(where)[name]) for name in before} == before
    assert len(done.stdout.split("val/accuracy")[1].splitlines()) >= 4


@pytest.mark.parametrize(
    "by_folder",
    [pytest.param(False, marks=[pytest.mark.slow, pytest.mark.ci_slice]), True],
    ids=["by its command", "by its folder"],
)
def test_a_sweep_killed_twice_ends_as_if_it_had_not_been(uninterrupted, tmp_path, by_folder):
    moments = [random.Random(time.time_ns()).uniform(1.0, 4.0) for _ in range(2)]
    killed_and_resumed(tmp_path, moments, by_folder=by_folder)
    same(tmp_path, uninterrupted)


@pytest.mark.slow
def test_a_sweep_killed_at_thirty_random_moments(uninterrupted, tmp_path):
    draw = random.Random(6)
    for number in range(10):
        (tmp_path / str(number)).mkdir()
        killed_and_resumed(tmp_path / str(number), [draw.uniform(0.5, 5.0) for _ in range(3)], by_folder=number % 2)
        same(tmp_path / str(number), uninterrupted)


def test_how_many_run_at_once_changes_no_result(uninterrupted, tmp_path):
    done = sweep(*GRID[:-1], "hydra.launcher.workers=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    same(tmp_path, uninterrupted)


@pytest.mark.ci_slice
@pytest.mark.slow
def test_a_wider_sweep_adds_what_is_new_and_resume_knows_the_command(uninterrupted, tmp_path):
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    before = {name: files(path) for name, path in trial_folders(tmp_path).items()}
    wider = ["optim.lr=0.1,0.01,0.001", *GRID[1:]]
    done = sweep(*wider, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("already done") == 4
    added = set(trial_folders(tmp_path)) - set(before)
    assert len(added) == 2
    assert {name: files(path) for name, path in trial_folders(tmp_path).items() if name in before} == before
    (lost,) = [name for name in added if "seed=0" in name]
    place = trial_folders(tmp_path)[lost]
    shutil.rmtree(place)
    again = command(f"resume={place.parent.relative_to(tmp_path)}", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("already done") == 5
    assert result(place)["status"] == "done"
    refused = command(f"resume={place.parent.relative_to(tmp_path)}", "seed=3", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert refused.stderr.startswith("runner: error: seed: cannot be changed with resume=...")


def test_code_that_a_sweep_was_given_must_be_given_again(tmp_path):
    first = command("-m", *SMALL, "task=nothing", "seed=0,1", "sweep=x", *PLUGIN, cwd=tmp_path, PYTHONPATH=PATHS)
    assert first.returncode == 0, first.stderr
    again = command("resume=outputs/sweeps/x", cwd=tmp_path, PYTHONPATH=PATHS)
    assert again.returncode == 2
    assert again.stderr == (
        "runner: error: resume: this sweep was started with plugins=[faulty], which must be given again\n"
    )
    again = command("resume=outputs/sweeps/x", *PLUGIN, cwd=tmp_path, PYTHONPATH=PATHS)
    assert (again.returncode, again.stdout.count("already done")) == (0, 2)


@pytest.mark.slow
@pytest.mark.ci_slice
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_all_trials_soon_even_those_that_refuse(tmp_path, number, code):
    going = BackgroundSweep("task=stay", "seed=range(9)", *PLUGIN, "hydra.launcher.workers=2", cwd=tmp_path)
    going.until(lambda: len(list(tmp_path.glob("outputs/sweeps/*/*/begun"))) == 2)
    going.until(
        lambda: len(marked_processes(going.mark)) == 8
    )  # sweep, server, template, a fork that waits, two trials, theirs
    began = time.monotonic()
    assert going.end(number)[0] == code
    assert time.monotonic() - began < 8
    assert going.left(2) == []
    assert sorted(result(path)["status"] for path in trial_folders(tmp_path).values()) == ["interrupted"] * 2


def test_a_signal_that_is_ignored_stays_so(tmp_path):
    """As under nohup, and for SIGINT in a shell's background."""

    def ignore():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    going = BackgroundSweep("task=wait", "seed=0,1", *PLUGIN, "hydra.launcher.workers=2", cwd=tmp_path, before=ignore)
    going.until(lambda: len(list(tmp_path.glob("outputs/sweeps/*/*/begun"))) == 2)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGINT):
        going.process.send_signal(number)
    time.sleep(1)
    assert going.process.poll() is None
    assert {result(path)["status"] for path in trial_folders(tmp_path).values()} <= {"running"}
    assert going.end(signal.SIGTERM)[0] == 143
    assert going.left() == []


def test_a_second_process_on_the_same_sweep_is_refused(tmp_path):
    words = ("task=wait", "seed=0,1", *PLUGIN)
    going = BackgroundSweep(*words, cwd=tmp_path)
    try:
        going.until(lambda: list(tmp_path.glob("outputs/sweeps/*/*/begun")))
        second = sweep(*words, cwd=tmp_path, PYTHONPATH=PATHS)
        assert second.returncode == 6
        assert f"locked by pid {going.process.pid} on " in second.stderr
        assert second.stderr.count("\n") == 1
    finally:
        going.end(signal.SIGKILL)
    assert going.left() == []


@pytest.mark.slow
@pytest.mark.ci_slice
def test_the_launchers_of_hydra_still_work(tmp_path):
    done = sweep("epochs=1", "seed=0,1", "hydra/launcher=basic", "average=none,schedulefree", cwd=tmp_path)
    assert done.returncode == 1
    for name, path in trial_folders(tmp_path).items():
        assert (f"failed: {name}: average=schedulefree: needs " in done.stderr) == (result(path)["status"] == "failed")
    assert sorted(result(path)["status"] for path in trial_folders(tmp_path).values()) == [
        "done",
        "done",
        "failed",
        "failed",
    ]
    done = sweep("epochs=1", "seed=0,1", "average=none,schedulefree", cwd=tmp_path)
    assert (done.returncode, done.stdout.count("already done")) == (1, 2)


@pytest.mark.parametrize(
    ("word", "line"),
    [
        (
            "hydra/launcher=submitit_slurm",
            "hydra/launcher: 'submitit_slurm' is not installed: pip install hydra-submitit-launcher",
        ),
        ("hydra.launcher.workers=0", "hydra.launcher.workers: got 0, must be >= 1"),
        ("hydra.launcher.timeout=soon", "hydra.launcher.timeout: got 'soon', must be a number"),
        (
            "hydra.launcher.worker=2",
            "hydra.launcher.worker: unknown key 'worker'; did you mean 'workers'? "
            "(choose from: memory, retries, threads, timeout, workers)",
        ),
    ],
)
def test_a_wrong_setting_of_the_launcher_ends_before_the_first_trial(tmp_path, word, line):
    done = sweep("seed=0,1", word, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"runner: error: {line}\n")
    assert list(tmp_path.iterdir()) == []
