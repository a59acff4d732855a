"""The symptom nonfinite: a step whose loss, gradient or score is not finite."""

import math

from hand_made import facts, history

from runner.doctor import Severity
from runner.doctor.symptoms.numerics import nonfinite
from runner.status import Status

REASON = "diverged at step 4: the output of hidden.fc2 (Linear) is not finite; a smaller optim.lr may help"


def test_a_run_with_finite_losses_has_none():
    assert nonfinite(history(facts(), train__loss=[2.3, 1.0, 1e38])) is None
    assert nonfinite(history(facts())) is None


def test_a_run_that_diverged_names_the_step_the_place_and_a_tenth_of_the_rate():
    run = facts(Status.DIVERGED, diverged_at=4, reason=REASON, optim__lr=0.25)
    found = nonfinite(history(run, train__loss=[2.3, 40.0, 1e30, math.nan]))
    assert found.severity is Severity.ERROR
    assert found.evidence.steps == (4, 4)
    assert found.evidence.numbers == {"last_finite_loss": 1e30}
    assert found.why == "Diverged at step 4: the output of hidden.fc2 (Linear) is not finite."
    assert found.advice == (("optim.lr=0.025",), ("clip=1.0",))


def test_the_first_loss_that_is_not_finite_counts_where_the_run_says_nothing():
    found = nonfinite(history(facts(), train__loss=[2.3, math.inf, 2.0, math.nan]))
    assert found.evidence.steps == (2, 2)
    assert found.why == "The training loss of step 2 is not finite."
    assert found.evidence.numbers["last_finite_loss"] == 2.0


def test_advice_leaves_out_what_the_run_has_and_adds_its_precision():
    run = facts(Status.DIVERGED, diverged_at=1, clip=1.0, precision="fp16", optim__lr=3.0)
    assert nonfinite(history(run)).advice == (("optim.lr=0.3",), ("precision=fp32",))
