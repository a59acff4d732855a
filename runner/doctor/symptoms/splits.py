"""Symptoms of splits that do not fit together: validation is easier, at chance, or part of the training examples."""

from __future__ import annotations

import numpy as np

from runner.doctor.evaluations import (
    ACCURACY,
    LEAST,
    TRAIN_ACCURACY,
    TRAIN_LOSS,
    VAL_LOSS,
    chance_accuracy,
    clean_loss,
    gap_evidence,
    scores_of,
)
from runner.doctor.finding import Evidence, Finding, Severity
from runner.doctor.history import History
from runner.doctor.measures import TREND_Z, binomial_se, mann_kendall
from runner.engine.equal_examples import EqualExamples
from runner.registry import register

# Standard errors, and the accuracy above chance at which training examples are learned
_SE, _WIDE = 3.0, 0.10
# Clean training loss, of that of zero outputs, at which all is learned; distance of the two losses on the log scale
_LEARNED, _SAME = 0.05, 0.25
_LEAK_VALIDATIONS = 3
# Of the loss of zero outputs: a fall of the training loss that is more than noise
_FALLEN = 0.02
# Shares of the validation examples with a copy in training: from the first on they may move the score by the tenth of a
# point in which models are compared, above the second they are a fault of the splits and not a flaw of the data set
_FEW_COPIES, _MANY_COPIES = 0.001, 0.01
# Data with few different values have equal examples in any split: up to so many times the usual share they are no leak,
# but where half of the examples are known, validation says little
_USUAL, _HALF = 3.0, 0.5


@register("symptom")
def val_better(history: History) -> Finding | None:
    """Return a finding if validation examples are scored better than training examples."""
    scores = scores_of(history)
    if scores is None or scores.gap is None or -scores.gap <= _SE * scores.gap_error:
        return None
    return Finding(
        id="val_better",
        severity=Severity.WARN,
        confidence=0.8,
        evidence=gap_evidence(scores),
        why=f"Accuracy is {scores.last_val:.3g} on validation and {scores.last_train:.3g} on training examples: the "
        "validation examples are easier, or copies of training examples.",
        advice=_without_copies(history),
        probe="compare the examples of both splits",
        source="Tuning Playbook; CS231n, neural networks 3",
    )


def _without_copies(history: History) -> tuple[tuple[str, ...], ...]:
    """Return the advice to leave out training examples that are also in another split, where the data can."""
    return (("data.duplicates=drop",),) if "duplicates" in history.facts.config["data"] else ()


@register("symptom")
def val_at_chance(history: History) -> Finding | None:
    """Return a finding if validation stays at chance while the training examples are learned."""
    scores, chance = scores_of(history), chance_accuracy(history)
    if scores is None or chance is None or scores.last_train is None:
        return None
    # The best of several validations is above chance by itself
    best = float(np.median(np.sort(scores.val.values)[-3:]))
    limit = chance + _SE * binomial_se(chance, scores.val_count)
    learned = chance + max(_WIDE, 5 * binomial_se(chance, scores.train_count))
    sure = scores.last_train > learned
    if best > limit or not (sure or _only_train_improves(history)):
        return None
    return Finding(
        id="val_at_chance",
        severity=Severity.WARN if sure else Severity.HINT,
        confidence=0.95 if sure else 0.7,
        evidence=Evidence(
            numbers={"best_val": best, "chance": chance, "train": scores.last_train},
            steps=scores.steps(),
            tags=(ACCURACY, TRAIN_ACCURACY),
        ),
        why=f"Validation stays at chance ({chance:.3g}) while {scores.last_train:.0%} of the training examples are "
        f"learned{':' if sure else '; this is consistent with'} labels that do not belong to their examples, or splits "
        "with different labels or preprocessing.",
        advice=(),
        probe="look at training and validation examples with their labels: python -m runner task=preview",
        source="Zhang et al. 2017; Karpathy, A Recipe for Training Neural Networks",
    )


def _only_train_improves(history: History) -> bool:
    """True if the loss on training examples falls below that of zero outputs, and that on validation ends above it."""
    train, val = history.series(TRAIN_LOSS).finite(), history.series(VAL_LOSS).finite()
    chance, count = history.facts.chance_loss(), len(train)
    if chance is None or count < 2 * LEAST or not len(val):
        return False
    fallen = train.values[-1] < (1 - _FALLEN) * chance and mann_kendall(train.values[-count // 2 :]) < -TREND_Z
    return bool(fallen and float(val.values[-1]) > chance)


@register("symptom")
def val_leak(history: History) -> Finding | None:
    """Return a finding if validation examples equal training examples, or the losses of both splits are equal."""
    equal = history.facts.equal_examples
    return _equal_losses(history) if equal is None else _equal_examples(history, equal)


def _equal_examples(history: History, equal: EqualExamples) -> Finding | None:
    """Return a finding if more validation examples equal a training example than is usual in such data."""
    by_chance = equal.share <= _USUAL * equal.usual
    if equal.share <= (_HALF if by_chance else _FEW_COPIES):
        return None
    certain = equal.share > _MANY_COPIES and not by_chance
    said = f"{equal.val_in_train} of {equal.val} validation examples equal a training example ({equal.share:.1%})"
    few, many = "they may raise validation accuracy a little", "there may be copies, or few different values"
    means = "validation accuracy is too high" if certain else many if by_chance else few
    return Finding(
        id="val_leak",
        severity=Severity.ERROR if certain else Severity.HINT,
        confidence=1.0 if certain else 0.5,
        evidence=Evidence(
            numbers={
                "copies": equal.val_in_train,
                "val": equal.val,
                "share": equal.share,
                "limit": _HALF if by_chance else _MANY_COPIES if certain else _FEW_COPIES,
                "usual_share": equal.usual,
            },
            steps=(1, history.facts.steps),
            tags=(),
        ),
        why=f"{said}: {means}.",
        advice=_without_copies(history),
        probe=None if certain else "compare the examples of both splits",
        source="exact: all values of the examples; Kapoor and Narayanan 2023",
    )


def _equal_losses(history: History) -> Finding | None:
    """Return a finding if all is learned and the losses of both splits are equal, as where one contains the other."""
    train, val = history.series(TRAIN_LOSS).finite(), history.series(VAL_LOSS).finite()
    chance, clean = history.facts.chance_loss(), clean_loss(history)
    scores = scores_of(history)
    if scores is None or not chance or clean is None or clean > _LEARNED * chance or len(train) != len(val):
        return None
    last = np.log(np.maximum(val.values, 1e-12) / np.maximum(train.values, 1e-12))[-_LEAK_VALIDATIONS:]
    if np.abs(last).max() > _SAME:
        return None
    return Finding(
        id="val_leak",
        severity=Severity.HINT,
        confidence=0.6,
        evidence=Evidence(
            numbers={"train_loss": clean, "val_loss": float(val.values[-1])},
            steps=(int(val.steps[-_LEAK_VALIDATIONS]), int(val.steps[-1])),
            tags=(TRAIN_LOSS, VAL_LOSS),
        ),
        why=f"Both losses end at {clean:.2g}, without any gap; this is consistent with validation examples among the "
        "training examples, or with a very easy task.",
        advice=_without_copies(history),
        probe="compare the examples of both splits",
        source="Kapoor and Narayanan 2023",
    )
