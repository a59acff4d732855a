"""Step 7: which change is tried, when it is kept, and the whole step in real runs."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from finished import finished_runs
from running import ROOT, command, process

from runner.doctor.finding import Evidence, Finding, Severity
from runner.protocol.context import Budget, Context
from runner.protocol.goto_words import Round, notebook_of
from runner.protocol.next_change import Change, errors_in, next_change


def finding(name: str, *advice: tuple[str, ...], severity: Severity = Severity.WARN) -> Finding:
    evidence = Evidence(numbers={"a": 1.0}, steps=(0, 1), tags=("train/loss",))
    return Finding(id=name, severity=severity, confidence=0.5, evidence=evidence, why="It is so.", advice=advice,
                   probe=None, source="a test")  # fmt: skip


CONTEXT = Context({}, lambda *_: {}, lambda *_: [], Path(), None, {}, Budget())  # type: ignore[arg-type]


def chosen(findings, tried=(), pinned=()):
    said: list[str] = []
    found = next_change(findings, replace(CONTEXT, pinned=frozenset(pinned)), set(tried), said)
    return (found.text if found else None), said


LONGER = finding("train_longer", ("epochs=60",))
RATE = finding("lr_high", ("optim.lr=0.03",), ("scheduler=cosine",), severity=Severity.HINT)
LADDER = finding("overfit_rising", ("optim.weight_decay=0.0015",), ("augment=[crop]",), ("regularizer=[dropout]",))


def test_the_first_row_of_the_table_counts_whatever_the_severity():
    assert chosen([LONGER, LADDER, RATE])[0] == "optim.lr=0.03"
    assert chosen([LONGER, LADDER])[0] == "optim.weight_decay=0.0015"
    assert chosen([]) == (None, [])


def test_what_was_tried_is_not_tried_again_and_the_ladder_goes_on():
    tried = ["optim.weight_decay=0.0015"]
    assert chosen([LADDER], tried)[0] == "augment=[crop]"
    assert chosen([LADDER], [*tried, "augment=[crop]"])[0] == "regularizer=[dropout]"
    assert chosen([LADDER, LONGER], [*tried, "augment=[crop]", "regularizer=[dropout]"])[0] == "epochs=60"


def test_a_key_of_the_command_line_is_not_changed_and_that_is_said():
    text, said = chosen([RATE], pinned=["optim.lr"])
    assert text == "scheduler=cosine"
    assert said == ["lr_high: optim.lr=0.03 is not tried, because the command line sets optim.lr"]


def test_symptoms_of_plugins_come_last_and_never_change_the_data():
    own = finding("own", ("data.root=/tmp",), ("model.width=32",))
    assert chosen([own])[0] == "model.width=32" and chosen([own, LONGER])[0] == "epochs=60"


def test_an_error_is_an_error():
    assert errors_in([LONGER, finding("layer_frozen", severity=Severity.ERROR)])[0].id == "layer_frozen"


def made(before, after, sign=-1.0, seed_sd=math.nan):
    change = Change(row="r", symptom="s", why="w", words=("clip=1",))
    return Round(number=1, change=change, before=before, after=after, sign=sign, seed_sd=seed_sd)


def test_the_interval_is_that_of_the_paired_t_test():
    # t(0.95, 2) = 2.919986, gains 0.1, 0.2, 0.3: sd 0.1
    low, high = made([1.0, 1.0, 1.0], [0.9, 0.8, 0.7]).interval
    assert low == pytest.approx(0.2 - 2.919986 * 0.1 / math.sqrt(3), rel=1e-5)
    assert high == pytest.approx(0.2 + 2.919986 * 0.1 / math.sqrt(3), rel=1e-5)


@pytest.mark.parametrize(
    "before, after, sign, sd, accepted, words",
    [
        ([1.0, 1.0, 1.0], [0.9, 0.8, 0.7], -1, math.nan, True, "kept"),
        ([1.0, 1.1, 1.2], [0.9, 1.2, 1.0], -1, math.nan, False, "not distinguishable"),
        ([1.0, 1.1, 1.2], [0.9, 1.2, 1.0], -1, 0.01, True, "kept"),
        ([1.0, 1.1, 1.2], [0.999, 1.099, 1.199], -1, math.nan, False, "less than 1 %"),
        ([1.0, 1.1, 1.2], [1.2, 1.3, 1.41], -1, math.nan, False, "worse"),
        ([0.90, 0.91, 0.92], [0.93, 0.94, 0.95], 1, math.nan, True, "kept"),
        ([0.90, 0.91, 0.92], [0.9002, 0.9102, 0.9202], 1, math.nan, False, "less than 1 %"),
        ([1.0, 1.0, 1.0], [0.5, math.nan, 0.5], -1, 0.01, False, "diverged"),
        ([1.0, math.nan, 1.0], [0.9, 0.8, 0.9], -1, math.nan, True, "kept"),
    ],
)
def test_a_change_is_kept_if_it_is_distinguishable_and_large_enough(before, after, sign, sd, accepted, words):
    found = made(before, after, sign, sd)
    assert found.accepted is accepted and words in found.decision
    assert words in notebook_of([found], "over", "val/loss")


PLUGIN = '''
from runner.doctor import Evidence, Finding, Severity
from runner.registry import register


@register("symptom")
def planted(history):
    """Advise what is worse, then what is better, as long as the learning rate is small."""
    lr = history.facts.config["optim"]["lr"]
    advice = (("optim.lr=0.0001",), ("optim.lr=0.3",)) if lr < 0.1 else ()
    return Finding(id="planted", severity=Severity.WARN, confidence=1.0, why="The rate is small.", probe=None,
                   evidence=Evidence(numbers={"lr": lr}, steps=(0, 1), tags=("train/loss",)), advice=advice,
                   source="a test") if advice else None
'''
RECIPE = "# @package _global_\noptim: {lr: 0.01}\n"
WORDS = ("--config-dir", "conf", "recipe=slow", "task=protocol", "model=mlp", "model.hidden=[32]", "augment=[]",
         "probe=[]", "device=cpu", "name=p", "task.steps=[7]", "steps=60", "validate_every=20steps", "average=none",
         "plugins=[planted]")  # fmt: skip


@pytest.fixture
def place(tmp_path):
    (tmp_path / "planted.py").write_text(PLUGIN)
    (tmp_path / "conf" / "recipe").mkdir(parents=True)
    (tmp_path / "conf" / "recipe" / "slow.yaml").write_text(RECIPE)
    return tmp_path


def found(place):
    return json.loads((place / "outputs" / "p" / "07_goto" / "result.json").read_text())


@pytest.mark.ci_slice
@pytest.mark.slow
def test_what_is_worse_is_reverted_what_is_better_is_kept_and_trained_by_the_recipe(place):
    done = command(*WORDS, "task.final_test=true", cwd=place)
    assert done.returncode == 0, done.stderr
    rounds = found(place)["measurements"]["rounds"]
    assert [(each["change"], each["decision"]) for each in rounds] == [
        (["optim.lr=0.0001"], "reverted: worse"),
        (["optim.lr=0.3"], "kept"),
    ]
    assert found(place)["handoff"] == {"optim.lr": 0.3} and found(place)["trainings"] == 9
    assert "optim.lr=0.3" in (place / "outputs" / "p" / "07_goto" / "lab_notebook.md").read_text()
    recipe = yaml.safe_load((place / "outputs" / "p" / "conf" / "recipe" / "found-p.yaml").read_text())
    assert recipe["optim"]["lr"] == 0.3 and "How sure" in done.stdout
    # The test split is read once, however often the protocol is resumed
    first = json.loads((place / "outputs" / "p" / "final_test.json").read_text())
    again = command("resume=outputs/p", cwd=place)
    assert again.returncode == 0 and "The test split was read once: accuracy" in again.stdout
    assert json.loads((place / "outputs" / "p" / "final_test.json").read_text()) == first
    assert json.loads((place / "outputs" / "p" / "state.json").read_text())["test_reads"] == 1
    reads = [
        json.loads(path.read_text()).get("test_reads", 0)
        for path in place.rglob("result.json")
        if "_final" in str(path)
    ]
    assert reads == [1] and first["examples"] == 300


@pytest.mark.slow
def test_there_are_no_more_rounds_than_asked_for(place):
    done = command(*WORDS, "task.rounds=1", cwd=place)
    assert done.returncode == 0, done.stderr
    assert found(place)["measurements"]["ended"] == "1 round made (task.rounds)" and not found(place)["handoff"]


@pytest.mark.slow
def test_the_budget_is_kept(place):
    done = command(*WORDS, "task.budget=8 trainings", cwd=place)
    assert done.returncode == 0, done.stderr
    assert found(place)["trainings"] == 6 and "task.budget" in found(place)["headline"]
    assert len(list((place / "outputs" / "p").glob("07_goto/runs-*/*/result.json"))) == 6


@pytest.mark.slow
@pytest.mark.parametrize("after", [2, 4, 7])
def test_a_kill_loses_and_repeats_nothing(place, after):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        [sys.executable, "-m", "runner", *WORDS],
        cwd=place,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while len(finished_runs(place)) < after and child.poll() is None:
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    before = finished_runs(place)
    done = process(*WORDS, cwd=place)
    assert done.returncode == 0, done.stderr
    now = finished_runs(place)
    assert all(now[path] == moment for path, moment in before.items()), "a finished training was made again"
    assert len(now) == 9 and found(place)["handoff"] == {"optim.lr": 0.3}
