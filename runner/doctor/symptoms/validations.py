"""Symptoms of the course of validation scores: still rising, long past their best, noisy, too few examples."""

from __future__ import annotations

import numpy as np

from runner.doctor.advice import divided_lr
from runner.doctor.changes_advised import decayed, longer
from runner.doctor.evaluations import ACCURACY, LEAST, TRAIN_LOSS, VAL_LOSS, chance_accuracy, clean_loss, scores_of
from runner.doctor.finding import Evidence, Finding, Severity
from runner.doctor.history import History
from runner.doctor.measures import TREND_Z, binomial_se, mann_kendall, theil_sen
from runner.doctor.shapes import LOSS, RATE, whole_blocks
from runner.registry import register

# Share of the validations in which the best is late or early; z of a trend at 5 %; the projection, as share of the run
_LATE, _EARLY, _RISING_Z, _MORE = 0.10, 0.10, 1.64, 0.25
# Fall of the validation loss in another quarter of the run
_FALLS = 0.03
# Learning rate over its largest value at which the schedule has ended
_ENDED = 0.05
# Validations whose noise counts; standard errors; least noise of accuracy
_LAST, _SE, _LEAST_NOISE = 6, 2.0, 0.005
# Twice the standard error of accuracy above which changes of usual size cannot be seen
_COARSE = 0.05
# Validations with one and the same accuracy
_EQUAL = 4
# Excess of the loss in evaluation over that in training, on training examples (measured: healthy runs differ by 40 %)
_MISMATCH, _MISMATCH_LEAST = 0.5, 0.1
# Excess, of the loss in training, that no healthy run has
_FAR = 1.0


@register("symptom")
def train_longer(history: History) -> Finding | None:
    """Return a finding if validation accuracy is still rising at the end, by more than its standard error."""
    scores = scores_of(history)
    if scores is None or scores.best < (1 - _LATE) * len(scores.val) - 1:
        return None
    last = scores.val.values[-max(LEAST, len(scores.val) // 3) :]
    projected = theil_sen(last).value * _MORE * len(scores.val)
    rate = history.series(RATE).finite().values
    ended = bool(len(rate)) and rate[-1] < _ENDED * rate.max()
    # A schedule that has ended would not go on as it was
    rising = mann_kendall(last) > _RISING_Z and projected > (2 if ended else 1) * _SE * scores.best_se
    falling = not ended and _loss_falls(history)
    if not rising and not falling:
        return None
    return Finding(
        id="train_longer",
        severity=Severity.HINT if ended or not rising else Severity.WARN,
        confidence=0.5 if ended else 0.8 if rising else 0.6,
        evidence=Evidence(
            numbers={"last": scores.last_val, "projected_gain": projected, "se": scores.best_se},
            steps=scores.steps(len(scores.val) - len(last)),
            tags=(ACCURACY,),
        ),
        why=(f"Validation {'accuracy is still rising' if rising else 'loss is still falling'} at the end")
        + (
            f": about {projected:.2g} more in a quarter of the run."
            if rising and not ended
            else "; a longer schedule may gain."
        ),
        advice=tuple(longer(history.facts.config, 2)),
        probe=None,
        source="Tuning Playbook, choosing the number of steps",
    )


def _loss_falls(history: History) -> bool:
    """True if the validation loss falls at 1 %, and would fall by some percent in another quarter of the run."""
    loss = history.series(VAL_LOSS).finite().values
    last = loss[-max(LEAST, len(loss) // 3) :]
    return bool(
        len(last) >= LEAST
        and mann_kendall(last) < -TREND_Z
        and -theil_sen(last).value * _MORE * len(loss) > _FALLS * last[-1]
    )


@register("symptom")
def trained_too_long(history: History) -> Finding | None:
    """Return a finding if the best validation is in the first tenth of the run, and none later is worse by much."""
    scores = scores_of(history)
    if scores is None:
        return None
    # Later ones that are as good within half a standard error are no worse
    last_good = int(np.flatnonzero(scores.val.values > scores.val.values.max() - scores.best_se / 2)[-1])
    if int(scores.val.steps[last_good]) > _EARLY * int(scores.val.steps[-1]):
        return None
    chance = chance_accuracy(history) or 0.0
    fallen = float(scores.val.values.max()) - scores.last_val > _SE * scores.best_se
    if fallen or scores.last_val <= chance + 3 * scores.best_se:
        return None
    return Finding(
        id="trained_too_long",
        severity=Severity.HINT,
        confidence=0.4,
        evidence=Evidence(
            numbers={"best": float(scores.val.values.max()), "last": scores.last_val},
            steps=scores.steps(scores.best),
            tags=(ACCURACY,),
        ),
        why=f"The best validation is that of step {scores.val.steps[scores.best]}; a shorter run may be as good.",
        advice=tuple(longer(history.facts.config, 0.5)),
        probe=None,
        source="Tuning Playbook, choosing the number of steps",
    )


@register("symptom")
def noisy_late(history: History) -> Finding | None:
    """Return a finding if validation accuracy jumps between the last validations by more than its standard error."""
    scores = scores_of(history)
    if scores is None:
        return None
    last = scores.val.values[-_LAST:]
    # Of the differences, so that a trend is no noise; the examples are the same each time, which only lowers it
    noise = float(np.diff(last).std(ddof=1)) / 2**0.5
    limit = max(_SE * binomial_se(float(last.mean()), scores.val_count), _LEAST_NOISE)
    if noise <= limit:
        return None
    config = history.facts.config
    averaged = [("average=ema",)] if config["average"]["name"] == "none" else []
    return Finding(
        id="noisy_late",
        severity=Severity.WARN,
        confidence=0.55,
        evidence=Evidence(
            numbers={"sd": noise, "limit": limit}, steps=scores.steps(len(scores.val) - len(last)), tags=(ACCURACY,)
        ),
        why=f"Validation accuracy jumps by {noise:.2g} between the last validations, more than its standard error "
        "explains: the last score is a matter of luck.",
        advice=(*decayed(config), *averaged, *divided_lr(config, 3)),
        probe=None,
        source="Tuning Playbook, training curves",
    )


@register("symptom")
def val_too_small(history: History) -> Finding | None:
    """Return a finding if the validation split is too small to see usual improvements."""
    scores = scores_of(history)
    if scores is None or 2 * scores.best_se <= _COARSE:
        return None
    return Finding(
        id="val_too_small",
        severity=Severity.HINT,
        confidence=0.4,
        evidence=Evidence(
            numbers={"two_se": 2 * scores.best_se, "examples": scores.val_count}, steps=scores.steps(), tags=(ACCURACY,)
        ),
        why=f"With {scores.val_count} validation examples, differences of accuracy below {2 * scores.best_se:.2g} may "
        "be chance.",
        advice=(),
        probe=None,
        source="the binomial standard error",
    )


@register("symptom")
def prior_collapse(history: History) -> Finding | None:
    """Return a finding if the last validations have one and the same accuracy near chance, as of one class for all."""
    scores, chance = scores_of(history), chance_accuracy(history)
    if scores is None or chance is None:
        return None
    last = scores.val.values[-_EQUAL:]
    if np.ptp(last) > 0 or last[0] > chance + _SE * binomial_se(chance, scores.val_count):
        return None
    return Finding(
        id="prior_collapse",
        severity=Severity.HINT,
        confidence=0.4,
        evidence=Evidence(
            numbers={"accuracy": float(last[0]), "majority": chance},
            steps=scores.steps(len(scores.val) - len(last)),
            tags=(ACCURACY,),
        ),
        why=f"The last validations all have accuracy {last[0]:.3g}; that is consistent with one class for all.",
        advice=(*((("init.head=prior",),) if "head" in history.facts.config["init"] else ()),),
        probe="python -m runner task=evaluate and look at the confusion matrix",
        source="Karpathy, A Recipe for Training Neural Networks",
    )


@register("symptom")
def bn_stats_mismatch(history: History) -> Finding | None:
    """Return a finding if training examples have a much higher loss in evaluation than in training."""
    config, blocks, clean = history.facts.config, whole_blocks(history), clean_loss(history)
    loss = history.series(TRAIN_LOSS).finite()
    if blocks is None or clean is None or len(loss) < 2 or config["norm"]["name"] not in ("batch", "sync_batch"):
        return None
    end, excess = float(blocks[-1]), float(loss.values[-2:].min()) - float(blocks[-1])
    if config["mix"]["name"] != "none" or excess <= _MISMATCH * end + _MISMATCH_LEAST:
        return None
    sure = excess > _FAR * end and excess > _MISMATCH * (history.facts.chance_loss() or excess)
    return Finding(
        id="bn_stats_mismatch",
        severity=Severity.WARN if sure else Severity.HINT,
        confidence=0.9 if sure else 0.6,
        evidence=Evidence(
            numbers={"training_mode": end, "evaluation_mode": clean},
            steps=(int(loss.steps[-2]), int(loss.steps[-1])),
            tags=(LOSS, TRAIN_LOSS),
        ),
        why=f"Training examples have loss {end:.3g} in training and {clean:.3g} in evaluation; running statistics of "
        "batch normalization may not fit the weights.",
        advice=(
            ("norm=group",),
            ("norm.momentum=0.01",),
            *((("average=none",),) if config["average"]["name"] != "none" else ()),
        ),
        probe="evaluate the last weights without their average",
        source="Ioffe and Szegedy 2015; Tuning Playbook",
    )
