"""The score that selection, early stopping, searches and tables go by, and which way it gets better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

# The scores of every validation, each with True if smaller values are better
_ALWAYS = {"accuracy": False, "loss": True, "nll": True}
# Older versions gave the scores of training examples the split of the steps' loss.
_RENAMED = {"train/accuracy": "train_eval/accuracy", "train/loss": "train_eval/loss"}
_Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Monitor:
    """A score by its tag, `<split>/<metric>` as in `val/accuracy`.

    Attributes:
        tag: The tag.
        lower_is_better: True if smaller values of a component's metric are better (`runner.directions` finds it out);
            accuracy, loss and nll have their own direction.
    """

    tag: str
    lower_is_better: bool = False

    @property
    def split(self) -> str:
        """The part of the data that it is measured on: `val`, `test`, ..."""
        return self.tag.partition("/")[0]

    @property
    def metric(self) -> str:
        """The metric: `accuracy`, `loss`, `nll`, or the name of a component."""
        return self.tag.partition("/")[2]

    @property
    def is_of_component(self) -> bool:
        """True if a component computes the metric; every validation has the others."""
        return self.metric not in _ALWAYS

    @property
    def larger_is_better(self) -> bool:
        """True if a larger value is better."""
        return not _ALWAYS.get(self.metric, self.lower_is_better)

    @property
    def direction(self) -> _Direction:
        """The word that Optuna uses for it."""
        return "maximize" if self.larger_is_better else "minimize"

    @property
    def sign(self) -> float:
        """1 if a larger value is better, else -1."""
        return 1.0 if self.larger_is_better else -1.0

    def changes_with(self, key: str) -> bool:
        """Return True if a config's key, `loss` or one of its knobs, changes what the score measures."""
        return self.metric == "loss" and key.partition(".")[0] == "loss" and key != "loss.label_smoothing"

    def rank(self, value: float) -> float:
        """Return the value such that larger is better, NaN as the worst."""
        return -math.inf if math.isnan(value) else self.sign * value

    def better(self, value: float, other: float) -> bool:
        """Return True if a value is better than another; NaN never is."""
        return self.rank(value) > self.rank(other)


def score_name(tag: str, at: str) -> str:
    """Return what tables call a score of the `best` or the `last` validation of a run."""
    return f"{tag} ({at})"


def with_new_tags(values: Mapping[str, float]) -> dict[str, float]:
    """Return the numbers of a step by the tags of this version.

    Only older versions wrote `train/accuracy`, and then `train/loss` beside it is the evaluation of training examples.
    """
    if "train/accuracy" not in values:
        return dict(values)
    return {_RENAMED.get(tag, tag): value for tag, value in values.items()}
