"""The scores of a run on validation and training examples, with their standard errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runner.doctor.finding import Evidence
from runner.doctor.history import History, Series
from runner.doctor.measures import binomial_se, gap_se

ACCURACY, VAL_LOSS = "val/accuracy", "val/loss"
TRAIN_ACCURACY, TRAIN_LOSS = "train_eval/accuracy", "train_eval/loss"
# Validations below which no curve of scores is judged
LEAST = 8


@dataclass(frozen=True)
class Scores:
    """Accuracies of each validation, and the number of examples behind them.

    Attributes:
        val: The accuracy on validation examples.
        train: The accuracy of the same model on training examples without augmentation, empty if it was not logged.
        val_count: The number of validation examples, positive.
        train_count: The number of training examples that are scored: as many as validate, if there are so many.
    """

    val: Series
    train: Series
    val_count: int
    train_count: int

    @property
    def best(self) -> int:
        """The place of the best validation, the first of equal ones."""
        return int(self.val.values.argmax())

    @property
    def last_val(self) -> float:
        """The last validation accuracy."""
        return float(self.val.values[-1])

    @property
    def last_train(self) -> float | None:
        """The last accuracy on training examples, None without one."""
        return float(self.train.values[-1]) if len(self.train) else None

    @property
    def best_se(self) -> float:
        """The standard error of the best validation accuracy."""
        return binomial_se(float(self.val.values.max()), self.val_count)

    @property
    def gap(self) -> float | None:
        """The last accuracy on training examples minus that on validation examples."""
        train = self.last_train
        return None if train is None else train - self.last_val

    @property
    def gap_error(self) -> float:
        """The standard error of the gap, infinite without one."""
        train = self.last_train
        return np.inf if train is None else gap_se(train, self.train_count, self.last_val, self.val_count)

    def steps(self, first: int = 0) -> tuple[int, int]:
        """Return the steps from a validation to the last one."""
        return int(self.val.steps[first]), int(self.val.steps[-1])


def scores_of(history: History) -> Scores | None:
    """Return the scores of a run, None if it has fewer than 8 validations or their size is not known."""
    val, facts = history.series(ACCURACY).finite(), history.facts
    if len(val) < LEAST or facts.val_examples < 1:
        return None
    count = min(facts.train_examples, facts.val_examples) or facts.val_examples
    return Scores(val, history.series(TRAIN_ACCURACY).finite(), facts.val_examples, count)


def chance_accuracy(history: History) -> float | None:
    """Return the accuracy of always the most frequent class, None if neither shares nor classes are known."""
    majority = history.facts.majority()
    if majority is not None:
        return majority
    return 1 / history.facts.classes if history.facts.classes else None


def clean_loss(history: History) -> float | None:
    """Return the last loss on training examples without augmentation or dropout, None if it was not logged."""
    loss = history.series(TRAIN_LOSS).finite()
    return float(loss.values[-1]) if len(loss) else None


def gap_evidence(scores: Scores) -> Evidence:
    """Return the evidence of a gap between the two accuracies."""
    return Evidence(
        numbers={"train": scores.last_train or 0.0, "val": scores.last_val, "se": scores.gap_error},
        steps=scores.steps(len(scores.val) - 1),
        tags=(TRAIN_ACCURACY, ACCURACY),
    )
