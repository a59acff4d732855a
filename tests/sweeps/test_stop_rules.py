"""Rules that end a sweep early: each one by hand-made scores, and from the command line, where the sweep continues."""

import csv
import json
import math
from pathlib import Path

import pytest
import yaml

from runner.__main__ import main
from runner.engine.monitor import Monitor
from runner.errors import ConfigError
from runner.sweeps.stop_rules import Stopper, StopRules, check_stop_rules

SMALL = ("model=mlp", "model.hidden=[8]", "augment=[]", "probe=[]", "average=none", "epochs=1", "device=cpu", "sweep=s")
FOLDER = Path("outputs/sweeps/s")


def ended_by(rules: StopRules, scores, tag="val/accuracy") -> int:
    """Return after how many trials a rule ends a sweep, 0 if none does; None is a failed trial."""
    stopper = Stopper(rules, Monitor(tag))
    assert stopper.reason() is None
    for number, score in enumerate(scores, 1):
        if score is not None:
            stopper.training_ended()
        stopper.trial_ended(math.nan if score is None else score, failed=score is None)
        if stopper.reason():
            return number
    return 0


@pytest.mark.parametrize(
    ("rules", "scores", "after"),
    [
        (StopRules(trainings=3), [0.1, None, 0.2, 0.3, 0.4], 4),
        (StopRules(target=0.3), [0.1, 0.2, 0.3, 0.4], 3),
        (StopRules(target=0.31), [0.1, 0.2, 0.3], 0),
        (StopRules(no_improvement=2), [0.5, 0.4, 0.6, 0.6, 0.5, 0.7], 5),
        (StopRules(no_improvement=2), [math.nan, math.nan, 0.5], 2),
        (StopRules(no_improvement=2), [0.5, None, None, 0.4], 0),
        (StopRules(max_failures=1), [None, 0.3, None], 3),
        (StopRules(max_failures=0), [0.3, None], 2),
        (StopRules(max_failures=2), [None, None], 0),
        (StopRules(trainings=4, target=0.2), [0.1, 0.2, 0.3], 2),
    ],
)
def test_a_rule_ends_a_sweep_after_the_trial_that_fulfils_it(rules, scores, after):
    assert ended_by(rules, scores) == after


def test_a_target_of_a_loss_is_reached_from_above():
    assert ended_by(StopRules(target=0.3), [0.5, 0.31, 0.29], "val/loss") == 3
    assert ended_by(StopRules(no_improvement=1), [0.5, 0.4, 0.45], "val/loss") == 3


def test_hours_are_those_of_this_command_and_a_rule_that_ended_the_sweep_stays():
    now = [1000.0]
    stopper = Stopper(StopRules(hours=0.5, no_improvement=1), Monitor("val/accuracy"), clock=lambda: now[0])
    now[0] += 1799
    assert stopper.reason() is None
    now[0] += 1
    assert stopper.reason() == "hydra.sweeper.stop.hours=0.5: this command has run for 0.5 h"
    late = Stopper(StopRules(no_improvement=1), Monitor("val/accuracy"))
    for score in (0.5, 0.4):
        late.trial_ended(score, failed=False)
    reason = late.reason()
    # A run that was under way is better
    late.trial_ended(0.9, failed=False)
    assert (
        late.reason()
        == reason
        == ("hydra.sweeper.stop.no_improvement=1: 1 trial in a row without a better val/accuracy than 0.5")
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hour": 1}, "hydra.sweeper.stop.hour: unknown key 'hour'; did you mean 'hours'?"),
        ({"hours": 0}, "hydra.sweeper.stop.hours: got 0"),
        ({"trainings": 1.5}, "hydra.sweeper.stop.trainings: got 1.5"),
        ({"max_failures": -1}, "hydra.sweeper.stop.max_failures: got -1"),
        (3, "hydra.sweeper.stop: got 3, must be one of its keys"),
    ],
)
def test_a_wrong_rule_is_refused_in_one_line(values, message):
    with pytest.raises(ConfigError) as caught:
        check_stop_rules(values)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def count(folder: Path = FOLDER) -> int:
    return sum(json.loads(path.read_text())["status"] == "done" for path in folder.glob("*/result.json"))


@pytest.mark.ci_slice
@pytest.mark.slow
def test_a_grid_ends_after_so_many_trainings_and_a_larger_limit_continues(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    words = ["-m", *SMALL, "seed=0,1,2,3", "hydra.launcher.workers=1"]
    assert main([*words, "hydra.sweeper.stop.trainings=1"]) == 0
    assert count() == 1
    assert "stopped by hydra.sweeper.stop.trainings=1: 1 training ended; 3 trials not run" in capfd.readouterr().out
    # The same rule again: nothing is run
    assert main([*words, "hydra.sweeper.stop.trainings=1"]) == 0
    assert count() == 1
    assert main([f"resume={FOLDER}", "hydra.sweeper.stop.trainings=2"]) == 0
    assert count() == 2


def test_a_search_ends_at_its_target_and_a_grid_at_its_first_failure(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    search = ["-m", "hydra/sweeper=optuna", "hydra/sweeper/sampler=random", *SMALL, "optim.lr=interval(0.1,0.5)"]
    words = [*search, "hydra.launcher.workers=1", "hydra.sweeper.stop.target=0.15", "hydra.sweeper.n_trials=4"]
    assert main(words) == 0
    assert count() == 1
    out = capfd.readouterr().out
    assert "stopped by hydra.sweeper.stop.target=0.15: val/accuracy reached 0." in out and "1 point tried" in out
    grid = ["-m", *SMALL[:-1], "sweep=g", "data=cifar10", "data.root=nowhere", "data.download=false", "seed=0,1,2"]
    assert main([*grid, "hydra.launcher.workers=1", "hydra.sweeper.stop.max_failures=0"]) == 1
    assert "stopped by hydra.sweeper.stop.max_failures=0: 1 trial failed; 2 trials not run" in capfd.readouterr().err


def test_a_grid_writes_its_ranking_with_the_rule_that_ended_it_and_the_settings_of_its_scientific_key(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    words = ["-m", *SMALL, "optim=momentum,adam", "optim.lr=0.1,0.01", "seed=0,1", "hydra.launcher.workers=2"]
    words += ["hydra.sweeper.exclude=[{optim: adam, optim.lr: 0.1}]", "hydra.sweeper.scientific=[optim]"]
    assert main([*words, "hydra.sweeper.stop.trainings=6"]) == 0
    scores: dict[str, list[float]] = {}
    for path in FOLDER.glob("*/result.json"):
        name = path.parent.name.partition("-seed")[0]
        scores.setdefault(name, []).append(json.loads(path.read_text())["scores"]["val"]["best"]["accuracy"])
    means = {name: sum(values) / 2 for name, values in scores.items() if len(values) == 2}
    assert len(means) == 3
    with (FOLDER / "ranking.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val/accuracy"]) for row in rows] == pytest.approx(sorted(means.values(), reverse=True))
    assert all(f"optim={row['optim']}-lr={row['optim.lr']}" in means for row in rows)
    best = yaml.safe_load((FOLDER / "optimization_results.yaml").read_text())
    assert best["name"] == "grid" and best["best_value"] == pytest.approx(max(means.values()))
    assert best["stopped"] == "hydra.sweeper.stop.trainings=6: 6 trainings ended"
    with (FOLDER / "scientific.csv").open(newline="") as file:
        settings = {row["optim"]: row for row in csv.DictReader(file)}
    assert settings["adam"]["trials"] == "1" and settings["momentum"]["trials"] == "2"
    momentum = max(value for name, value in means.items() if "momentum" in name)
    assert float(settings["momentum"]["val/accuracy (best)"]) == pytest.approx(momentum)
    assert "they had 1 to 2 trials" in capfd.readouterr().out.replace("\n", " ")
