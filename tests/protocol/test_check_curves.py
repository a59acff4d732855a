"""Step 6 in real runs: the doctor's findings as criteria, and advice only where the config takes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import command

PLUGIN = '''
from runner.doctor import Evidence, Finding, Severity
from runner.registry import register


def found(history, name, severity, advice):
    lr = history.facts.config["optim"]["lr"]
    return Finding(id=name, severity=severity, confidence=0.9, why=f"planted {name}", probe=None, source="a test",
                   evidence=Evidence(numbers={"lr": lr}, steps=(0, 1), tags=("train/loss",)), advice=advice)


@register("symptom")
def planted_warning(history):
    """Find something in each run of seed 2 or more."""
    if history.facts.config["seed"] < 2:
        return None
    return found(history, "planted_warning", Severity.WARN, (("optim.nonsense=1",), ("scheduler=cosine",), ("clip=1",)))


@register("symptom")
def planted_hint(history):
    """Find something in each run with the smaller learning rate."""
    if history.facts.config["optim"]["lr"] > 0.06:
        return None
    return found(history, "planted_hint", Severity.HINT, ())
'''
WORDS = ("task=protocol", "model=mlp", "model.hidden=[32]", "augment=[]", "probe=[]", "device=cpu", "optim=momentum",
         "optim.lr=0.1", "name=p", "task.coarse={epochs: 1, lr_factors: [0.5, 1.0], weight_decays: [0.0]}",
         "task.refine={epochs: 1, points: 3, seeds: 1, confirm_seeds: 2}")  # fmt: skip


def result(place: Path):
    return json.loads((place / "outputs" / "p" / "06_check_curves" / "result.json").read_text())


def planted(place: Path, steps: str, *more: str):
    (place / "planted.py").write_text(PLUGIN)
    done = command(*WORDS, f"task.steps={steps}", "plugins=[planted]", *more, cwd=place)
    assert done.returncode == 0, done.stderr
    return done, result(place)


def test_without_trainings_the_step_is_skipped(tmp_path):
    done = command(*WORDS, "task.steps=[6]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert result(tmp_path)["status"] == "skip" and "it reads those of step 4 or 5" in done.stdout


@pytest.mark.slow
def test_findings_on_the_winner_are_criteria_and_advice_must_change_the_config(tmp_path):
    done, found = planted(tmp_path, "[5,6]")
    levels = {each["name"]: each for each in found["criteria"]}
    # The fresh seeds are 1 and 2
    assert (
        levels["planted_warning"]["level"] == "warn" and levels["planted_warning"]["why"] == "planted planted_warning"
    )
    assert levels["planted_warning"]["value"].startswith("warning in 1 of 2: lr ")
    assert levels["no errors or warnings"]["level"] == found["status"] == "warn"
    # The schedule of the config is cosine: of three pieces of advice the last one is left
    advice = [each for each in found["advice"] if each["text"].startswith("planted_warning")]
    assert [each["overrides"] for each in advice] == [["clip=1"]] and "try: planted_warning" in done.stdout
    diagnosis = json.loads((tmp_path / "outputs" / "p" / "06_check_curves" / "diagnosis.json").read_text())
    assert len(diagnosis["winner"]) == 2 and len(diagnosis["others"]) == 3
    ids = [[finding["id"] for finding in each] for each in diagnosis["winner"].values()]
    assert sum("planted_warning" in each for each in ids) == 1


@pytest.mark.slow
def test_symptoms_of_the_other_trainings_are_a_remark(tmp_path):
    _, found = planted(tmp_path, "[4,6]")
    assert found["trainings"] == 0 and found["measurements"]["examined"] >= 1
    names = {each["name"] for each in found["criteria"]}
    diagnosis = json.loads((tmp_path / "outputs" / "p" / "06_check_curves" / "diagnosis.json").read_text())
    sick = [each for each in diagnosis["others"].values() if "planted_hint" in {finding["id"] for finding in each}]
    assert ("other trainings of the search" in names) == any(diagnosis["others"].values())
    assert len(sick) == sum("lr=0.05" in run for run in diagnosis["others"])
    assert "planted_warning" not in names and set(diagnosis) == {"winner", "others"}
