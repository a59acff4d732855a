"""The invariants of the first steps alarm for no option, and change no number of a run."""

from __future__ import annotations

import pytest
from cases import OPTIONS, choices
from checked_runs import run_checked

STEPS = 4
# One option of each kind, and those that move weights, masks or averages in a way of their own
SLICE = [
    ("optim", "adam"),
    ("optim", "muon"),
    ("optim", "schedulefree"),
    ("update", "sam"),
    ("average", "swa"),
    ("average", "lookahead"),
    ("average", "swag"),
    ("average", "snapshots"),
    ("predict", "mc_dropout"),
    ("mix", "cutmix"),
    ("regularizer", "dropout2d"),
    ("regularizer", "max_norm"),
    ("transfer", "staged"),
    ("transfer", "feature_extraction"),
    ("distillation", "logits"),
    ("norm", "batch"),
    ("loss", "hinge"),
    ("init", "residual"),
]


def same_with_and_without(made, tmp_path):
    checked, plain = (run_checked(made, STEPS, tmp_path / str(on), checks=on) for on in (True, False))
    assert checked.state == plain.state
    assert checked.printed == plain.printed
    assert checked.rows == plain.rows


@pytest.mark.parametrize(("kind", "name"), SLICE)
def test_an_option_raises_no_alarm_and_keeps_its_numbers(kind, name, tmp_path):
    same_with_and_without(choices(kind, name), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), OPTIONS)
def test_no_option_raises_an_alarm_or_changes_its_numbers(kind, name, tmp_path):
    same_with_and_without(choices(kind, name), tmp_path)
