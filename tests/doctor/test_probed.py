"""The probe of task=doctor: its statistics, its trainings, and what it makes of a finding."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hand_made import facts, history
from running import MLP, job, metrics

from runner.assemble.load_data import load
from runner.doctor import Evidence, Finding, Severity
from runner.doctor.probed import HIGHER, LOWER, SAME, difference, fall_of, with_probe
from runner.door.options import find_conf
from runner.door.task_context import start
from runner.engine.saving import checkpoint
from runner.errors import CheckpointError, ConfigError
from runner.tasks.doctor_probe import _losses

SMALL = (*MLP, "test=never", "figures=never", "probe=[]", "augment=[crop]", "regularizer=[dropout]")
SLOW = (*SMALL, "scheduler=constant", "optim.lr=0.0005")


def finding(name="lr_low", severity=Severity.HINT):
    return Finding(
        id=name,
        severity=severity,
        confidence=0.4,
        evidence=Evidence(numbers={"end": 1.0}, steps=(1, 9), tags=("train/loss",)),
        why="It may be so.",
        advice=(("optim.lr=0.01",),),
        probe="a probe",
        source="a test",
    )


def run(*words):
    return start(replace(job(*words), folders=find_conf().folders))


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """Return a run at a constant rate that is far too small."""
    folder = tmp_path_factory.mktemp("slow") / "run"
    assert run(*SLOW, "steps=40", f"hydra.run.dir={folder}") == 0
    return folder


def test_the_difference_is_in_standard_errors_of_the_mean_of_the_last_steps():
    rng = np.random.default_rng(0)
    same, other = (level + 0.1 * rng.standard_normal(200) for level in (1.0, 0.9))
    found = difference(same, other)
    assert found.same == pytest.approx(same[150:].mean()) and found.other == pytest.approx(other[150:].mean())
    # Normal noise of 0.1: the difference of two means of 50 has a standard error of 0.02
    assert (found.same - found.other) / found.effect == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize(
    ("gap", "fall", "expected"),
    [(0.1, 1.0, True), (0.0, 1.0, False), (-0.1, 1.0, False), (0.1, 10.0, False), (0.03, 0.5, False)],
)
def test_a_difference_counts_if_it_is_sure_and_large(gap, fall, expected):
    rng = np.random.default_rng(1)
    noise = 0.1 * rng.standard_normal(200)
    noise[150:] -= noise[150:].mean()
    found = difference(1 + noise, 1 - gap + noise[::-1] - noise[::-1][150:].mean())
    assert found.is_better(fall) == expected


def test_a_training_that_diverged_is_never_better():
    same = np.linspace(1, 0.9, 200)
    for other in (np.zeros(0), np.full(200, np.nan), np.linspace(1, 0, 199)):
        assert difference(same, other).other == math.inf
        assert not difference(same, other).is_better(1.0)


def test_losses_without_noise_have_no_error():
    assert difference(np.full(200, 1.0), np.full(200, 0.5)).effect == math.inf
    assert not difference(np.full(200, 1.0), np.full(200, 1.0)).is_better(1.0)


def test_the_fall_of_a_run_is_from_its_first_steps_to_its_best_part():
    values = np.concatenate([np.full(10, 3.0), np.linspace(3, 1, 180), np.full(10, 1.0)])
    assert fall_of(history(facts(), train__loss=values)) == pytest.approx(2.0)
    assert fall_of(history(facts(), train__loss=[1.0])) == math.inf


def losses_of(same, other):
    rng = np.random.default_rng(2)
    return {SAME: same + 0.01 * rng.standard_normal(200), HIGHER: other + 0.01 * rng.standard_normal(200)}


def test_a_confirmed_hint_is_a_warning_with_the_numbers():
    found = with_probe(finding(), losses_of(1.0, 0.8), 1.0, 40)
    assert found.severity is Severity.WARN and found.confidence > 0.9 and found.probe is None
    assert (
        "A probe confirms it: 200 steps after step 40 at three times the learning rate end at a loss of 0.8"
        in found.why
    )
    assert found.evidence.numbers["probe_same"] == pytest.approx(1.0, abs=0.01)
    assert found.evidence.numbers["probe_effect"] > 50 and found.evidence.numbers["end"] == 1.0


def test_a_hint_that_is_not_confirmed_stays_a_hint_of_little_confidence():
    found = with_probe(finding(severity=Severity.WARN), losses_of(1.0, 1.1), 1.0, 40)
    assert found.severity is Severity.HINT and found.confidence < 0.2
    assert "A probe does not confirm it" in found.why
    assert with_probe(finding("periodic"), {}, 1.0, 40) == finding("periodic")
    lower = {SAME: np.full(200, 1.0), LOWER: np.full(200, 0.5)}
    assert "at a tenth of the learning rate" in with_probe(finding("lr_high"), lower, 1.0, 40).why


def test_a_training_at_the_same_rate_is_the_run_that_trains_longer(slow, tmp_path):
    """The steps after the checkpoint are those of a longer run, bit for bit: same batches, same dropout masks."""
    assert run(*SLOW, "steps=240", f"hydra.run.dir={tmp_path / 'long'}") == 0
    expected = [float(value) for step, tag, value in metrics(tmp_path / "long") if tag == "train/loss" and step > 40]
    config = job(*SLOW, "steps=40").config
    found = _losses(config, load(config), checkpoint.load(slow), SAME)
    assert found.tolist() == expected


def test_a_rate_that_is_too_small_is_confirmed_and_the_run_stays_as_it_is(slow, monkeypatch, capfd, tmp_path):
    monkeypatch.setattr("runner.doctor.checkup.diagnose", lambda history: [finding()])
    before = {path: path.read_bytes() for path in slow.rglob("*") if path.is_file()}
    assert run("task=doctor", f"run={slow}", "task.probe=true", f"task.out={tmp_path / 'out'}") == 0
    assert "warning  lr_low" in capfd.readouterr().out
    (record,) = json.loads((tmp_path / "out/doctor.json").read_text())["runs"]
    numbers = record["findings"][0]["evidence"]["numbers"]
    assert numbers["probe_other"] < numbers["probe_same"] and numbers["probe_effect"] > 3
    assert {path: path.read_bytes() for path in slow.rglob("*") if path.is_file()} == before


def test_a_good_rate_is_not_confirmed_to_be_too_high(tmp_path, monkeypatch, capfd):
    assert run(*SMALL, "scheduler=constant", "steps=40", "optim.lr=0.01", f"hydra.run.dir={tmp_path / 'run'}") == 0
    monkeypatch.setattr("runner.doctor.checkup.diagnose", lambda history: [finding("lr_high", Severity.WARN)])
    capfd.readouterr()
    assert run("task=doctor", f"run={tmp_path / 'run'}", "task.probe=true") == 0
    assert "hint     lr_high" in capfd.readouterr().out


def test_what_cannot_be_probed_is_one_line(slow, tmp_path, monkeypatch, capfd):
    with pytest.raises(ConfigError, match=r"task\.probe: got true; requires run="):
        run("task=doctor", f"runs={slow}", "task.probe=true")
    monkeypatch.setattr("runner.doctor.checkup.diagnose", lambda history: [])
    assert run("task=doctor", f"run={slow}", "task.probe=true") == 0
    assert "no finding that a probe can test" in capfd.readouterr().out
    monkeypatch.setattr("runner.doctor.checkup.diagnose", lambda history: [finding()])
    shutil.copytree(slow, tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare/checkpoints")
    with pytest.raises(CheckpointError, match=r"task\.probe: .*bare has no checkpoint to go on from"):
        run("task=doctor", f"run={tmp_path / 'bare'}", "task.probe=true")
    assert run(*SMALL, "steps=20", f"hydra.run.dir={tmp_path / 'cosine'}") == 0
    assert run("task=doctor", f"run={tmp_path / 'cosine'}", "task.probe=true") == 0
    printed = " ".join(capfd.readouterr().out.split())
    assert "not probed: the learning rate has decayed to 0.0062 of its largest value" in printed
