"""Hydra's launchers: statuses, table and "the same command again" hold for each; what goes on in Slurm is said.

The tests of joblib, submitit and Slurm need them installed; `tests/slurm_here.sh` sets a Slurm up.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from importlib.util import find_spec

import pytest
from running import result
from trials import PATHS, PLUGIN, BackgroundSweep, sweep, trial_folders

from runner.engine.saving.locking import holder, lock
from runner.status import Status
from runner.sweeps import slurm
from runner.sweeps.job_records import JobRecords
from runner.sweeps.launch_folder import Launch

FAST = ("data=synthetic", "epochs=1", *PLUGIN)
# mix.which: ends well, sys.exit, os._exit, a segmentation fault, ends well
WAYS = ("mix=faulty", "mix.which=0,3,5,9,2", "mix.at=2")
REASONS = {3: r"plugin \S+: SystemExit: 0", 5: "the process ended with exit code 7 .*", 9: r"crashed \(SIGSEGV\): .*"}


def installed(name):
    return bool(shutil.which("sinfo")) if name == "slurm" else find_spec(f"hydra_plugins.hydra_{name}_launcher")


def needs(*names):
    try:
        missing = [name for name in names if not installed(name)]
    except ModuleNotFoundError:
        missing = names
    if "slurm" in names and not missing:
        missing = ["slurm"] if subprocess.run(["sinfo"], capture_output=True, check=False).returncode else []
    return pytest.mark.skipif(bool(missing), reason=f"{missing} is not installed")


LAUNCHERS = [
    "basic",
    pytest.param("joblib", marks=needs("joblib")),
    pytest.param("submitit_local", marks=needs("submitit")),
    pytest.param("submitit_slurm", marks=needs("submitit", "slurm")),
]
in_slurm = needs("submitit", "slurm")


def run(*words, cwd):
    return sweep(*words, cwd=cwd, PYTHONPATH=os.pathsep.join([PATHS, os.environ.get("PYTHONPATH", "")]))


def statuses(cwd):
    """Return the status of each trial by its mix or seed."""
    return {int(re.search(r"=(\d+)-", name)[1]): result(path)["status"] for name, path in trial_folders(cwd).items()}


def submitted(cwd):
    """Return the jobs that were submitted, with their folders."""
    [path] = cwd.glob("outputs/sweeps/*/submitted.jsonl")
    return [(each["job"], each["folder"]) for each in map(json.loads, path.read_text().splitlines())]


@pytest.mark.ci_slice
@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_trial_that_ends_its_process_fails_alone_and_is_the_only_one_repeated(tmp_path, launcher):
    words = (f"hydra/launcher={launcher}", *WAYS, *FAST)
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert statuses(tmp_path) == {0: "done", 2: "done", 3: "failed", 5: "failed", 9: "failed"}
    for which, reason in REASONS.items():
        assert re.search(rf"^failed: which={which}-\w+: {reason}$", done.stderr, re.MULTILINE)
    # A line and a row of the table for each
    assert all(done.stdout.count(name) == 2 for name in trial_folders(tmp_path))
    again = run(*words, cwd=tmp_path)
    assert (again.returncode, again.stdout.count("already done")) == (1, 2)
    if launcher == "submitit_slurm":
        folders = [folder for _, folder in submitted(tmp_path)]
        assert len(folders) == 8
        assert [folders.count(name) for name in sorted(trial_folders(tmp_path))] == [1, 1, 2, 2, 2]


@needs("joblib")
def test_trials_that_are_lost_with_a_process_of_the_launcher_run_again_by_themselves(tmp_path):
    words = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "task=kill_worker", "seed=0,1,2", *FAST)
    done = run(*words, cwd=tmp_path)
    assert statuses(tmp_path) == {0: "failed", 1: "done", 2: "done"}
    assert re.search(r"^failed: seed=0-\w+: its process was killed and left no result", done.stderr, re.MULTILINE)


@pytest.mark.ci_slice
@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS[:3])
def test_ctrl_c_lets_the_trials_on_this_machine_save_themselves(tmp_path, launcher, monkeypatch):
    monkeypatch.setattr("trials.PATHS", os.pathsep.join([PATHS, os.environ.get("PYTHONPATH", "")]))
    words = (f"hydra/launcher={launcher}", "seed=0,1", "data=synthetic", "epochs=1000000", *PLUGIN)
    going = BackgroundSweep(*words, cwd=tmp_path)
    going.until(lambda: list(tmp_path.glob("outputs/sweeps/*/*/checkpoints/*")), seconds=120)
    code, output = going.end(signal.SIGINT, seconds=90)
    assert code == 130, output
    assert set(statuses(tmp_path).values()) == {"interrupted"}
    assert "stopped: 0 of 2 trials have a result; repeat the command to continue" in output
    assert going.left(30) == []
    assert not list(tmp_path.glob("outputs/sweeps/*/.launches"))


@needs("submitit")
def test_ctrl_c_before_the_trials_began_interrupts_them(tmp_path, monkeypatch):
    monkeypatch.setattr("trials.PATHS", os.pathsep.join([PATHS, os.environ.get("PYTHONPATH", "")]))
    words = ("hydra/launcher=submitit_local", "seed=0,1", "data=synthetic", "epochs=1000000", *PLUGIN)
    going = BackgroundSweep(*words, cwd=tmp_path)
    going.until(lambda: list(tmp_path.glob("outputs/sweeps/*/.launches/*")), seconds=120)
    going.until(lambda: len(list(tmp_path.glob("outputs/sweeps/*/.submitit/*/*.pkl"))) >= 2, seconds=30)
    code, output = going.end(signal.SIGINT, seconds=90)
    assert code == 130, output
    assert set(statuses(tmp_path).values()) == {"interrupted"}
    assert "failed" not in output
    assert going.left(30) == []


@needs("submitit")
def test_settings_of_submitit_that_start_a_trial_twice_are_refused(tmp_path):
    done = run("hydra/launcher=submitit_local", "hydra.launcher.tasks_per_node=2", "seed=0,1", *FAST, cwd=tmp_path)
    assert done.returncode == 2
    assert "hydra.launcher.tasks_per_node: got 2, must be 1" in done.stderr


@pytest.mark.slow
@in_slurm
def test_slurm_jobs_that_go_on_after_ctrl_c_are_named_and_not_submitted_again(tmp_path, monkeypatch):
    monkeypatch.setattr("trials.PATHS", os.pathsep.join([PATHS, os.environ.get("PYTHONPATH", "")]))
    words = ("hydra/launcher=submitit_slurm", "hydra.launcher.array_parallelism=1", "task=wait", "seed=0,1", *FAST)
    begun = "outputs/sweeps/*/*/begun"
    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9), (signal.SIGTERM, 143)):
        going = BackgroundSweep(*words, cwd=tmp_path)
        going.until(lambda: list(tmp_path.glob(begun)), seconds=120)
        [folder] = tmp_path.glob("outputs/sweeps/*")
        going.until(lambda: holder(folder), seconds=120)  # noqa: B023
        time.sleep(8)
        ended, output = going.end(number)
        assert ended == code, output
        jobs = [job for job, _ in submitted(tmp_path)]
        assert len(jobs) == 2
        if number != signal.SIGKILL:
            assert "2 trials go on in Slurm (1 running, 1 waiting)" in output
            assert f"cancel them with: scancel {jobs[0].split('_')[0]};" in output
    known = slurm.states()
    assert known is not None
    assert [known[job].word for job in jobs] == ["RUNNING", "PENDING"]
    subprocess.run(["scancel", jobs[0].split("_")[0]], check=True)
    done = run(*words[:2], "task=nothing", "seed=0,1", *FAST, "sweep=other", cwd=tmp_path)
    assert (done.returncode, done.stdout.count("  done  ")) == (0, 4)


@pytest.mark.slow
@in_slurm
def test_a_cancelled_job_is_interrupted_and_one_that_takes_too_long_is_timed_out(tmp_path, monkeypatch):
    monkeypatch.setattr("trials.PATHS", os.pathsep.join([PATHS, os.environ.get("PYTHONPATH", "")]))
    limit = ("hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=20")
    words = ("hydra/launcher=submitit_slurm", *limit, "seed=0,1,2", "data=synthetic", "epochs=1000000", *PLUGIN)
    going = BackgroundSweep(*words, cwd=tmp_path)
    going.until(lambda: list(tmp_path.glob("outputs/sweeps/*/seed=0-*/checkpoints/*")), seconds=120)
    [job] = [job for job, folder in submitted(tmp_path) if folder.startswith("seed=0-")]
    subprocess.run(["scancel", job], check=True)
    output, _ = going.process.communicate(timeout=400)
    assert statuses(tmp_path) == {0: "interrupted", 1: "timeout", 2: "timeout"}
    assert re.search(rf"interrupted: seed=0-\w+: its job was cancelled \(scancel\): Slurm job {job}\n", output)
    assert len(re.findall(r"timeout: seed=\d-\w+: .*\(hydra\.launcher\.timeout_min\)", output)) == 2
    # The trials saved themselves at the warning that Slurm sends 20 seconds before
    assert len(list(tmp_path.glob("outputs/sweeps/*/seed=[12]-*/checkpoints/*"))) >= 2
    assert going.process.returncode == 1


@in_slurm
def test_a_search_over_slurm_ends_with_its_ranking(tmp_path):
    space = "optim.lr=tag(log,interval(1e-3,1))"
    search = ("hydra/sweeper=optuna", space, "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2")
    done = run("hydra/launcher=submitit_slurm", *search, *FAST, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(submitted(tmp_path)) == 4
    [ranking] = tmp_path.glob("outputs/sweeps/*/ranking.csv")
    assert len(ranking.read_text().splitlines()) == 5


def test_only_the_runs_of_a_launch_whose_sweep_lives_go_on(tmp_path):
    child = subprocess.Popen(["sleep", "60"])
    launch = Launch.begin(tmp_path)
    assert launch.wanted()
    launch.note(3)
    launch.stop()
    assert not launch.wanted()
    assert launch.begun() == {3}
    second = Launch.begin(tmp_path)
    third = Launch.begin(tmp_path)
    assert (second.wanted(), third.wanted()) == (False, True)
    other = Launch(third.folder, child.pid, third.host, "1")
    assert other.orphaned()  # the number belongs to another process now
    child.kill()
    child.wait()


def test_a_folder_that_is_locked_is_named_with_the_process(tmp_path):
    assert holder(tmp_path) is None
    with lock(tmp_path):
        assert holder(tmp_path).startswith(f"pid {os.getpid()} on ")
    assert holder(tmp_path) is None


def test_the_last_job_of_a_run_counts_and_a_torn_record_does_not(tmp_path):
    JobRecords(tmp_path).add("slurm", [("12_0", tmp_path / "a"), ("12_1", tmp_path / "b")])
    JobRecords(tmp_path).add("slurm", [("13", tmp_path / "a")])
    with (tmp_path / "submitted.jsonl").open("a") as file:
        file.write('{"scheduler": "slurm", "jo')
    records = JobRecords(tmp_path)
    assert [records.find("slurm", tmp_path / name) for name in "abc"] == ["13", "12_1", None]
    assert records.jobs("slurm", without=[str(tmp_path / "b")]) == ["13"]


SQUEUE = """#!/bin/sh
[ -e {down} ] && {{ echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1; }}
echo '12_0|RUNNING|None'
echo '12_1|PENDING|Priority'
echo '13|TIMEOUT|TimeLimit'
echo '14|CANCELLED|None'
"""


def test_what_slurm_says_is_read_as_the_state_of_a_trial(tmp_path, monkeypatch):
    (tmp_path / "squeue").write_text(SQUEUE.format(down=tmp_path / "down"))
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    states = slurm.states()
    assert {job: state.lives for job, state in states.items()} == {
        "12_0": True, "12_1": True, "13": False, "14": False,
    }  # fmt: skip
    endings = {job: state.ending(job) for job, state in states.items()}
    assert [endings["12_0"], endings["13"].status, endings["14"].status] == [None, Status.TIMEOUT, Status.INTERRUPTED]
    assert endings["13"].reason.endswith(": Slurm job 13")
    assert slurm.cancel_command(["12_0", "12_1", "13"]) == "scancel 12 13"
    (tmp_path / "down").touch()
    assert slurm.states() is None
    assert slurm.past_state("15") is None
