"""task=doctor on real runs: what it prints and writes, its errors, and runs that follow its advice."""

import contextlib
import html
import json
import os
import shlex
import shutil
from dataclasses import replace

import pytest
import yaml
from running import MLP, job, result

import runner.assemble  # noqa: F401  (once, not in each child)
from runner.door.options import find_conf
from runner.door.task_context import start
from runner.errors import CheckpointError, ConfigError, Diverged

SICK = (*MLP, "steps=12", "test=never", "figures=never", "seed=3", "optim.lr=1e12")


def run(*words):
    return start(replace(job(*words), folders=find_conf().folders))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with a run that diverged and one that did not."""
    made = tmp_path_factory.mktemp("runs")
    with pytest.raises(Diverged):
        run(*SICK, f"hydra.run.dir={made / 'sick'}")
    assert run(*SICK[:-1], "optim.lr=0.01", f"hydra.run.dir={made / 'well'}") == 0
    return made


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_prints_the_findings_and_changes_no_run(place, capfd):
    before = files(place)
    assert run("task=doctor", f"run={place / 'sick'}") == 0
    printed = capfd.readouterr().out
    # The path of the run may be long enough for a second line
    assert "sick, diverged after 2 of 12 steps: 1 error" in " ".join(printed.split())
    assert "error    nonfinite, step 3" in printed
    assert "1   optim.lr=1e+11" in printed
    assert printed.splitlines()[-1] == f"follow it     python -m runner task=doctor run={place / 'sick'} task.apply=1"
    assert files(place) == before


def test_of_several_runs_it_counts_the_symptoms_and_writes_pages(place, tmp_path, capfd):
    before = files(place)
    assert run("task=doctor", f"runs={place}", f"task.out={tmp_path / 'out'}") == 0
    assert "2 runs: " in capfd.readouterr().out
    assert files(place) == before
    record = json.loads((tmp_path / "out/doctor.json").read_text())
    assert record["symptoms"]["nonfinite"] == 1
    assert [each["status"] for each in record["runs"]] == ["diverged", "done"]
    page, text = (tmp_path / "out/doctor.html").read_text(), (tmp_path / "out/doctor.md").read_text()
    again = f"python -m runner {shlex.join(SICK[:-1])} optim.lr=1e+11"
    assert again in text and again in html.unescape(page)
    # Another folder for the next time
    assert run("task=doctor", f"runs={place}", f"task.out={tmp_path / 'out'}") == 0
    assert (tmp_path / "out-2/doctor.html").exists()


def test_advice_is_followed_by_a_run_named_by_the_cause(place, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    given = ("task=doctor", f"run={place / 'sick'}")
    with contextlib.suppress(Diverged):
        run(*given, "task.apply=2")
    made = tmp_path / "outputs/sick-nonfinite"
    config, old = (yaml.safe_load((folder / "config.yaml").read_text()) for folder in (made, place / "sick"))
    differ = {key for key in config if config[key] != old[key]}
    assert differ <= {"clip", "name", "note"} and config["clip"] == 1.0
    assert config["task"] == {"name": "train"} and config["note"] == "nonfinite in sick: clip=1.0"
    words = yaml.safe_load((made / "overrides.yaml").read_text())
    # The saved words make the same config
    again = job(*words, f"note='{config['note']}'").config
    assert {key: again[key] for key in again if again[key] != config[key]} == {}


def test_the_command_it_prints_trains_and_resumes(place, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    rate = 1e12
    folder = place / "sick"
    for _ in range(20):
        run("task=doctor", f"run={folder}")
        command = capfd.readouterr().out.splitlines()[-1]
        words = shlex.split(command.partition("-m runner ")[2])
        try:
            assert run(*words) == 0
            break
        except Diverged:
            rate /= 10
            folder = max((tmp_path / "outputs").glob("sick*"), key=os.path.getmtime)
    else:
        raise AssertionError("a tenth of the rate, again and again, ends in a rate that trains")
    made = max((tmp_path / "outputs").glob("sick*"), key=os.path.getmtime)
    assert result(made)["status"] == "done"
    assert run(f"resume={made}") == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["run={}/missing"], "run: no run found for"),
        (["run={}"], "run: got '{}', which holds 2 runs"),
        (["run={}/sick", "runs={}"], "run: got '{}/sick' beside runs="),
        (["runs={}/none"], "runs: no run found for"),
        (["runs={}", "task.apply=1"], "task.apply: got 1; requires run="),
        (["run={}/sick", "task.apply=9"], "task.apply: got 9; expected a number from 1 to "),
        (["run={}/sick", "task.apply=1", "optim.lr=3"], "optim.lr: cannot be changed with run="),
    ],
)
def test_errors_are_one_line(place, words, text):
    with pytest.raises(ConfigError) as caught:
        run("task=doctor", *(word.format(place) for word in words))
    assert str(caught.value).startswith(text.format(place))
    assert "\n" not in str(caught.value)


def test_a_run_without_advice_has_none_to_follow(place, monkeypatch):
    monkeypatch.setattr("runner.doctor.checkup.diagnose", lambda history: [])
    with pytest.raises(ConfigError, match=r"task\.apply: got 1; expected none, because there is no advice"):
        run("task=doctor", f"run={place / 'well'}", "task.apply=1")


def test_a_folder_without_numbers_is_one_line(place, tmp_path):
    shutil.copytree(place / "well", tmp_path / "well")
    (tmp_path / "well/metrics.jsonl").unlink()
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: there is none"):
        run("task=doctor", f"run={tmp_path / 'well'}")
