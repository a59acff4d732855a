"""Findings in words, and the command that follows a piece of advice."""

from pathlib import Path

import pytest
from comparing_runs import changed_config

from runner.doctor import Evidence, Finding, Severity
from runner.doctor.executable import with_executable_advice
from runner.doctor.words import command_words, counts_in_words, folded, markdown_findings
from runner.door.options import find_conf
from runner.door.variants import vary

GROUPS = ("optim", "scheduler", "model")


def finding(severity=Severity.WARN, advice=(("optim.lr=0.01",),)):
    return Finding(
        id="my_rule",
        severity=severity,
        confidence=0.5,
        evidence=Evidence(numbers={"last_loss": 0.123456, "epochs": 3.0}, steps=(10, 20), tags=("train/loss", "lr")),
        why="It is so.",
        advice=advice,
        probe="a run at a third of the rate",
        source="a test",
    )


@pytest.mark.parametrize(
    ("given", "advice", "expected"),
    [
        (["model=mlp"], ["optim.lr=0.01"], ["model=mlp", "optim.lr=0.01"]),
        # The advice replaces the run's own value, and what belongs to one run is left out
        (["optim.lr=1", "+name=a", "note=why?", "resume=b", "seed=3"], ["optim.lr=0.1"], ["seed=3", "optim.lr=0.1"]),
        # Another option of a group leaves none of the knobs of the old one
        (["scheduler=step", "scheduler.every=2epochs", "seed=1"], ["scheduler=cosine"], ["seed=1", "scheduler=cosine"]),
        # A setting is no group: only equal keys are replaced
        (["clip=2", "clip_by=value"], ["clip=1"], ["clip_by=value", "clip=1"]),
        (["epochs=3"], ["epochs=6", "optim.lr=1"], ["epochs=6", "optim.lr=1"]),
    ],
)  # fmt: skip
def test_a_command_has_the_words_of_the_run_and_the_advice(given, advice, expected):
    assert command_words(given, advice, GROUPS) == expected


def test_a_command_names_the_users_config_folders():
    assert command_words([], ["clip=1"], GROUPS, [Path("mine")]) == ["--config-dir", "mine", "clip=1"]


def test_advice_that_does_not_compose_or_changes_nothing_is_dropped():
    advice = (
        ("optim.lr=0.01",),
        ("optim.lr=-1",),
        ("optim.lrr=0.1",),
        ("scheduler=cosine",),
        ("scheduler=step",),
        ("scheduler=no_such",),
        ("optim.lr=0.1",),
        ("clip=1.0", "seed=7"),
        ("clip_by=value",),
    )
    config = changed_config(optim__lr=0.1)
    (found,) = with_executable_advice([finding(advice=advice)], config, lambda *given: vary(find_conf(), *given))
    assert found.advice == (("optim.lr=0.01",), ("scheduler=step",), ("clip=1.0", "seed=7"))
    assert config == changed_config(optim__lr=0.1)


def test_findings_are_counted_by_severity():
    found = [finding(Severity.HINT), finding(Severity.ERROR), finding(Severity.HINT)]
    assert counts_in_words(found) == "1 error, 2 hints"
    assert counts_in_words([]) == ""


def test_a_text_is_folded_beside_its_label():
    lines = folded("warning", "a b c d e f g h i j k l m n o p q r s t u v w x y z", 40, 10)
    assert lines[0].startswith("warning   a b") and lines[1].startswith(" " * 10 + "p") and len(lines) == 2
    assert max(map(len, lines)) <= 40


def test_markdown_has_all_of_a_finding():
    assert markdown_findings([finding()]) == (
        "**warning: my_rule.** It is so.\n\n"
        "- evidence: steps 10-20 of `train/loss`, `lr`; last loss 0.1235, epochs 3\n"
        "- try: `optim.lr=0.01`\n- would prove it: a run at a third of the rate\n- source: a test"
    )
    assert markdown_findings([]) == "No findings."
