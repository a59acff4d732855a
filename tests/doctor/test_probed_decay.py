"""The probe of an early drop: its statistics by hand, and a run that is trained again without the drop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from running import MLP, job, metrics

from runner.comparing.runs import find_runs
from runner.doctor import Evidence, Finding, Severity
from runner.doctor.checkup import Checkup, Examined
from runner.doctor.history import read_history
from runner.doctor.probed_decay import DECAY, end_of, is_repeated, with_old_rate
from runner.door.options import find_conf
from runner.door.task_context import start
from runner.engine.schedules import Pure
from runner.tasks.doctor_probe import probed
from runner.tasks.doctor_replay import _around

RUN = (*MLP, "test=never", "figures=never", "probe=[]", "doctor=never", "optim.lr=0.005", "average=none")


def finding(drop=60, end=200):
    """Return the rule's finding on a drop."""
    return Finding(
        id=DECAY,
        severity=Severity.HINT,
        confidence=0.7,
        evidence=Evidence(numbers={"drop_at_step": drop}, steps=(40, end), tags=("train/loss",)),
        why="It may come too early.",
        advice=(("scheduler=cosine",),),
        probe="a probe",
        source="a test",
    )


def noisy(level, sd, count=150, seed=0):
    """Return losses of a level with white noise."""
    return level + sd * np.random.default_rng(seed).standard_normal(count)


def test_the_error_is_that_of_a_mean_of_fifty():
    mean, error = end_of(noisy(1.0, 0.2, 4000))
    assert mean == pytest.approx(1.0, abs=0.1)
    assert error == pytest.approx(0.2 / np.sqrt(50), rel=0.1)


@pytest.mark.parametrize(
    ("own", "old", "confirmed"),
    [
        (noisy(1.0, 0.01), noisy(0.8, 0.05, seed=1), True),
        (noisy(0.8, 0.01), noisy(1.0, 0.05, seed=1), False),  # the drop was right
        (noisy(1.0, 0.01), noisy(0.99, 0.5, seed=1), False),  # lower by less than the noise of the old rate
        (noisy(1.0, 0.001), noisy(0.985, 0.001, seed=1), False),  # certain, but less than 2 % of the fall
        (noisy(1.0, 0.01), noisy(0.5, 0.01, 149), False),  # diverged
        (noisy(1.0, 0.01), np.append(noisy(0.5, 0.01, 149), np.nan), False),
        (np.full(60, 1.0), np.full(60, 0.9), True),  # no noise at all
    ],
)
def test_only_a_lower_end_at_the_old_rate_confirms_it(own, old, confirmed):
    found = with_old_rate(finding(), own, old, fall=1.0, drop=60)
    assert found.severity is (Severity.WARN if confirmed else Severity.HINT)
    assert (found.confidence > 0.9) is confirmed and found.probe is None
    assert found.evidence.numbers["probe_same"] == pytest.approx(own[-50:].mean())
    assert ("confirms" in found.why) is confirmed


def test_a_run_that_is_not_repeated_says_nothing():
    logged = noisy(1.0, 0.1)
    assert is_repeated(logged, np.append(logged, noisy(0.5, 0.1)))
    assert is_repeated(logged, noisy(1.0, 0.1, 300, seed=5))  # another order of sums
    assert not is_repeated(logged, noisy(1.3, 0.1, 300))
    assert not is_repeated(logged, logged[:100])
    assert not is_repeated(logged[:49], logged)


def test_the_drop_is_found_at_its_step():
    schedule = Pure(lambda step: 1.0 if step < 57 else 0.1 if step < 171 else 0.01)
    assert _around(schedule, seen=76, last=300) == (57, 171)
    assert _around(schedule, seen=58, last=150) == (57, 150)
    assert _around(schedule, seen=190, last=300) == (171, 300)


@pytest.fixture(scope="module")
def early(tmp_path_factory):
    """Return a run whose rate falls to a hundredth after 60 of 240 steps, when the loss still falls."""
    folder = tmp_path_factory.mktemp("early") / "run"
    words = (*RUN, "scheduler=multistep", "scheduler.milestones=[60steps]", "scheduler.gamma=0.01", "steps=240")
    assert start(replace(job(*words, f"hydra.run.dir={folder}"), folders=find_conf().folders)) == 0
    return folder


def examined(folder, *findings):
    """Return the checkup of a run with given findings."""
    (run,) = find_runs([str(folder)]).runs
    return run, Checkup(runs=[Examined(run=run, history=read_history(run), findings=list(findings))], notes=[])


def test_a_run_with_an_early_drop_is_confirmed(early, monkeypatch):
    """Up to the drop the losses are those of the run, bit by bit; then they fall on."""
    seen = []
    monkeypatch.setattr(
        "runner.tasks.doctor_replay.is_repeated", lambda logged, again: seen.append((logged, again)) or True
    )
    run, checkup = examined(early, finding(drop=70, end=240))
    before = sorted(path.name for path in early.rglob("*"))
    found = probed(checkup, run.config)
    (tested,) = found.runs[0].findings
    assert found.notes == [] and tested.severity is Severity.WARN
    assert "180 steps after step 60 at the old learning rate" in tested.why
    logged, again = seen[0]
    assert len(logged) == 60 and np.array_equal(np.float32(logged), np.float32(again[:60])) and len(again) == 240
    own = [float(value) for _, tag, value in metrics(early) if tag == "train/loss"]
    assert tested.evidence.numbers["probe_same"] == pytest.approx(np.mean(own[-50:]))
    assert tested.evidence.numbers["probe_other"] < 0.9 * np.mean(own[-50:])
    assert sorted(path.name for path in early.rglob("*")) == before


def test_what_cannot_be_tested_is_said(early):
    run, checkup = examined(early, finding(drop=70, end=100))
    found = probed(checkup, run.config)
    assert found.notes == [
        "decay_too_early not probed: fewer than 50 losses in a row before or after the drop at step 60"
    ]
    assert found.runs[0].findings == checkup.runs[0].findings
    found = probed(checkup, {**run.config, "extend": "outputs/other"})
    assert "began from another one's checkpoint" in found.notes[0]


def test_without_a_checkpoint_the_drop_is_still_tested(early, monkeypatch):
    monkeypatch.setattr("runner.tasks.doctor_probe.checkpoint.load", lambda folder: None)
    run, checkup = examined(early, replace(finding(), id="ratio_low"), finding(drop=70, end=240))
    found = probed(checkup, run.config)
    assert [each.severity for each in found.runs[0].findings] == [Severity.WARN, Severity.HINT]
    (note,) = found.notes
    assert note.startswith("not probed: ratio_low, because") and note.endswith("has no checkpoint to go on from")
