"""Studies: distinct points within the space, none lost or repeated when a process is killed at any moment."""

import itertools
import math
import os
import signal
from pathlib import Path

import pytest
from running import run_in_child

from runner.engine.monitor import Monitor
from runner.errors import ConfigError
from runner.search.ranking import show_ranking
from runner.search.records import RunResult, Search, point_state
from runner.search.samplers import distinct_points
from runner.search.space import Axis, Space
from runner.search.study import Study
from runner.status import Status

LR = Axis(key="lr", kind="float", low=1e-4, high=1.0, log=True)
WIDTH = Axis(key="width", kind="int", low=4, high=64, step=1.0)
OPTIM = Axis(key="optim", kind="choice", choices=("momentum", "adam"))
MOMENTUM = Axis(key="momentum", kind="float", low=0.5, high=0.99, when=("optim", ("momentum",)))
NUMBERS, MIXED = Space((LR, WIDTH)), Space((OPTIM, LR, WIDTH, MOMENTUM))
KNOBS = {"tpe": {"n_startup_trials": 4, "n_ei_candidates": 24}, "gp": {"n_startup_trials": 4}, "cmaes": {}}


def search(space: Space, sampler: str, n_trials: int | None = 12, **changes) -> Search:
    values = {
        "space": space,
        "sampler": {"name": sampler, "seed": 0, **KNOBS.get(sampler, {})},
        "pruner": {"name": "none"},
        "monitor": Monitor("val/loss"),
        "storage": None,
        "study_name": "s",
        "n_trials": n_trials,
        "n_jobs": None,
        "seeds": (0,),
        "max_failure_rate": 1.0,
    }
    return Search(**{**values, **changes})


def bowl(point) -> float:
    """A loss with its least value at lr = 0.1."""
    return (math.log10(float(point["lr"])) + 1) ** 2


def came(value: float, status: str = "done") -> list[RunResult]:
    return [RunResult(folder="f", status=Status(status), score=value)]


def points(study: Study, score=bowl) -> list:
    found = []
    while (asked := study.ask()) is not None:
        study.tell(asked, came(score(asked.point)))
        found.append(asked.point)
    return found


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe", "gp", "cmaes"])
def test_a_sampler_gives_distinct_points_inside_the_space(tmp_path, sampler):
    count = 7 if sampler == "gp" else 12  # which takes a while for each
    found = points(Study(search(NUMBERS, sampler, count), tmp_path))
    assert len({tuple(point.items()) for point in found}) == len(found) == count
    assert all(1e-4 <= point["lr"] <= 1 and point["width"] in range(4, 65) for point in found)
    decades = {math.floor(math.log10(point["lr"])) for point in found}
    assert len(decades & {-4, -3, -2, -1}) >= 3  # all over the axis, on its logarithmic scale


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes"])
def test_a_sampler_that_learns_comes_nearer_to_the_best(tmp_path, sampler):
    count = 10 if sampler == "gp" else 24
    found = [bowl(point) for point in points(Study(search(NUMBERS, sampler, count), tmp_path))]
    late = found[count // 2 :]
    assert min(late) < 0.05
    assert sum(late) / len(late) < sum(found[:4]) / 4


def test_quasi_random_points_leave_no_quarter_of_an_axis_empty():
    found = list(itertools.islice(distinct_points(NUMBERS, {"name": "qmc", "seed": 3}), 8))
    assert sorted(math.floor(math.log10(each["lr"])) for each in found) == [-4, -4, -3, -3, -2, -2, -1, -1]


def test_a_grid_covers_all_and_then_ends(tmp_path):
    space = Space((Axis(key="a", kind="int", low=1, high=3, step=1.0), OPTIM))
    found = points(Study(search(space, "grid", None), tmp_path), lambda point: point["a"])
    assert sorted((each["a"], each["optim"]) for each in found) == sorted(
        itertools.product((1, 2, 3), ("momentum", "adam"))
    )


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_a_small_space_is_tried_once_each_and_then_ends(tmp_path, sampler):
    space = Space((Axis(key="a", kind="int", low=1, high=3, step=1.0), OPTIM))
    found = points(Study(search(space, sampler, 50), tmp_path), lambda point: point["a"])
    assert len(found) == len({tuple(each.items()) for each in found}) == 6


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe"])
def test_an_axis_with_a_condition_is_there_only_then(tmp_path, sampler):
    found = points(Study(search(MIXED, sampler, 16), tmp_path))
    assert all(("momentum" in point) == (point["optim"] == "momentum") for point in found)
    assert {point["optim"] for point in found} == {"momentum", "adam"}


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe", "cmaes"])
def test_a_search_in_parts_has_the_points_of_one_in_one_go(tmp_path, sampler):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = points(Study(search(NUMBERS, sampler, 9), tmp_path / "a"))
    parts = [point for most in (2, 5, 9) for point in points(Study(search(NUMBERS, sampler, most), tmp_path / "b"))]
    assert parts == whole


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe"])
def test_no_point_is_lost_or_repeated_wherever_the_process_is_killed(tmp_path, sampler):
    import optuna  # noqa: F401  (once, for all children)

    (tmp_path / "whole").mkdir()
    whole = points(Study(search(MIXED, sampler, 6), tmp_path / "whole"))
    for records in range(2, 42, 4) if sampler == "tpe" else range(1, 20, 2):
        folder = tmp_path / str(records)
        folder.mkdir()
        assert run_in_child(lambda: killed_after(records, folder, sampler)) in (0, -signal.SIGKILL)  # noqa: B023
        study = Study(search(MIXED, sampler, 6), folder)
        points(study)
        rows = study.rows()
        assert len(rows) == 6 and {row.state for row in rows} == {"complete"}
        if sampler != "tpe":  # which learns from the order in which points ended
            assert sorted(row.words for row in rows) == sorted(map(MIXED.words, whole)), records


def killed_after(records: int, folder: Path, sampler: str) -> None:
    """Search with two points at once, until so many records are in the journal: the next one kills the process."""
    from runner.search import storage

    written = itertools.count()
    append = storage.Journal.append_logs

    def counted(self, logs):
        if next(written) == records:
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, logs)

    storage.Journal.append_logs = counted
    study = Study(search(MIXED, sampler, 6), folder)
    asked = [study.ask()]
    while (other := study.ask()) is not None:
        asked.append(other)
        first = asked.pop(0)
        study.tell(first, came(bowl(first.point)))
    study.tell(asked[0], came(bowl(asked[0].point)))


def test_what_failed_is_tried_again_by_the_next_command_and_counts_once(tmp_path):
    first = Study(search(NUMBERS, "random", 4), tmp_path)
    failed = []
    while (asked := first.ask()) is not None:
        bad = asked.number in (1, 2)
        failed += [asked.point] if bad else []
        state = first.tell(asked, came(math.nan, "failed") if bad else came(1.0))
        assert state == ("fail" if bad else "complete")
    assert [row.state for row in first.rows()] == ["complete", "complete", "fail", "fail"]
    second = Study(search(NUMBERS, "random", 4), tmp_path)
    assert points(second) == failed
    assert [row.state for row in second.rows()] == ["complete"] * 4
    assert points(Study(search(NUMBERS, "random", 4), tmp_path)) == []


def test_the_score_of_a_point_is_the_mean_over_its_seeds(tmp_path):
    study = Study(search(NUMBERS, "random", 1, seeds=(0, 1, 2)), tmp_path)
    study.tell(study.ask(), [RunResult(folder=str(n), status=Status.DONE, score=n / 10) for n in (1, 2, 6)])
    (row,) = study.rows()
    assert row.value == pytest.approx(0.3)
    assert row.scores == [0.1, 0.2, 0.6] and row.folders == ["1", "2", "6"]


@pytest.mark.parametrize(
    ("statuses", "state"),
    [
        (["done", "stopped"], "complete"),
        (["pruned"], "pruned"),
        (["done", "diverged"], "pruned"),
        (["done", "failed"], "fail"),
        (["timeout"], "fail"),
        (["interrupted"], "fail"),
    ],
)
def test_how_the_runs_of_a_point_count(statuses, state):
    assert point_state([RunResult(folder="f", status=Status(each), score=0.5) for each in statuses])[0] == state


def test_a_run_without_a_score_is_a_failure_that_says_so():
    assert point_state(came(math.nan)) == ("fail", "has no score")


def test_a_study_of_other_choices_or_direction_is_refused(tmp_path):
    Study(search(MIXED, "random"), tmp_path).ask()
    other = Space((Axis(key="optim", kind="choice", choices=("sgd", "lion")), LR))
    with pytest.raises(ConfigError, match="'s' exists with other values of optim; choose another name"):
        Study(search(other, "random"), tmp_path)
    with pytest.raises(ConfigError, match="'s' exists with direction minimize; choose another name"):
        Study(search(MIXED, "random", monitor=Monitor("val/accuracy")), tmp_path)


def test_a_study_in_sqlite_goes_on_as_one_in_a_journal(tmp_path):
    url = f"sqlite:///{tmp_path}/x.db"
    first = points(Study(search(MIXED, "random", 3, storage=url), tmp_path))
    second = points(Study(search(MIXED, "random", 6, storage=url), tmp_path))
    assert [*first, *second] == list(itertools.islice(distinct_points(MIXED, {"name": "random", "seed": 0}), 6))


def test_runs_of_another_folder_in_a_shared_storage_are_left_alone(tmp_path):
    url = f"sqlite:///{tmp_path}/x.db"
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    theirs = Study(search(NUMBERS, "random", 4, storage=url), tmp_path / "a").ask()
    ours = Study(search(NUMBERS, "random", 4, storage=url), tmp_path / "b")
    assert theirs.point not in points(ours)
    again = Study(search(NUMBERS, "random", 4, storage=url), tmp_path / "a")
    assert again.ask().point == theirs.point


def test_a_point_that_was_interrupted_is_shown_as_unfinished(tmp_path, capsys):
    asked = search(NUMBERS, "random", n_trials=2)
    study = Study(asked, tmp_path)
    study.ask()
    show_ranking(tmp_path, study.rows(), asked, "val/loss")
    shown = capsys.readouterr().out
    assert "1 point (1 unfinished)" in shown and "running" not in shown
