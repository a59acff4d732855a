"""Several objectives: the front against brute force, directions of scores and costs, and the whole report."""

import csv
import itertools
import math
import random
from pathlib import Path

import pytest
from comparing_runs import write_run
from running import command

from runner.comparing.front_tables import draw_front
from runner.comparing.groups import group_runs
from runner.comparing.pareto import Front, Objective, find_front, not_dominated, read_objectives
from runner.comparing.runs import find_runs
from runner.errors import ConfigError


def brute_force(points):
    """Return the places of the points that no other one dominates, by the definition."""
    valid = [n for n, point in enumerate(points) if not any(x != x for x in point)]

    def dominates(a, b):
        return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))

    return {n for n in valid if not any(dominates(points[m], points[n]) for m in valid)}


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_the_front_is_that_of_brute_force(size):
    draw = random.Random(size)
    for _ in range(150):
        # Few different values, so that many points are equal in one objective or in all
        values = [0.0, 1.0, 2.0, 3.0, *([math.nan] if draw.random() < 0.3 else []), math.inf]
        points = [tuple(draw.choice(values) for _ in range(size)) for _ in range(draw.randint(0, 30))]
        assert not_dominated(points) == brute_force(points)
    lonely = [(float(n), -float(n)) for n in range(50)]
    assert not_dominated(lonely) == set(range(50))


def test_each_objective_has_its_own_direction():
    names = ["val/accuracy", "val/nll", "val/loss", "seconds", "steps", "time/examples_per_second", "time/step_ms"]
    found = {each.name: each.larger_is_better for each in read_objectives(names)}
    assert found == dict.fromkeys(names, False) | {"val/accuracy": True, "time/examples_per_second": True}
    assert read_objectives([]) == ()


@pytest.fixture
def runs(tmp_path):
    """Write four rates with two seeds: accurate and memory as listed; the last one is dominated by the second."""
    for name, accuracy, seed in itertools.product("abcd", (0.5, 0.7), (0, 1)):
        if (accuracy == 0.5) == (seed == 0):
            place = "abcd".index(name)
            write_run(
                tmp_path / "runs" / f"{name}{seed}", accuracy + place / 10 - 0.3 * (name == "d"), seed=seed,
                loss=0.1 * (place + 1) + (name == "d"), optim__lr=10.0 ** -place,
            )  # fmt: skip
    return tmp_path / "runs"


def test_means_over_seeds_are_compared_and_the_front_comes_first(runs):
    found = find_runs([str(runs)]).runs
    front = find_front(group_runs(found), read_objectives(["val/accuracy", "val/loss"]), "last", found)
    # Mean accuracies .6, .7, .8, .6 and losses .1, .2, .3, 1.4
    assert front.size == 3
    assert front.labels == ("optim.lr=0.01", "optim.lr=0.1", "optim.lr=1", "optim.lr=0.001")
    expected = [(0.8, 0.3), (0.7, 0.2), (0.6, 0.1), (0.6, 1.4)]
    assert [pytest.approx(each) for each in expected] == list(front.values)


def test_the_picture_has_all_configurations_and_numbers_those_on_the_front():
    objectives = (Objective("val/accuracy", True), Objective("seconds", False), Objective("steps", False))
    front = Front(objectives, ("a", "b", "c"), ((0.9, 5.0, 7.0), (0.8, 2.0, 7.0), (0.7, 3.0, 8.0)), 2)
    seconds, steps = draw_front(front).make().axes
    assert [tuple(each) for each in seconds.lines[0].get_xydata()] == [(5.0, 0.9), (2.0, 0.8), (3.0, 0.7)]
    assert [tuple(each) for each in seconds.lines[1].get_xydata()] == [(2.0, 0.8), (5.0, 0.9)]
    assert {each.get_text(): each.xy for each in seconds.texts} == {"1": (5.0, 0.9), "2": (2.0, 0.8)}
    assert (seconds.get_xlabel(), steps.get_xlabel(), steps.get_ylabel()) == ("seconds", "steps", "val/accuracy")


def test_the_whole_comparison(runs, tmp_path):
    words = ("task=compare", "runs=runs", "task.out=out")
    done = command(*words, "task.objectives=[val/accuracy,val/loss]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = "Pareto front of val/accuracy (larger), val/loss (smaller): 3 of 4 configurations"
    assert said in " ".join(done.stdout.split())
    with Path(tmp_path / "out" / "pareto.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["on_front"] for row in rows] == ["True", "True", "True", "False"]
    assert [float(row["val/accuracy"]) for row in rows] == pytest.approx([0.8, 0.7, 0.6, 0.6])
    for page in ("comparison.md", "comparison.html"):
        text = (tmp_path / "out" / page).read_text()
        assert "Configurations on the Pareto front" in text
    assert "<svg" in (tmp_path / "out" / "pareto.svg").read_text()
    plain = command("task=compare", "runs=runs", "task.out=plain", cwd=tmp_path)
    assert "Pareto" not in plain.stdout and not (tmp_path / "plain" / "pareto.csv").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["val/accuracy"], "task.objectives: got ['val/accuracy'], must be two different ones or more"),
        (["seconds", "seconds"], "task.objectives: got ['seconds', 'seconds'], must be two different ones or more"),
        (["val/accuracy", "second"], "task.objectives: unknown objective 'second'; did you mean 'seconds'?"),
        (["val/accuracy", "test/accuracy"], "task.objectives: unknown objective 'test/accuracy'"),
        (["val/accuracy", "val/acuracy"], "task.objectives: got 'val/acuracy', but runner registers no metric"),
        (["val/accuracy", "val/ece"], "task.objectives: got 'val/ece', which no complete run has"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(runs, names, message):
    found = find_runs([str(runs)]).runs
    with pytest.raises(ConfigError) as caught:
        find_front(group_runs(found), read_objectives(names), "last", found)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
