"""Several objectives of a search: the study's values, samplers, kill and resume, the front, and what is refused."""

import csv
import itertools
import json
import math
import os
from pathlib import Path

import pytest
from running import run_in_child
from test_search_run import SEARCH, began, kill_when, runs
from test_study import MIXED, NUMBERS, bowl, came, search

import runner
from runner.__main__ import main
from runner.errors import ConfigError
from runner.search.study import Study

FOLDER = Path("outputs/sweeps/s")
TWO = {"objectives": (("width", True),)}
WORDS = [*SEARCH, "optim.lr=tag(log,interval(1e-3,1))", "hydra.launcher.workers=2"]
COSTS = "hydra.sweeper.objectives=[val/accuracy,val/loss,steps]"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def search_on(study: Study, most: int = 99) -> list:
    """Search until the end or for so many points; the second objective is the width, of which more is better."""
    found = []
    while len(found) < most and (asked := study.ask()) is not None:
        study.tell(asked, came(bowl(asked.point)), [float(asked.point["width"])])
        found.append(asked.point)
    return found


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe"])
def test_each_point_has_a_value_of_each_objective_in_its_direction(tmp_path, sampler):
    found = search_on(Study(search(MIXED, sampler, 14, **TWO), tmp_path))
    copy = runner.study(tmp_path)
    assert [each.name for each in copy.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert [each.values for each in copy.trials] == [[bowl(point), float(point["width"])] for point in found]
    # Optuna's own front, against that of all pairs
    points = [tuple(each.values) for each in copy.trials]
    beaten = {b for a, b in itertools.permutations(points, 2) if a != b and a[0] <= b[0] and a[1] >= b[1]}
    assert {tuple(each.values) for each in copy.best_trials} == set(points) - beaten
    rows = Study(search(MIXED, sampler, 14, **TWO), tmp_path).rows()
    assert [row.value for row in rows] == sorted(map(bowl, found))
    assert all(row.values == (row.value, float(dict(row.words)["width"])) for row in rows)


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_a_sampler_that_learns_goes_for_all_objectives(tmp_path, sampler):
    """The best rate is 0.1 and the best width 64, and neither is in the way of the other: a point has both."""
    count = 8 if sampler == "gp" else 30
    found = search_on(Study(search(NUMBERS, sampler, count, **TWO), tmp_path))
    # A random point is as good in both with a probability of 1 %
    assert [each for each in found[4:] if bowl(each) < 0.1 and each["width"] > 60]
    assert not [each for each in found[:4] if bowl(each) < 0.1 and each["width"] > 60]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_killed_search_goes_on_as_if_nothing_had_been(tmp_path, sampler):
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = search_on(Study(search(MIXED, sampler, 12, **TWO), tmp_path / "whole"))

    def killed():
        study = Study(search(MIXED, sampler, 12, **TWO), tmp_path / "parts")
        search_on(study, 7)
        study.ask()
        os._exit(0)

    run_in_child(killed)
    rest = search_on(Study(search(MIXED, sampler, 12, **TWO), tmp_path / "parts"))
    assert rest == whole[7:]


def test_a_diverged_point_and_one_without_a_value_have_none(tmp_path):
    study = Study(search(NUMBERS, "tpe", 9, **TWO), tmp_path)
    assert study.tell(study.ask(), came(math.nan, "diverged")) == "pruned"
    assert study.tell(study.ask(), came(1.0), [math.nan]) == "fail"
    search_on(study)
    rows = study.rows()
    assert [row.state for row in rows[-2:]] == ["diverged", "fail"] and not rows[-1].values
    assert rows[-1].reason == "lacks a value of hydra.sweeper.objectives"


def test_another_number_of_objectives_or_other_ones_are_another_study(tmp_path):
    Study(search(NUMBERS, "random", **TWO), tmp_path)
    with pytest.raises(ConfigError, match=r"'s' exists with 2 scores \(here 1\)"):
        Study(search(NUMBERS, "random"), tmp_path)
    with pytest.raises(ConfigError, match="'s' exists with direction minimize, maximize"):
        Study(search(NUMBERS, "random", objectives=(("width", False),)), tmp_path)
    with pytest.raises(ConfigError, match="'s' exists with objectives="):
        Study(search(NUMBERS, "random", objectives=(("steps", True),)), tmp_path)


def test_the_command_writes_the_front_of_what_the_runs_have(capfd):
    words = [*WORDS, COSTS, "epochs=1,2", "hydra.sweeper.n_trials=5", "hydra.sweeper.seeds=2"]
    words.remove("epochs=1")
    assert main(words) == 0
    with (FOLDER / "pareto.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = [each for each in runs().values() if each["status"] == "done"]
    assert len(found) == 10 and len(rows) == 5
    best = [each["scores"]["val"]["best"] for each in found]
    for tag in ("accuracy", "loss"):
        assert sum(float(row[f"val/{tag}"]) for row in rows) == pytest.approx(sum(each[tag] for each in best) / 2)
    assert sum(float(row["steps"]) for row in rows) == sum(each["steps"] for each in found) / 2
    points = [(-float(r["val/accuracy"]), float(r["val/loss"]), float(r["steps"])) for r in rows]
    beaten = [any(o != p and all(a <= b for a, b in zip(o, p, strict=True)) for o in points) for p in points]
    assert [row["on_front"] == "False" for row in rows] == beaten
    out = capfd.readouterr().out
    assert f"(smaller): {beaten.count(False)} of 5 configurations" in out
    assert (FOLDER / "pareto.svg").read_bytes().startswith((b"<?xml", b"<svg"))
    before = began()
    assert main(words) == 0
    assert began() == before


@pytest.mark.slow
def test_a_search_that_is_killed_makes_the_trainings_of_one_that_is_not():
    words = [*WORDS, COSTS, "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=8"]
    words.remove("sweep=s")
    assert main([*words, "sweep=whole"]) == 0
    kill_when(2, FOLDER, [*words, "sweep=s"])
    assert main([f"resume={FOLDER}"]) == 0
    whole = Path("outputs/sweeps/whole")
    assert {json.dumps(each["scores"]) for each in runs().values()} == {
        json.dumps(each["scores"]) for each in runs(whole).values()
    }
    assert (FOLDER / "pareto.csv").read_text() == (whole / "pareto.csv").read_text()


ASKED = ["hydra.sweeper.objectives=[val/accuracy,seconds]"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*ASKED, "hydra/sweeper/pruner=asha"], "asha prunes by one score; use hydra/sweeper/pruner=none"),
        ([*ASKED, "hydra/sweeper/sampler=cmaes"], "cmaes goes by one score; use hydra/sweeper/sampler=tpe, gp, qmc"),
        ([*ASKED, "hydra/sweeper=refine"], "unknown key 'objectives' (choose from: "),
        ([*ASKED, "monitor=val/loss"], "got ['val/accuracy', 'seconds'], must begin with the monitor, val/loss"),
        (["hydra.sweeper.objectives=[val/accuracy]"], "got ['val/accuracy'], must be two different ones or more"),
        (["hydra.sweeper.objectives=seconds"], "got seconds, must be a list such as [val/accuracy,seconds]"),
        (["hydra.sweeper.objectives=[val/accuracy,second]"], "unknown objective 'second'; did you mean 'seconds'?"),
        (
            ["hydra.sweeper.objectives=[val/accuracy,val/f1_macro]"],
            "got 'val/f1_macro', which no validation logs; add metric=[f1_macro]",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(words, message, capfd):
    own = [word for word in WORDS if word.partition("=")[0] not in {each.partition("=")[0] for each in words}]
    assert main([*own, *words]) == 2
    error = capfd.readouterr().err
    assert error.startswith(f"runner: error: hydra.sweeper.objectives: {message}") and error.count("\n") == 1
    assert not FOLDER.exists()
