"""Symptoms of overfitting and underfitting: the gap between training and validation scores."""

from __future__ import annotations

import numpy as np

from runner.doctor.advice import rounded
from runner.doctor.changes_advised import longer, regularized
from runner.doctor.evaluations import (
    ACCURACY,
    TRAIN_ACCURACY,
    VAL_LOSS,
    gap_evidence,
    scores_of,
)
from runner.doctor.finding import Evidence, Finding, Severity
from runner.doctor.history import History
from runner.doctor.measures import Values
from runner.registry import register

# Generalization loss in percent (Prechelt 1998), successive strips, standard errors
_GENERALIZATION, _STRIPS, _SE = 5.0, 3, 3.0
# Validations of a strip; 1 where there are fewer than 15 (Prechelt: 5)
_STRIP, _FEW = 5, 15
# Gaps of accuracy that matter, that are small; training error that is high
_WIDE, _NARROW, _HIGH_ERROR = 0.10, 0.02, 0.05
# Examples of a class below which a data set is small
_FEW_EXAMPLES = 20


def _strips_rise(errors: Values) -> bool:
    """True if the error is higher in each of the last three strips than in the one before (Prechelt's UP_3)."""
    length = _STRIP if len(errors) >= _FEW else 1
    count = len(errors) // length
    if count < _STRIPS + 1:
        return False
    means = errors[len(errors) - count * length :].reshape(count, length).mean(axis=1)
    return bool((np.diff(means)[-_STRIPS:] > 0).all())


def _generalization_loss(errors: Values) -> float:
    """Return by how many percent the last error is above the lowest one."""
    lowest = float(errors.min())
    return 100 * (float(errors[-1]) / lowest - 1) if lowest > 0 else (np.inf if errors[-1] > 0 else 0.0)


@register("symptom")
def overfit_rising(history: History) -> Finding | None:
    """Return a finding if the validation error rises while the training examples still get better."""
    scores = scores_of(history)
    if scores is None or len(scores.train) < 2:
        return None
    errors = 1 - scores.val.values
    drop, loss = float(scores.val.values.max()) - scores.last_val, _generalization_loss(errors)
    half = scores.train.values[scores.best] if scores.best < len(scores.train) else scores.train.values[0]
    improving = scores.train.values[-1] >= half
    if loss <= _GENERALIZATION or drop <= _SE * scores.best_se or not improving or not _strips_rise(errors):
        return None
    return Finding(
        id="overfit_rising",
        severity=Severity.WARN,
        confidence=0.9,
        evidence=Evidence(
            numbers={"best": float(scores.val.values.max()), "last": scores.last_val, "generalization_loss": loss},
            steps=scores.steps(scores.best),
            tags=(ACCURACY, TRAIN_ACCURACY),
        ),
        why=f"Validation accuracy falls from {scores.val.values.max():.3g} to {scores.last_val:.3g} while that on "
        "training examples does not: the model overfits.",
        advice=(*regularized(history.facts.config), ("patience=5",)),
        probe=None,
        source="Prechelt 1998; Tuning Playbook, problematic overfitting",
    )


@register("symptom")
def overconfident(history: History) -> Finding | None:
    """Return a finding if the validation loss rises while the accuracy does not fall."""
    scores, loss = scores_of(history), history.series(VAL_LOSS).finite()
    if scores is None or len(loss) < 2:
        return None
    fallen = float(scores.val.values.max()) - scores.last_val > 2 * scores.best_se
    rise = _generalization_loss(loss.values)
    best = int(loss.values.argmin())
    if fallen or rise <= _GENERALIZATION or not _strips_rise(loss.values):
        return None
    smoothing = history.facts.config["loss"].get("label_smoothing")
    return Finding(
        id="overconfident",
        severity=Severity.HINT,
        confidence=0.6,
        evidence=Evidence(
            numbers={"lowest": float(loss.values.min()), "last": float(loss.values[-1])},
            steps=(int(loss.steps[best]), int(loss.steps[-1])),
            tags=(VAL_LOSS, ACCURACY),
        ),
        why=f"Validation loss rises from {loss.values.min():.3g} to {loss.values[-1]:.3g} while accuracy holds; that "
        "is consistent with probabilities that are too sure.",
        advice=(*((("loss.label_smoothing=0.1",),) if smoothing == 0 else ()), *regularized(history.facts.config)),
        probe=None,
        source="Guo et al. 2017; Prechelt 1998",
    )


@register("symptom")
def overfit_gap(history: History) -> Finding | None:
    """Return a finding if training examples are scored much better than validation examples."""
    scores = scores_of(history)
    if scores is None or scores.gap is None or scores.gap <= max(_SE * scores.gap_error, _WIDE):
        return None
    return Finding(
        id="overfit_gap",
        severity=Severity.HINT,
        confidence=0.5,
        evidence=gap_evidence(scores),
        why=f"Accuracy is {scores.last_train:.3g} on training and {scores.last_val:.3g} on validation examples; more "
        "regularization or more data may help.",
        advice=tuple(regularized(history.facts.config)),
        probe=None,
        source="CS231n, neural networks 3",
    )


@register("symptom")
def few_examples(history: History) -> Finding | None:
    """Return a finding if there are few examples of a class and training examples are scored much better."""
    scores, facts = scores_of(history), history.facts
    if scores is None or not facts.classes or not facts.train_examples or scores.gap is None:
        return None
    each = facts.train_examples / facts.classes
    if each >= _FEW_EXAMPLES or scores.gap <= max(_SE * scores.gap_error, _WIDE):
        return None
    return Finding(
        id="few_examples",
        severity=Severity.HINT,
        confidence=0.8,
        evidence=gap_evidence(scores),
        why=f"A class has {each:.3g} training examples, and validation accuracy is {scores.gap:.2f} below theirs; "
        "more data may help most.",
        advice=tuple(regularized(history.facts.config)),
        probe="train on half of the examples: if validation gets worse by much, more of them help",
        source="CS231n, neural networks 3",
    )


@register("symptom")
def underfit(history: History) -> Finding | None:
    """Return a finding if training examples are scored badly too, and hardly better than validation examples."""
    scores = scores_of(history)
    if scores is None or scores.gap is None or scores.last_train is None:
        return None
    error = 1 - scores.last_train
    if error <= _HIGH_ERROR or scores.gap > max(_SE * scores.gap_error, _NARROW):
        return None
    config, decay = history.facts.config, history.facts.config["optim"].get("weight_decay")
    less = [(f"optim.weight_decay={rounded(decay / 3)}",)] if isinstance(decay, (int, float)) and decay > 0 else []
    return Finding(
        id="underfit",
        severity=Severity.HINT,
        confidence=0.35,
        evidence=gap_evidence(scores),
        why=f"Accuracy is {scores.last_train:.3g} on training examples and hardly lower on validation examples; the "
        "model may be too small, too regularized or trained too briefly.",
        advice=(*([("regularizer=[]",)] if config["regularizer"] else []), *less, *longer(config, 2)),
        probe="overfit one batch",
        source="CS231n, neural networks 3",
    )
