"""task=refine and the whole protocol in real runs: what they leave, and that a kill repeats nothing."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from finished import finished_runs
from running import ROOT, command

MLP = ("model=mlp", "model.hidden=[32]", "augment=[]", "probe=[grad_norm]", "device=cpu", "optim=momentum")
REFINE = ("task=refine", *MLP, "optim.lr=0.1", "name=r", "task.epochs=1", "task.points=3", "task.seeds=1",
          "task.confirm_seeds=2")  # fmt: skip
SEARCHES = ("task=protocol", *MLP, "name=p", "optim.lr=0.1", "task.steps=[4,5]",
            "task.coarse={epochs: 1, lr_factors: [0.3, 1.0], weight_decays: [0.0, 0.001]}",
            "task.refine={epochs: 1, points: 3, seeds: 1, confirm_seeds: 2}")  # fmt: skip


def result(folder: Path, step: str = "05_refine"):
    return json.loads((folder / step / "result.json").read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A refining search around the config, made once."""
    place = tmp_path_factory.mktemp("refine")
    done = command(*REFINE, cwd=place)
    assert done.returncode == 0, done.stderr
    return place / "outputs" / "r", done


def test_what_a_refining_search_leaves(made):
    folder, done = made
    found = result(folder)
    rows = list(csv.DictReader((folder / "05_refine" / "trials.csv").read_text().splitlines()))
    # Three points, and two fresh seeds of one or two of them
    assert found["trainings"] == len(rows) in (5, 7)
    assert [row["stage"] for row in rows[:3]] == ["round 1"] * 3 and {row["stage"] for row in rows[3:5]} == {"winner"}
    assert (float(rows[0]["optim.lr"]), float(rows[0]["optim.weight_decay"])) == (0.1, 0.0005)
    assert {row["seed"] for row in rows[:3]} == {"0"} and {row["seed"] for row in rows[3:]} == {"1", "2"}
    kept = [row for row in rows[3:] if float(row["optim.lr"]) == found["handoff"]["optim.lr"]]
    assert len(kept) == 2 and [row["run"] for row in kept] == found["facts"]["curves"]["winner"]
    assert (folder / "05_refine" / "axes.svg").exists() and (folder / "refine.png").exists()
    recipe = (folder / "conf" / "recipe" / "found-r.yaml").read_text()
    sure = found["measurements"]["sure"]
    assert sure in done.stdout and sure.split(":")[0] in recipe and "fresh seeds" in recipe
    assert yaml.safe_load(recipe)["optim"]["weight_decay"] == found["handoff"]["optim.weight_decay"]


def test_only_the_runs_of_the_winner_have_the_probes_and_none_a_schedule(made):
    folder, _ = made
    configs = {
        path.parent.name: yaml.safe_load(path.read_text()) for path in folder.glob("05_refine/runs-*/*/config.yaml")
    }
    assert {each["scheduler"]["name"] for each in configs.values()} == {"constant"}
    probed = {each["seed"] for each in configs.values() if each["probe"]}
    assert probed == {1, 2} and sum(bool(each["probe"]) for each in configs.values()) == 2
    results = [json.loads(path.read_text()) for path in folder.glob("05_refine/runs-*/*/result.json")]
    assert {each["test_reads"] for each in results} == {0}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["task=refine", "task.points=2"], "task.points: got 2"),
        (["task=refine", "task.confirm_seeds=1"], "task.confirm_seeds: got 1"),
        (["task=protocol", "task.refine={points: 2}"], "task.refine.points: got 2"),
        (["task=protocol", "task.coarse={epochs: 9}"], "task.coarse.epochs: got 9"),
    ],
)
def test_what_is_refused_is_one_line_and_leaves_nothing(words, line, tmp_path):
    done = command(*MLP, "name=p", *words, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert line in done.stderr and not (tmp_path / "outputs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("after", [2, 6])
def test_a_kill_in_step_4_or_5_loses_nothing_and_repeats_nothing(after, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    done = command(*SEARCHES, cwd=whole)
    assert done.returncode == 0, done.stderr
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    child = subprocess.Popen(
        [sys.executable, "-m", "runner", *SEARCHES, "hydra.launcher.workers=1"], cwd=killed, env=environment,
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while len(finished_runs(killed)) < after:
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    before = finished_runs(killed)
    done = command(*SEARCHES, cwd=killed)
    assert done.returncode == 0, done.stderr
    assert {path: stamp for path, stamp in finished_runs(killed).items() if path in before} == before
    for step in ("04_coarse", "05_refine"):
        one, other = (result(place / "outputs" / "p", step) for place in (whole, killed))
        assert one["criteria"] == other["criteria"] and one["key"] == other["key"]
        assert one["measurements"] == other["measurements"] and one["trainings"] == other["trainings"]


@pytest.mark.slow
def test_a_second_round_is_in_other_ranges(tmp_path):
    done = command(*REFINE, "task.rounds=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    notes = result(tmp_path / "outputs" / "r")["measurements"]["rounds"]
    assert [note.split(":")[0] for note in notes] == ["round 1", "round 2"]
    assert notes[0].partition("points, ")[2] != notes[1].partition("points, ")[2]
