"""Symptoms of overfitting and underfitting: the gap between training and validation scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from runner.doctor.advice import rounded
from runner.doctor.changes_advised import longer, regularized
from runner.doctor.evaluations import (
    ACCURACY,
    TRAIN_ACCURACY,
    VAL_LOSS,
    Scores,
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
# Rise of the validation loss that matters, of the loss of zero outputs
_RISE = 0.3
# Gaps of accuracy that matter if validation gets worse, that matter always, that are small; training error that is high
_WIDE, _WIDER, _VERY_WIDE, _NARROW, _HIGH_ERROR = 0.10, 0.15, 0.25, 0.02, 0.05
# Training error of a model that has stopped early
_MUCH_ERROR = 0.2
# Examples of a class below which a data set is small, and very small
_FEW_EXAMPLES, _VERY_FEW, _SURE_SE = 50, 20, 5.0
# Units of a layer that are few for any task, and keys of a model's widths
_FEW_UNITS, _WIDTHS = 4, ("hidden", "channels", "width", "dim")


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
    rise, chance = _generalization_loss(loss.values), history.facts.chance_loss()
    best = int(loss.values.argmin())
    large = chance is None or loss.values[-1] - loss.values[best] > _RISE * chance
    if fallen or rise <= _GENERALIZATION or not large or not _strips_rise(loss.values):
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
    scores, loss = scores_of(history), history.series(VAL_LOSS).finite()
    if scores is None or scores.gap is None or scores.gap <= _SE * scores.gap_error:
        return None
    # A gap alone costs nothing while validation does not get worse
    worse = len(loss) > 0 and _generalization_loss(loss.values) > _GENERALIZATION
    if scores.gap <= (_WIDER if worse else _VERY_WIDE):
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
    if each > _FEW_EXAMPLES or scores.gap <= max(_SE * scores.gap_error, _WIDE):
        return None
    sure = each < _VERY_FEW and scores.gap > max(_SURE_SE * scores.gap_error, _VERY_WIDE)
    return Finding(
        id="few_examples",
        severity=Severity.WARN if sure else Severity.HINT,
        confidence=0.9 if sure else 0.8,
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
    error, few = 1 - scores.last_train, _fewest_units(history.facts.config["model"])
    if error <= _HIGH_ERROR or scores.gap > max(_SE * scores.gap_error, _NARROW) or not (few or _stopped(scores)):
        return None
    config, decay = history.facts.config, history.facts.config["optim"].get("weight_decay")
    less = [(f"optim.weight_decay={rounded(decay / 3)}",)] if isinstance(decay, (int, float)) and decay > 0 else []
    return Finding(
        id="underfit",
        severity=Severity.HINT,
        confidence=0.7 if few else 0.35,
        evidence=gap_evidence(scores),
        why=f"Accuracy is {scores.last_train:.3g} on training examples and hardly lower on validation examples; "
        + (f"a layer of {few} units may be too small." if few else "the model may be too small or too regularized."),
        advice=(*([("regularizer=[]",)] if config["regularizer"] else []), *less, *longer(config, 2)),
        probe="overfit one batch",
        source="CS231n, neural networks 3",
    )


def _stopped(scores: Scores) -> bool:
    """True if much of the training examples is wrong, and no more were right at the end than after half of the run."""
    half = scores.train.values[len(scores.train) // 2 - 1]
    last = float(scores.train.values[-1])
    return bool(last < 1 - _MUCH_ERROR and last <= half)


def _fewest_units(model: Mapping[str, Any]) -> int:
    """Return the units of a model's smallest layer if they are few for any task, else 0."""
    widths = [model[key] for key in _WIDTHS if key in model]
    units = [each for width in widths for each in (width if isinstance(width, list | tuple) else [width])]
    return min((each for each in units if isinstance(each, int) and each < _FEW_UNITS), default=0)
