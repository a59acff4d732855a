"""The rules on curves of real runs: 23 of one learning-rate sweep, and 44 of the bank with faults."""

import json
from pathlib import Path

import pytest
from hand_made import facts, history, series

from benchmarks.doctor.__main__ import fixture
from benchmarks.doctor.bank import read_records
from benchmarks.doctor.faults import FAULTS, HEALTHY, names_cause
from benchmarks.doctor.plan import cases
from benchmarks.doctor.scores import history_of, scores
from benchmarks.doctor.shown import SHOWN
from runner.doctor import Severity, diagnose
from runner.registry import find, names

FIXTURES = Path(__file__).parents[1] / "fixtures"
CURVES = json.loads((FIXTURES / "short_loss_curves.json").read_text())
BANK = read_records(FIXTURES / "doctor_bank.json.gz")
SECOND = read_records(fixture("second", "tuning"))
SHOWN_RUNS = read_records(fixture("second", "shown"))
# Learning rates that train well: within 0.1 of the best validation accuracy of the net and optimizer
WELL = ["cnn/sgd/0.001", "cnn/sgd/0.01", "cnn/sgd/0.1", "cnn/adam/0.0001", "cnn/adam/0.001", "cnn/adam/0.01",
        "mlp/sgd/0.001", "mlp/sgd/0.01", "mlp/adam/0.0001", "mlp/adam/0.001"]  # fmt: skip


def _findings(name):
    """Return the findings of a curve of the sweep, by the rule's name."""
    curve = CURVES[name]
    ratios = curve["ratio_every_10"]
    about = facts(
        steps=400, per_epoch=63, train_examples=4000, val_examples=1000, class_shares=(0.1,) * 10,
        scheduler__name="constant", optim__name=name.split("/")[1], average__name="none", augment={},
    )  # fmt: skip
    curves = {"train__loss": [float(loss) for loss in curve["loss"]]}
    curves["ratio__l2/_global"] = series(ratios, range(1, 1 + 10 * len(ratios), 10))
    return {each.id: each.severity for each in diagnose(history(about, **curves))}


def test_the_sweep_has_23_curves():
    assert len(CURVES) == 23


@pytest.mark.parametrize("name", WELL)
def test_no_warning_on_a_curve_that_trains_well(name):
    assert Severity.WARN not in _findings(name).values()
    assert Severity.ERROR not in _findings(name).values()


@pytest.mark.parametrize(
    ("name", "rule", "severity"),
    [
        ("cnn/sgd/10", "lr_very_high", Severity.WARN),
        ("mlp/sgd/1", "nonfinite", Severity.ERROR),
        ("cnn/sgd/0.0001", "ratio_low", Severity.HINT),
        ("cnn/adam/1e-05", "ratio_low", Severity.HINT),
        ("mlp/sgd/0.0001", "ratio_low", Severity.HINT),
        ("tanhbad/sgd/0.01", "no_learning", Severity.WARN),
        ("tanhbad/sgd/0.1", "no_learning", Severity.WARN),
    ],
)
def test_a_curve_that_trains_badly_is_found(name, rule, severity):
    assert _findings(name).get(rule) is severity


@pytest.mark.parametrize("name", CURVES)
def test_a_run_of_400_steps_is_too_short_for_trends(name):
    trends = {"lr_high", "plateau_decay", "loss_rising", "spikes", "train_longer"}
    assert not trends & _findings(name).keys()


def test_at_least_30_real_runs_are_kept_with_every_fault():
    assert len(BANK) >= 30
    assert {record["case"]["fault"] for record in BANK.values()} == {case.fault for case in cases("tuning")}
    assert {record["case"]["fault"] for record in SECOND.values()} == set(FAULTS)


@pytest.mark.parametrize("name", [name for name in BANK if BANK[name]["case"]["fault"] == HEALTHY])
def test_no_warning_on_a_healthy_run_of_the_bank(name):
    found = diagnose(history_of(BANK[name]))
    assert [each.id for each in found if each.severity is not Severity.HINT] == []


# Runs whose cause no rule names: tenfold rates that batch normalization and the average of the weights forgive, and a
# brief run that is nearly done
MISSED = {"no_decay-cnn-digits-0", "no_decay-mlp-shapes-0"}


@pytest.mark.parametrize("name", [name for name in BANK if BANK[name]["case"]["fault"] != HEALTHY])
def test_the_cause_is_among_the_first_two_findings(name):
    fault = BANK[name]["case"]["fault"]
    found = diagnose(history_of(BANK[name]))
    assert found or name in MISSED
    assert any(names_cause(fault, each.id) for each in found[:2]) is (name not in MISSED)


@pytest.mark.parametrize("name", [name for name in SHOWN if SHOWN[name].causes])
def test_a_real_run_shows_the_symptom(name):
    (record,) = [each for each in SHOWN_RUNS.values() if each["case"]["fault"] == name]
    assert SHOWN[name].causes <= {each.id for each in diagnose(history_of(record))}


@pytest.mark.parametrize("name", [name for name in SHOWN if not SHOWN[name].causes])
def test_a_run_close_to_it_does_not(name):
    (record,) = [each for each in SHOWN_RUNS.values() if each["case"]["fault"] == name]
    shown = {cause for fault in SHOWN.values() for cause in fault.causes} | {"fine_tuned_too_fast"}
    assert not shown & {each.id for each in diagnose(history_of(record))}


def test_every_symptom_has_a_real_run():
    records = [*BANK.values(), *SECOND.values(), *SHOWN_RUNS.values()]
    found = {each for record in records for each in _rules(record)}
    own = {name for name in names("symptom") if find("symptom", name).__module__.startswith("runner.")}
    # Of fp16 on CUDA, and of gradients in micro-batches: their own tests train such runs
    assert own - found == {"scaler_skips", "batch_too_small"}


def _rules(record):
    """Return the rules that find something in a record, before any is hidden by another."""
    history = history_of(record)
    return [name for name in names("symptom") if find("symptom", name)(history)]


def test_the_scores_count_runs():
    rows = [record for record in BANK.values() if record["case"]["fault"] in (HEALTHY, "frozen", "no_decay")]
    found = scores(rows)
    assert found["cause_in_first_two"] | {"low": 0, "high": 0} == {"hits": 2, "n": 4, "low": 0, "high": 0}
    assert found["faults"]["frozen"]["cause"]["hits"] == 2
    assert found["faults"]["no_decay"]["cause"]["hits"] == 0
    assert (found["false_warnings"]["hits"], found["false_warnings"]["n"]) == (0, 8)
