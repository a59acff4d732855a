"""task=coarse in real runs: what it leaves, its gate, its extension, and its place in the protocol."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import sick_parts
import yaml
from running import command

MLP = ("model=mlp", "model.hidden=[32]", "augment=[]", "probe=[]", "device=cpu", "optim=momentum")
FEW = ("task.lr_factors=[0.333,1.0]", "task.weight_decays=[0.0]", "task.epochs=1")
GRID = ("task.lr_factors=[0.1,0.333,1.0,3.0]", "task.weight_decays=[0.0,0.1]", "task.epochs=1")
COARSE = ("task=coarse", *MLP, "optim.lr=0.3", "name=c")


def result(folder: Path):
    return json.loads((folder / "04_coarse" / "result.json").read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small grid, searched once."""
    place = tmp_path_factory.mktemp("coarse")
    done = command(*COARSE, *GRID, "task.metric=val/accuracy", cwd=place)
    assert done.returncode == 0, done.stderr
    return place / "outputs" / "c", done


def test_what_a_coarse_search_leaves(made):
    folder, done = made
    found = result(folder)
    rows = list(csv.DictReader((folder / "04_coarse" / "trials.csv").read_text().splitlines()))
    assert found["trainings"] == len(rows) >= 8
    assert {row["outcome"] for row in rows} == {"done"} and all((folder / row["run"]).is_dir() for row in rows)
    # The mean of the validations in the middle and at the end, recomputed from the run's own log
    best = max(rows, key=lambda row: (float(row["val/accuracy"]), -float(row["nll"]), -float(row["optim.lr"])))
    log = [json.loads(line) for line in (folder / best["run"] / "metrics.jsonl").read_text().splitlines()]
    scored = [row["val/accuracy"] for row in log if "val/accuracy" in row]
    assert len(scored) == 2 and sum(scored) / 2 == pytest.approx(float(best["val/accuracy"]), abs=1e-5)
    assert found["handoff"] == {key: float(best[key]) for key in ("optim.lr", "optim.weight_decay")}
    candidates = found["facts"]["candidates"]
    assert candidates[0] == found["handoff"] and len(candidates) == 3
    for name in ("axes.svg", "isolation.svg"):
        assert (folder / "04_coarse" / name).read_text().strip().endswith(("</svg>", "/>"))
    assert (folder / "coarse.png").stat().st_size > 0
    recipe = (folder / "conf" / "recipe" / "found-c.yaml").read_text()
    assert "# How sure: best of" in recipe
    assert yaml.safe_load(recipe)["optim"]["weight_decay"] == found["handoff"]["optim.weight_decay"]
    assert "test split was not read" in done.stdout and "How sure: best of" in done.stdout


def test_the_trainings_have_no_schedule_and_read_no_test_split(made):
    folder, _ = made
    configs = [yaml.safe_load(path.read_text()) for path in folder.glob("04_coarse/runs-*/*/config.yaml")]
    assert {each["scheduler"]["name"] for each in configs} == {"constant"}
    assert {each["epochs"] for each in configs} == {1} and {each["seed"] for each in configs} == {0}
    results = [json.loads(path.read_text()) for path in folder.glob("04_coarse/runs-*/*/result.json")]
    assert {each["test_reads"] for each in results} == {0}


def test_a_repetition_trains_nothing(made):
    folder, first = made
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("04_coarse/**/result.json")}
    done = command("resume=outputs/c", cwd=folder.parent.parent)
    assert done.returncode == 0 and "step 4 coarse: pass, from the earlier command" in done.stderr.replace(
        "warn", "pass"
    )
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert done.stdout.split("saved in")[0] == first.stdout.split("saved in")[0]


def test_a_grid_is_extended_towards_its_best_edge_and_then_warns(tmp_path):
    words = ("task.lr_factors=[1.0]", "task.weight_decays=[0.0]", "task.epochs=1", "figures=never")
    done = command("task=coarse", *MLP, "optim.lr=0.0001", "name=c", *words, cwd=tmp_path)
    found = result(tmp_path / "outputs" / "c")
    # 1e-4 is lowest and highest; both ends move at first, and only the upper one is better
    assert found["measurements"]["lrs"] == pytest.approx([3.33e-5, 1e-4, 3e-4, 9e-4]), done.stderr
    assert found["measurements"]["extended"] == 2 and found["trainings"] == 4
    levels = {each["name"]: each for each in found["criteria"]}
    assert levels["inside the range"]["level"] == "warn"
    assert "on an edge (highest optim.lr" in levels["inside the range"]["why"]


@pytest.mark.slow
def test_validation_labels_that_do_not_belong_to_their_images_fail_and_hand_on_nothing(tmp_path):
    sick_parts.write(tmp_path)
    path = tmp_path / "sick_parts.py"
    path.write_text(path.read_text().replace("data.train.labels[:60]])", "data.train.labels[:60]]).roll(1)"))
    words = ("task=coarse", *sick_parts.GIVEN, "model=sick", "data=leaky", *FEW)
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        "runner: error: coarse failed: beats the most frequent class: no training predicts validation examples"
    )
    assert result(tmp_path / "outputs" / "s")["handoff"] == {}
    assert not (tmp_path / "outputs" / "s" / "conf").exists()


@pytest.mark.slow
def test_a_search_whose_trainings_diverge_fails(tmp_path):
    done = command("task=coarse", *MLP, "optim.lr=1e30", "name=c", *FEW, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    found = result(tmp_path / "outputs" / "c")
    assert found["headline"] == "all 2 trainings diverged" and found["handoff"] == {}


@pytest.mark.slow
def test_step_4_is_around_the_rate_of_step_3_and_within_the_budget(tmp_path):
    few = ("task.find_lr={iters: 25, seeds: 1, lrs: [0.01, 0.05]}", "task.coarse={epochs: 1, mode: qmc, points: 8}")
    words = ("task=protocol", *MLP, *few, "task.steps=[3,4]")
    done = command(*words, "task.budget=7 trainings", "name=p", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "outputs" / "p"
    found = result(folder)
    # Two of step 3, and five of the eight points
    assert found["trainings"] == 5
    center = json.loads((folder / "03_find_lr" / "result.json").read_text())["handoff"]["optim.lr"]
    assert found["measurements"]["lrs"][-1] <= 3 * center and found["measurements"]["lrs"][0] < center / 9
    assert yaml.safe_load((folder / "handoff.yaml").read_text())[0] == f"optim.lr={found['handoff']['optim.lr']}"
    done = command(*words, "task.budget=5 trainings", "name=q", cwd=tmp_path)
    assert "step 4 coarse: not begun, it needs 4 trainings, of which the budget has 3 left" in done.stdout


@pytest.mark.slow
def test_quasi_random_points_are_as_many_as_asked_for(tmp_path):
    done = command(*COARSE, *GRID, "task.mode=qmc", "task.points=5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = result(tmp_path / "outputs" / "c")
    assert (
        found["trainings"] == 5 and len({each["values"]["optim.lr"] for each in found["measurements"]["trials"]}) == 5
    )
