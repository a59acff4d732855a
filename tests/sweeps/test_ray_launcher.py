"""hydra/launcher=ray: a real Ray with two nodes on this machine, one of which is killed in the middle of a sweep.

`pip install 'ray>=2.9'` first, or --target a folder on PYTHONPATH.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from running import result
from trials import HERE, PATHS, PLUGIN, BackgroundSweep, marked_processes, sweep, trial_folders

from runner.door.ray_cluster import Cluster, _probe
from runner.errors import ConfigError
from runner.sweeps.launcher import LauncherSettings, RaySettings, check_launcher_settings

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")
RAY = "hydra/launcher=ray"
FAST = ("data=synthetic", "steps=40", "device=cpu")
SETTINGS = {
    "address": None, "resources": {"num_cpus": 1, "num_gpus": 0}, "max_retries": 3,
    "workers": None, "threads": None, "timeout": None, "retries": 0, "memory": None,
}  # fmt: skip


@pytest.fixture(autouse=True)
def paths(monkeypatch):
    """Let all processes find what this one finds."""
    monkeypatch.setattr("trials.PATHS", os.pathsep.join([PATHS, os.environ.get("PYTHONPATH", "")]))


def run(*words, cwd):
    return sweep(RAY, *words, cwd=cwd, PYTHONPATH=os.pathsep.join([PATHS, os.environ.get("PYTHONPATH", "")]))


@pytest.fixture
def nodes():
    """Yield the process of a cluster with two nodes of two CPUs each, and its address."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([PATHS, os.environ.get("PYTHONPATH", "")])}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0"}
    process = subprocess.Popen(
        [sys.executable, str(HERE / "ray_nodes.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
    )  # fmt: skip
    line = next(line for line in process.stdout if line.startswith("address "))
    yield process, line.split()[1]
    process.stdin.close()
    process.wait(60)
    process.stdout.close()


def steps_of(folder):
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@needs_ray
@pytest.mark.slow
def test_a_killed_node_loses_no_trial_and_no_finished_one_runs_again(tmp_path, nodes):
    process, address = nodes
    words = (f"hydra.launcher.address={address}", "seed=range(0,10)", "steps=12000", "checkpoint_every=200steps")
    words += ("device=cpu", "log_every=1", "validate_every=12000steps")
    going = BackgroundSweep(RAY, *words, cwd=tmp_path)

    def statuses():
        return {name: result(path)["status"] for name, path in trial_folders(tmp_path).items()}

    def begun():
        """Return the trials that have a checkpoint and go on."""
        names = [name for name, status in statuses().items() if status == "running"]
        return [name for name in names if list(trial_folders(tmp_path)[name].glob("checkpoints/*"))]

    going.until(lambda: list(statuses().values()).count("done") >= 2, seconds=200)
    going.until(lambda: len(begun()) == 4, seconds=60)
    process.stdin.write("kill\n")
    process.stdin.flush()
    assert process.stdout.readline() == "killed\n"
    finished = {name: trial_folders(tmp_path)[name] for name, status in statuses().items() if status == "done"}
    before = {name: (path / "result.json").stat().st_mtime_ns for name, path in finished.items()}
    output, _ = going.process.communicate(timeout=400)
    assert going.process.returncode == 0, output
    folders = trial_folders(tmp_path)
    assert (len(folders), set(statuses().values())) == (10, {"done"})
    assert {name: (folders[name] / "result.json").stat().st_mtime_ns for name in before} == before
    # Those that ran on the lost node went on from a checkpoint: each step is there once
    assert all(steps_of(path) == sorted(set(steps_of(path))) for path in folders.values())
    assert all(steps_of(path)[-1] == 12000 for path in folders.values())
    # A resumed run adds an event file
    resumed = [name for name, path in folders.items() if len(list(path.glob("events.*"))) > 1]
    assert 1 <= len(resumed) <= 2
    assert all(
        re.search(r"^  resumes after step [1-9]", (folders[name] / "trial.log").read_text(), re.MULTILINE)
        for name in resumed
    )
    assert not set(resumed) & set(finished)
    again = run(*words, cwd=tmp_path)
    assert (again.returncode, again.stdout.count("already done")) == (0, 10)


@needs_ray
@pytest.mark.slow
def test_a_search_with_fractions_of_a_cpu_ends_with_its_ranking(tmp_path):
    search = ("hydra/sweeper=optuna", "hydra/sweeper/sampler=tpe", "optim.lr=tag(log,interval(1e-3,1))")
    search += ("hydra.sweeper.n_trials=8", "hydra.launcher.resources.num_cpus=0.5", *FAST)
    done = run(*search, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [ranking] = tmp_path.glob("outputs/sweeps/*/ranking.csv")
    assert len(ranking.read_text().splitlines()) == 9
    assert {result(path)["status"] for path in trial_folders(tmp_path).values()} == {"done"}


@needs_ray
@pytest.mark.slow
def test_a_trial_that_ends_its_process_fails_alone(tmp_path):
    words = ("mix=faulty", "mix.which=0,5,9", "mix.at=2", "data=synthetic", "epochs=1", *PLUGIN)
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    found = {name.partition("-")[0]: result(path)["status"] for name, path in trial_folders(tmp_path).items()}
    assert found == {"which=0": "done", "which=5": "failed", "which=9": "failed"}
    assert "the process ended with exit code 7" in done.stderr
    assert "crashed (SIGSEGV)" in done.stderr


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_a_signal_the_trials_saved_themselves_and_no_process_is_left(tmp_path, number):
    going = BackgroundSweep(RAY, "seed=0,1", "epochs=1000000", *FAST[::2], cwd=tmp_path)
    going.until(lambda: len(list(tmp_path.glob("outputs/sweeps/*/*/checkpoints/*"))) >= 2, seconds=120)
    assert listening(going.mark) == {"loopback"}
    code, output = going.end(number, seconds=90)
    assert code == 128 + number, output
    assert {result(path)["status"] for path in trial_folders(tmp_path).values()} == {"interrupted"}
    assert "stopped: 0 of 2 trials have a result; repeat the command to continue" in output
    assert going.left(20) == []
    assert not list(tmp_path.glob("outputs/sweeps/*/.launches"))


@needs_ray
@pytest.mark.slow
def test_a_killed_sweep_leaves_no_process(tmp_path):
    going = BackgroundSweep(RAY, "seed=0,1", "epochs=1000000", *FAST[::2], cwd=tmp_path)
    going.until(lambda: len(list(tmp_path.glob("outputs/sweeps/*/*/checkpoints/*"))) >= 2, seconds=120)
    going.end(signal.SIGKILL, seconds=30)
    assert going.left(40) == []


def listening(mark):
    """Return where the processes with a mark listen."""
    sockets = {}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                sockets[f"socket:[{fields[9]}]"] = fields[1].rpartition(":")[0]
    found = set()
    for pid in marked_processes(mark):
        for path in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                found.add(sockets.get(str(path.readlink())))
            except OSError:
                continue
    own = {"0100007F", "0" * 24 + "01000000", "0000000000000000FFFF00000100007F"}
    return {"loopback" if each in own else each for each in found - {None}}


def test_a_missing_ray_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"^hydra/launcher: 'ray' is not installed: pip install 'ray>=2\.9'$"):
        Cluster(check_launcher_settings(SETTINGS))


@pytest.mark.parametrize("address", ["ray://h:1", "http://h:1", "h", "h:1/x", "--help", "local"])
def test_an_address_that_is_none_is_refused_before_anything_is_asked(address):
    with pytest.raises(ConfigError, match=r"^hydra\.launcher\.address: got .*; expected host:port"):
        _probe(address)


@needs_ray
@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_one_line_within_a_bounded_time():
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"^hydra\.launcher\.address: got 127\.0\.0\.1:9; no cluster of Ray answer"):
        _probe("127.0.0.1:9")
    assert time.monotonic() - began < 45


@needs_ray
@pytest.mark.slow
def test_more_than_this_machine_has_is_refused(tmp_path):
    done = run("hydra.launcher.resources.num_gpus=64", "seed=0,1", *FAST, cwd=tmp_path)
    assert done.returncode == 2
    assert "hydra.launcher.resources: got 1 CPUs and 64 GPUs; this machine has less" in done.stderr


def test_the_settings_are_checked_by_their_keys():
    found = check_launcher_settings({**SETTINGS, "resources": {"num_cpus": 0.5, "num_gpus": 0.25}})
    assert isinstance(found, RaySettings)
    assert (found.num_cpus, found.num_gpus, found.max_retries) == (0.5, 0.25, 3)
    for changes, words in (
        ({"resources": {"num_cpus": -1, "num_gpus": 0}}, r"hydra\.launcher\.resources\.num_cpus: got -1, must be >= 0"),
        ({"resources": {**SETTINGS["resources"], "num_gpu": 1}}, r"hydra\.launcher\.resources\.num_gpu: unknown key"),
        ({"max_retries": 0.5}, r"hydra\.launcher\.max_retries: got 0\.5"),
        ({"num_cpus": 1}, r"hydra\.launcher\.num_cpus: unknown key"),
    ):
        with pytest.raises(ConfigError, match=words):
            check_launcher_settings({**SETTINGS, **changes})
    plain = {key: SETTINGS[key] for key in ("workers", "threads", "timeout", "retries", "memory")}
    assert type(check_launcher_settings(plain)) is LauncherSettings
