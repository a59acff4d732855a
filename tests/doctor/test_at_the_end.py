"""The doctor at the end of a run: what it writes and prints, and that it changes no number."""

import json
import shlex
from dataclasses import replace

import pytest
import yaml
from running import (
    MLP,
    checkpoint_checksums,
    command,
    events,
    job,
    killed_in_step,
    metrics,
    result,
    run_in_child,
    starter,
)

import runner.assemble  # noqa: F401  (once, not in each child)
from runner.door.options import find_conf
from runner.door.task_context import start
from runner.errors import Diverged
from runner.tasks import diagnose_run

TRAIN = (*MLP, "steps=12", "test=never", "figures=never", "checkpoint_every=4steps")
DIVERGES = (*MLP, "steps=12", "test=never", "figures=never", "optim.lr=1e12")


def left(folder):
    """Return what a training leaves, without its times."""
    return {**result(folder), "seconds": 0}, metrics(folder), checkpoint_checksums(folder)


def diagnosis(folder):
    return json.loads((folder / "diagnosis.json").read_text())


def texts(folder):
    return [value for _, tag, value in events(folder) if tag == "doctor"]


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    folder = tmp_path_factory.mktemp("without") / "run"
    assert start(job(*TRAIN, "doctor=never", f"hydra.run.dir={folder}")) == 0
    return folder


def test_a_run_is_the_same_with_and_without_it(tmp_path, without):
    assert start(job(*TRAIN, f"hydra.run.dir={tmp_path / 'run'}")) == 0
    assert left(tmp_path / "run") == left(without)
    assert not (without / "diagnosis.json").exists() and not texts(without)
    assert diagnosis(tmp_path / "run")["schema"] == 1 and len(texts(tmp_path / "run")) == 1
    never, auto = job(*TRAIN, "doctor=never"), job(*TRAIN)
    assert (never.hash8, never.group_hash) == (auto.hash8, auto.group_hash)
    assert never.folder_name == auto.folder_name


@pytest.mark.parametrize("setting", ["auto", "never"])
def test_a_killed_run_that_resumes_is_the_same_with_and_without_it(tmp_path, without, setting):
    folder = tmp_path / "run"
    assert run_in_child(killed_in_step(7, starter(folder, *TRAIN, f"doctor={setting}"))) == -9
    assert not (folder / "diagnosis.json").exists()
    assert run_in_child(lambda: start(job(f"resume={folder}"))) == 0
    assert left(folder) == left(without)
    assert (folder / "diagnosis.json").exists() == (setting == "auto")


def test_a_diagnosis_that_a_kill_cost_is_made_by_the_next_command(tmp_path):
    folder = tmp_path / "run"
    assert start(job(*TRAIN, f"hydra.run.dir={folder}")) == 0
    before = (folder / "diagnosis.json").read_bytes()
    (folder / "diagnosis.json").unlink()
    assert start(job(f"resume={folder}")) == 0
    assert (folder / "diagnosis.json").read_bytes() == before


def test_a_run_that_diverges_gets_its_diagnosis(tmp_path, capfd):
    folder = tmp_path / "run"
    with pytest.raises(Diverged):
        start(replace(job(*DIVERGES, f"hydra.run.dir={folder}"), folders=find_conf().folders))
    first = diagnosis(folder)["findings"][0]
    assert (first["id"], first["severity"]) == ("nonfinite", "error")
    assert first["evidence"]["steps"] == [3, 3]
    assert first["advice"][0] == ["optim.lr=1e+11"]
    assert "nonfinite" in texts(folder)[0].decode(errors="replace")
    printed = capfd.readouterr().out
    assert "error         nonfinite: Diverged at step 3" in printed
    assert f"task=doctor run={folder}" in printed


def test_a_process_prints_its_findings_before_the_line_of_the_error(tmp_path):
    done = command(*DIVERGES, "name=sick", cwd=tmp_path)
    assert done.returncode == 5
    assert done.stderr.splitlines()[-1].startswith("runner: error: diverged at step 3")
    (tried,) = [line for line in done.stdout.splitlines() if line.startswith("  try")]
    words = shlex.split(tried.partition("-m runner ")[2])
    assert words == [*DIVERGES[:-1], "optim.lr=1e+11"]
    assert len([line for line in done.stdout.splitlines() if not line.startswith(" ")]) <= 4
    # The command is one that trains the run again with the advice
    again = command(*words, "name=next", cwd=tmp_path)
    assert yaml.safe_load((tmp_path / "outputs/next/config.yaml").read_text())["optim"]["lr"] == 1e11
    assert again.returncode in (0, 5)


def test_the_trials_of_a_sweep_are_diagnosed_and_say_nothing(tmp_path):
    done = command("-m", *DIVERGES[:-1], "optim.lr=0.1,1e12", "sweep=both", cwd=tmp_path)
    found = {path.parent.name.partition("-")[0]: diagnosis(path.parent) for path in tmp_path.rglob("diagnosis.json")}
    names = {name: [each["id"] for each in one["findings"]] for name, one in found.items()}
    assert len(names) == 2 and "nonfinite" not in names["lr=0.1"] and "nonfinite" in names["lr=1e+12"]
    assert "nonfinite" not in done.stdout + done.stderr
    assert not [path for path in tmp_path.rglob("trial.log") if "  try" in path.read_text()]


def test_a_run_that_was_interrupted_has_none(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("runner.tasks.train.record_scores", stop)
    with pytest.raises(KeyboardInterrupt):
        start(job(*TRAIN, f"hydra.run.dir={tmp_path / 'run'}"))
    assert not (tmp_path / "run/diagnosis.json").exists()


def test_a_healthy_run_prints_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(diagnose_run, "diagnose", lambda history: [])
    assert start(job(*TRAIN, f"hydra.run.dir={tmp_path / 'run'}")) == 0
    assert "doctor" not in capfd.readouterr().out
    assert diagnosis(tmp_path / "run") == {"schema": 1, "findings": []}


def test_a_failure_of_the_doctor_is_one_line_and_costs_nothing(tmp_path, without, monkeypatch, capfd):
    def broken(history):
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(diagnose_run, "diagnose", broken)
    assert start(job(*TRAIN, f"hydra.run.dir={tmp_path / 'run'}")) == 0
    assert left(tmp_path / "run") == left(without)
    warnings = [line for line in capfd.readouterr().err.splitlines() if "warning" in line]
    assert warnings == ["runner: warning: diagnosis.json: not written (RuntimeError: broken on purpose)"]
