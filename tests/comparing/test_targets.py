"""Steps and seconds to a target, medians of the fastest of five, and performance profiles, against simulated runs."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparing_runs import write_run
from running import command

from runner.comparing.groups import group_runs
from runner.comparing.runs import Run, find_runs
from runner.comparing.studies import MAX_FACTOR, Entry, Race, run_race, share_within, studies_of
from runner.comparing.study_tables import profiles_table, times_csv, times_table
from runner.comparing.targets import NEVER, Arrival, Target, arrival, read_target
from runner.engine.monitor import Monitor
from runner.errors import ConfigError

ACCURACY = Target(Monitor("val/accuracy"), 0.9)


def write(folder: Path, rows: list[dict[str, float]], **changes: Any) -> Run:
    """Write a run with these logged rows and return it."""
    write_run(folder, 0.5, curve=False, **changes)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return find_runs([str(folder)]).runs[0]


def arriving(folder: Path, step: float, *, ms: float = 10.0, **changes: Any) -> Run:
    """Write a run of 100 steps that validates at each tenth step and reaches 0.95 at one of them."""
    rows = []
    for at in range(10, 101, 10):
        scores = {"val/accuracy": 0.95, "val/loss": 0.05} if at >= step else {"val/accuracy": 0.5, "val/loss": 0.5}
        rows.append({"step": at, **scores, "time/step_ms": ms})
    return write(folder, rows, **changes)


def csv_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    return list(csv.DictReader(path.read_text().splitlines()))


def race_of(times: dict[str, dict[str, list[float]]], per_study: int = 1) -> Race:
    """Return a race of settings on workloads with known times, in steps; seconds are half of them."""
    entries = []
    for setting, places in times.items():
        for workload, found in places.items():
            arrivals = tuple(Arrival(time, time / 2) for time in found)
            studies = studies_of(arrivals, per_study)
            entries.append(Entry(setting=setting, workload=workload, arrivals=arrivals, studies=studies))
    return Race(target=ACCURACY, per_study=per_study, entries=tuple(entries), arrivals={})


def test_seconds_are_those_of_the_steps_so_far(tmp_path: Path) -> None:
    """10 steps of 2 ms, 20 of 3 ms, and 5 of the next ten at 8 ms: 0.02 + 0.06 + 0.04 s."""
    rows = [
        {"step": 10, "time/step_ms": 2.0, "val/accuracy": 0.2},
        {"step": 30, "time/step_ms": 3.0, "val/accuracy": 0.899},
        {"step": 35, "val/accuracy": 0.9},
        {"step": 40, "time/step_ms": 8.0, "val/accuracy": 0.3},
    ]
    found = arrival(write(tmp_path / "run", rows), ACCURACY)
    assert (found.steps, found.seconds) == (35, pytest.approx(0.12))


def test_after_the_last_time_the_last_pace_counts(tmp_path: Path) -> None:
    rows = [{"step": 10, "time/step_ms": 2.0}, {"step": 20, "time/step_ms": 4.0}, {"step": 25, "val/accuracy": 1.0}]
    assert arrival(write(tmp_path / "run", rows), ACCURACY).seconds == pytest.approx(0.02 + 0.04 + 0.02)


def test_without_times_the_share_of_the_duration_counts(tmp_path: Path) -> None:
    """The result says 20 steps in 1.5 s; 5 steps are a quarter."""
    run = write(tmp_path / "run", [{"step": 5, "val/accuracy": 0.95}])
    assert arrival(run, ACCURACY) == Arrival(5, pytest.approx(0.375))


@pytest.mark.parametrize("values", [[0.1, 0.899999], [math.nan, math.nan], []])
def test_a_run_that_never_arrives_is_infinite(tmp_path: Path, values: list[float]) -> None:
    rows = [{"step": 10 * (i + 1), "val/accuracy": value} for i, value in enumerate(values)]
    assert arrival(write(tmp_path / "run", rows), ACCURACY) == NEVER == Arrival(math.inf, math.inf)


def test_a_run_that_failed_later_has_arrived(tmp_path: Path) -> None:
    rows = [{"step": 10, "val/accuracy": 0.95, "time/step_ms": 1.0}, {"step": 20, "val/accuracy": 0.1}]
    run = write(tmp_path / "run", rows, status="diverged", reason="diverged at step 30: loss is nan")
    assert arrival(run, ACCURACY) == Arrival(10, pytest.approx(0.01))


def test_a_smaller_loss_is_better(tmp_path: Path) -> None:
    losses = {10: 0.2, 20: 0.1, 30: 0.05}
    run = write(tmp_path / "run", [{"step": step, "val/loss": loss} for step, loss in losses.items()])
    target = read_target("val/loss<=0.1", [run])
    assert str(target) == "val/loss <= 0.1" and arrival(run, target).steps == 20
    assert read_target(" val/loss <= 1e-1 ", [run]) == target


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("val/accuracy", "task.until: got 'val/accuracy', must be a score, >= or <=, and a number, as in"),
        ("val/accuracy>0.9", "must be a score, >= or <=, and a number"),
        ("val/accuracy>=high", "must be a score, >= or <=, and a number"),
        ("val/accuracy>=nan", "must be a score, >= or <=, and a number"),
        ("val/accuracy>=inf", "must be a score, >= or <=, and a number"),
        ("", "must be a score, >= or <=, and a number"),
        ("val/acuracy>=0.9", "task.until: unknown score 'val/acuracy'; did you mean 'val/accuracy'?"),
        ("val/accuracy<=0.9", "must be val/accuracy>=0.9: a larger val/accuracy is better"),
        ("val/loss>=0.9", "must be val/loss<=0.9: a smaller val/loss is better"),
        ("val/accuracy>=90", "must be an accuracy between 0 and 1"),
    ],
)
def test_a_bad_expression_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    run = arriving(tmp_path / "run", 50)
    with pytest.raises(ConfigError) as error:
        read_target(text, [run])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_the_median_over_studies_of_the_fastest_of_five(tmp_path: Path) -> None:
    """Fifteen seeds with times of numpy: the seeds 0 to 4 are the first study."""
    random = np.random.default_rng(0)
    times = random.choice(np.arange(10, 101, 10), size=15)
    times[[1, 7]] = 1000  # beyond the end of the run
    for seed, step in enumerate(times):
        arriving(tmp_path / f"r{seed}", step, ms=float(seed + 1), seed=seed)
    groups = group_runs(find_runs([str(tmp_path)]).runs)
    entry = run_race(groups, ACCURACY, 5, [], []).entries[0]
    steps = np.where(times > 100, np.inf, times)
    assert entry.fastest("steps") == steps.reshape(3, 5).min(axis=1).tolist()
    assert entry.time("steps") == np.median(steps.reshape(3, 5).min(axis=1))
    seconds = (steps * np.arange(1, 16) / 1000).reshape(3, 5).min(axis=1)
    assert entry.time("seconds") == pytest.approx(np.median(seconds))
    assert entry.left_out == 0


def test_trials_of_no_complete_study_are_left_out() -> None:
    arrivals = [Arrival(float(time), 0.0) for time in (5, 4, 3, 2, 1)]
    assert studies_of(arrivals, 2) == (tuple(arrivals[:2]), tuple(arrivals[2:4]))
    assert studies_of(arrivals, 7) == (tuple(arrivals),)
    assert race_of({"a": {"": [5, 4, 3, 2, 1]}}, 2).entries[0].left_out == 1


@pytest.mark.parametrize(("times", "median"), [([3, math.inf, 5], 5), ([math.inf, math.inf, 1], math.inf), ([2, 4], 3)])
def test_a_study_that_never_arrives_is_the_slowest(times: list[float], median: float) -> None:
    assert race_of({"a": {"": times}}).entries[0].time("steps") == median


def test_profiles_are_the_area_of_the_shares() -> None:
    """Against the integral of the profile on a fine grid, for random times with ties and infinite ones."""
    random = np.random.default_rng(1)
    times = random.integers(1, 12, size=(4, 6)).astype(float)
    times[random.random(times.shape) < 0.2] = math.inf
    times[:, 5] = math.inf  # nobody arrives on the last workload
    race = race_of({f"s{i}": {f"w{j}": [time] for j, time in enumerate(row)} for i, row in enumerate(times)})
    with np.errstate(invalid="ignore"):
        ratios = np.nan_to_num(times / times.min(axis=0), nan=np.inf)
    grid = np.linspace(1, MAX_FACTOR, 300_001)
    for number, area in enumerate(race.profiles("steps").values()):
        shares = (ratios[number][:, None] <= grid).mean(axis=0)
        assert area == pytest.approx(np.trapezoid(shares, grid) / (MAX_FACTOR - 1), abs=1e-5)
        assert share_within(race.factors("steps")[f"s{number}"], 2.0) == pytest.approx(shares[100_000])


def test_ties_are_both_the_best_and_a_missing_workload_is_infinite() -> None:
    race = race_of({"a": {"x": [10], "y": [5]}, "b": {"x": [10], "y": [20]}, "c": {"x": [41]}})
    assert race.factors("steps") == {"a": [1.0, 1.0], "b": [1.0, 4.0], "c": [4.1, math.inf]}
    assert race.profiles("steps") == {"a": 1.0, "b": 0.5, "c": 0.0}
    assert race.profiles("steps") == race.profiles("seconds")
    first = profiles_table(race)[0]
    assert first == {
        "configuration": "a", "profile (steps)": "1.000", "profile (seconds)": "1.000",
        "within 1x": "100%", "within 2x": "100%", "within 4x": "100%",
    }  # fmt: skip
    assert [row["within 4x"] for row in profiles_table(race)] == ["100%", "100%", "0%"]
    assert profiles_table(race_of({"a": {"": [1]}})) == []


def test_tuned_values_are_the_trials_of_a_study(tmp_path: Path) -> None:
    """Of one seed the three learning rates are a study; the model is the workload, what is left the setting.

    With an MLP adam takes 10 steps at its best rate and momentum 20, and 10 more with seed 1; with a CNN both take 80.
    """
    for optim, model, rate, seed in np.ndindex(2, 2, 3, 2):
        step = 10 * (1 + optim + rate + seed) if model == 0 else 100 - 10 * rate
        names = {"optim__name": ("adam", "momentum")[optim], "model__name": ("mlp", "cnn")[model]}
        arriving(tmp_path / f"{optim}{model}{rate}{seed}", step, optim__lr=0.1 * (rate + 1), seed=seed, **names)
    race = run_race(group_runs(find_runs([str(tmp_path)]).runs), ACCURACY, 3, ["optim.lr"], ["model"])
    assert {(each.setting, each.workload): each.fastest("steps") for each in race.entries} == {
        ("optim=adam", "model=mlp"): [10, 20],
        ("optim=momentum", "model=mlp"): [20, 30],
        ("optim=adam", "model=cnn"): [80, 80],
        ("optim=momentum", "model=cnn"): [80, 80],
    }
    behind = (4 - 25 / 15) / 3
    assert race.profiles("steps") == pytest.approx({"optim=adam": 1.0, "optim=momentum": (1 + behind) / 2})
    assert [row["steps"] for row in times_table(race)] == ["80", "80", "15", "25"]
    assert {row["workload"] for row in csv.DictReader(times_csv(race).splitlines())} == {"model=mlp", "model=cnn"}


@pytest.mark.parametrize(
    ("tuned", "workloads", "message"),
    [
        (["optim.lrr"], [], "task.tuned: unknown hyperparameter that differs 'optim.lrr'; did you mean 'optim.lr'?"),
        ([], ["data"], "task.workloads: unknown hyperparameter that differs 'data'"),
        (["lr"], ["optim"], "task.tuned: optim.lr is also in task.workloads; expected it in one of the two"),
    ],
)
def test_a_wrong_hyperparameter_is_one_line(tmp_path: Path, tuned: Any, workloads: Any, message: str) -> None:
    for number, rate in enumerate((0.1, 0.2)):
        arriving(tmp_path / f"r{number}", 50, optim__lr=rate)
    groups = group_runs(find_runs([str(tmp_path)]).runs)
    with pytest.raises(ConfigError) as error:
        run_race(groups, ACCURACY, 5, tuned, workloads)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_the_whole_comparison(tmp_path: Path) -> None:
    """Two rates and six seeds: one arrives at 20 at the earliest of the first four, the other never does."""
    for seed, step in enumerate((40, 20, 50, 1000, 30, 10)):
        arriving(tmp_path / "runs" / f"a{seed}", step, seed=seed, optim__lr=0.2)
        arriving(tmp_path / "runs" / f"b{seed}", 1000, seed=seed, optim__lr=0.1)
    words = ("task=compare", "runs=runs", "task.until=val/accuracy>=0.9", "task.per_study=4", "task.out=out")
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "time to val/accuracy >= 0.9" in done.stdout and "never" in done.stdout
    rows = {row["configuration"]: row for row in csv_rows(tmp_path / "out" / "target.csv")}
    fast, slow = rows["optim.lr=0.2"], rows["optim.lr=0.1"]
    assert (fast["steps"], fast["arrived"], fast["runs"], fast["left_out"]) == ("20", "5", "6", "2")
    assert float(fast["seconds"]) == pytest.approx(0.2)
    assert (slow["steps"], slow["arrived"], slow["profile_steps"]) == ("inf", "0", "0.0")
    runs = {Path(row["folder"]).name: row for row in csv_rows(tmp_path / "out" / "runs.csv")}
    assert [runs[f"a{seed}"]["steps to target"] for seed in range(6)] == ["40", "20", "50", "inf", "30", "10"]
    assert float(runs["a0"]["seconds to target"]) == pytest.approx(0.4)
    for page in ("comparison.md", "comparison.html"):
        text = (tmp_path / "out" / page).read_text()
        assert "Time to val/accuracy" in text and "Performance profiles" in text and "never" in text
        assert "runs that make no complete study are left out: optim.lr=0.1 (6), optim.lr=0.2 (6)" in text
    assert "<svg" in (tmp_path / "out" / "profiles.svg").read_text()


def test_without_a_target_nothing_is_added_and_rules_are_refused(tmp_path: Path) -> None:
    for seed in range(2):
        arriving(tmp_path / "runs" / f"a{seed}", 20, seed=seed)
    done = command("task=compare", "runs=runs", "task.out=out", cwd=tmp_path)
    assert done.returncode == 0 and "time to" not in done.stdout
    assert not (tmp_path / "out" / "target.csv").exists()
    assert "to target" not in (tmp_path / "out" / "runs.csv").read_text()
    for word, key in (("task.tuned=[optim.lr]", "task.tuned"), ("task.workloads=[optim.lr]", "task.workloads")):
        done = command("task=compare", "runs=runs", word, cwd=tmp_path)
        assert done.returncode == 2
        assert f"{key}: got ['optim.lr']; requires task.until=<score>>=<number>" in done.stderr
