"""The order of the steps: keys, handoff, gates, budget, with steps that only count their calls."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_runs import config

from runner.assemble.load_data import load
from runner.errors import ConfigError
from runner.protocol.context import Budget, Context, parse_budget, without_test
from runner.protocol.outcome import Criterion, Level, StepResult, from_record, worst
from runner.protocol.steps import Plan, run_steps


@dataclass
class Counting:
    """A step that counts its calls and hands on a learning rate."""

    number: int
    name: str
    level: Level = Level.PASS
    lr: float = 0.25
    trainings: int = 0
    seconds: float = 0.0
    knob: int = 0
    seen: list[Any] = field(default_factory=list)

    def reads(self, context):
        return {"config": context.config, "knob": self.knob}

    def needs(self, context):
        return self.trainings, self.seconds

    def run(self, context):
        self.seen.append((context.config["optim"]["lr"], dict(context.facts)))
        context.budget.used += self.trainings
        criterion = Criterion(name="x", value="1", threshold="2", level=self.level, why="because")
        return StepResult(
            step=self.name, headline="h", criteria=[criterion], handoff={"optim.lr": self.lr},
            facts={f"of_{self.name}": self.lr, "pass_seconds": float(len(self.seen))},
        )  # fmt: skip


def set_values(base, changes):
    changes = changes or {}
    for key, value in changes.items():
        group, _, knob = key.partition(".")
        base = {**base, group: {**base[group], knob: value}}
    return base


@pytest.fixture
def plan(tmp_path):
    given = config({"model": "mlp", "device": "cpu", "optim.lr": 0.1})
    context = Context(given, set_values, lambda *_: [], tmp_path, without_test(load(given)), {}, Budget(), frozenset())
    lines: list[str] = []
    steps = [Counting(1, "one"), Counting(2, "two", lr=0.5), Counting(3, "three", lr=0.75)]
    return Plan(steps=steps, context=context, code={"my": "1"}, keep_going=False, say=lines.append), steps, lines


def again(plan, **changes):
    context = replace(plan.context, budget=Budget(), **changes.pop("context", {}))
    return run_steps(replace(plan, context=context, **changes))


def calls(steps):
    return [len(step.seen) for step in steps]


def test_each_step_gets_what_the_earlier_ones_hand_on_and_none_is_repeated(plan):
    made, steps, lines = plan
    progress = run_steps(made)
    assert [step.seen[0][0] for step in steps] == [0.1, 0.25, 0.5]
    assert steps[2].seen[0][1] == {"of_one": 0.25, "of_two": 0.5, "pass_seconds": 1.0}
    assert progress.handoff == {"optim.lr": 0.75} and progress.failed is None
    repeated = again(made)
    assert calls(steps) == [1, 1, 1] and repeated.results == progress.results
    assert sum("from the earlier command" in line for line in lines) == 3
    folder = made.context.folder
    assert yaml.safe_load((folder / "handoff.yaml").read_text()) == ["optim.lr=0.75"]
    state = json.loads((folder / "state.json").read_text())
    assert list(state["steps"]) == ["one", "two", "three"] and state["facts"]["of_three"] == 0.75


def test_a_changed_key_repeats_its_step_and_all_later_ones(plan):
    made, steps, _ = plan
    run_steps(made)
    steps[1].knob = 1
    again(made)
    assert calls(steps) == [1, 2, 2]
    again(made, code={"my": "2"})
    assert calls(steps) == [2, 3, 3]
    again(made, code={"my": "2"}, context={"config": set_values(made.context.config, {"optim.momentum": 0.5})})
    assert calls(steps) == [3, 4, 4]


def test_a_failure_stops_unless_asked_to_go_on_and_a_hint_passes(plan):
    made, steps, _ = plan
    steps[1].level = Level.FAIL
    progress = run_steps(made)
    assert calls(steps) == [1, 1, 0] and progress.failed.step == "two"
    assert progress.notes == ["step 3 three: not begun, as two failed"]
    assert again(made, keep_going=True).failed.step == "two" and calls(steps) == [1, 1, 1]
    assert worst([Level.HINT, Level.PASS]) is Level.PASS and worst([Level.WARN, Level.HINT]) is Level.WARN
    assert worst([Level.WARN, Level.FAIL]) is Level.FAIL and worst([]) is Level.PASS


def test_the_command_line_wins_and_says_so(plan):
    made, steps, lines = plan
    progress = again(made, context={"pinned": frozenset({"optim.lr"})})
    assert [step.seen[0][0] for step in steps] == [0.1, 0.1, 0.1]
    assert "optim.lr pinned by the command line: 0.1 (step 3 measured 0.75)" in progress.notes
    assert any("pinned" in line for line in lines)


@pytest.mark.parametrize(("budget", "begun"), [(3, [1, 1, 0]), (2, [1, 1, 0]), (5, [1, 1, 1]), (1, [1, 0, 0])])
def test_a_step_that_does_not_fit_the_budget_is_not_begun(plan, budget, begun):
    made, steps, _ = plan
    steps[1].trainings, steps[2].trainings = 2, 3
    context = replace(made.context, budget=Budget(trainings=budget))
    progress = run_steps(replace(made, context=context))
    assert calls(steps) == begun and context.budget.used <= budget
    assert len(progress.notes) == begun.count(0)
    assert all("not begun, it needs" in note and note.count("\n") == 0 for note in progress.notes)
    # What is done counts again
    later = replace(made, context=replace(made.context, budget=Budget(trainings=budget)))
    assert len(run_steps(later).notes) == begun.count(0) and calls(steps) == begun


def test_a_time_is_kept_within_a_tenth(plan):
    made, steps, _ = plan
    clock = iter(range(0, 1000, 10))
    steps[2].seconds = 70.0
    budget = Budget(seconds=100.0, now=lambda: float(next(clock)))
    progress = run_steps(replace(made, context=replace(made.context, budget=budget)))
    assert calls(steps) == [1, 1, 0] and "needs about 70 s" in progress.notes[0]
    assert Budget(seconds=100.0, now=lambda: 0.0).refusal(0, 110.0) is None
    assert Budget(seconds=100.0, now=lambda: 0.0).refusal(0, 110.1) is not None


@pytest.mark.parametrize(
    ("text", "limits"),
    [("30 trainings", (30, None)), ("1 training", (1, None)), ("10min", (None, 600)), ("1.5 h", (None, 5400)),
     ("90s", (None, 90))],
)  # fmt: skip
def test_budgets(text, limits):
    found = parse_budget(text)
    for value, limit in zip((found.trainings, found.seconds), limits, strict=True):
        assert value == (limit if limit is not None else float("inf"))


@pytest.mark.parametrize("text", ["", "30", "0 trainings", "ten min", "0min", "-1h", "5 epochs"])
def test_wrong_budgets(text):
    with pytest.raises(ConfigError, match=r"^task\.budget: got '.*'; expected a number of trainings or a time"):
        parse_budget(text)


def test_a_result_is_read_as_it_was_written_and_numbers_that_json_lacks_are_null():
    made = Counting(1, "one").run(Context({"optim": {"lr": 1.0}}, set_values, None, Path(), None, {}, Budget()))
    record = json.loads(json.dumps(replace(made, measurements={"a": float("nan"), "b": [float("inf"), 1]}).record()))
    assert record["measurements"] == {"a": None, "b": [None, 1]} and record["schema"] == 1
    assert from_record(record).criteria == made.criteria


def test_no_step_can_open_the_test_split(plan):
    made, _, _ = plan
    assert load(made.context.config).data.test is not None and made.context.loaded.data.test is None


def test_a_time_that_a_step_measures_is_in_no_key(plan, tmp_path):
    made, steps, _ = plan
    first = run_steps(made)
    steps[0].seen.append(None)
    other = replace(made.context, folder=tmp_path / "other", budget=Budget())
    (tmp_path / "other").mkdir()
    second = run_steps(replace(made, context=other))
    assert first.results[0].facts != second.results[0].facts and first.keys == second.keys
