"""Which findings a diagnosis has, in which order; and that no rule of a plugin ends it."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hand_made import facts, history

from runner.doctor import Evidence, Finding, Severity, diagnose
from runner.doctor.order import in_order
from runner.registry import names, register


def finding(name, severity, confidence=0.5, **numbers):
    return Finding(
        id=name,
        severity=severity,
        confidence=confidence,
        evidence=Evidence(numbers=numbers, steps=(1, 2), tags=("train/loss",)),
        why="It is so.",
        advice=(("optim.lr=0.01",),),
        probe=None,
        source="a test",
    )


E, W, H = Severity.ERROR, Severity.WARN, Severity.HINT


def ids(findings):
    return [each.id for each in findings]


def test_the_worst_and_surest_comes_first():
    found = in_order([finding("a", H, 0.9), finding("b", W, 0.2), finding("c", W, 0.8), finding("d", E, 0.1)])
    assert ids(found) == ["d", "c", "b", "a"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([("no_learning", W), ("underfit", H)], ["no_learning"]),
        ([("overfit_rising", W), ("train_longer", W)], ["overfit_rising"]),
        ([("overfit_gap", H), ("train_longer", W)], ["train_longer", "overfit_gap"]),
        # An error explains what the curves suggest, but no other error, no layer, and no rule of a user
        ([("nonfinite", E), ("lr_very_high", E), ("spikes", W)], ["lr_very_high", "nonfinite"]),
        ([("nonfinite", E), ("dead_relu", W), ("my_rule", H)], ["nonfinite", "dead_relu", "my_rule"]),
    ],
)
def test_a_finding_hides_what_it_explains(given, kept):
    assert ids(in_order([finding(*each) for each in given])) == kept


def test_a_record_is_plain_json():
    found = finding("a", W, 0.123456, step=3, loss=math.nan, norm=-math.inf, share=0.25).to_record()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["evidence"]["numbers"] == {"step": 3, "loss": "NaN", "norm": "-Infinity", "share": 0.25}
    assert found["severity"] == "warn" and found["confidence"] == 0.123
    assert found["advice"] == [["optim.lr=0.01"]]


def test_rules_of_plugins_are_asked_and_cannot_end_a_diagnosis(capsys):
    @register("symptom")
    def of_a_user(history):
        return finding("of_a_user", W)

    @register("symptom")
    def raises(history):
        return 1 / len(history.siblings)

    @register("symptom")
    def returns_a_word(history):
        return "bad"

    @register("symptom")
    def returns_half(history):
        return replace(finding("half", W), evidence=None)

    found = diagnose(history(facts(), train__loss=[2.0, 1.0]))
    assert "of_a_user" in ids(found) and "half" not in ids(found)
    line = raises.__code__.co_firstlineno
    # The path is relative only where the working folder is that of the repository
    said = capsys.readouterr().err.replace(f"{Path(__file__).parents[2]}/", "")
    lines = [each for each in said.splitlines() if "test_diagnosis" in each]
    assert lines == [
        f"runner: warning: symptom raises: not checked (plugin tests/doctor/test_diagnosis.py:{line + 2}: "
        "ZeroDivisionError: division by zero)",
        f"runner: warning: symptom returns_a_word: not checked (plugin tests/doctor/test_diagnosis.py:{line + 4}: "
        "symptom=returns_a_word returned str; expected a Finding or None)",
        f"runner: warning: symptom returns_half: not checked (plugin tests/doctor/test_diagnosis.py:{line + 8}: "
        "symptom=returns_half returned a Finding with wrong fields (AttributeError: 'NoneType' object has no attribute "
        "'numbers'))",
    ]


def test_every_symptom_survives_a_run_without_curves(capsys):
    empty = history(facts())
    for rule_facts in (empty.facts, replace(empty.facts, classes=0, train_examples=0, val_examples=0, class_shares=())):
        assert diagnose(replace(empty, facts=rule_facts)) is not None
    warned = capsys.readouterr().err.splitlines()
    assert [line for line in warned if "plugin" not in line] == []
    assert "nonfinite" in names("symptom")
