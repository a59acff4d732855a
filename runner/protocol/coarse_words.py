"""The outcome of step 4 in words: its criteria, headline and table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runner.protocol.expected_loss import entropy
from runner.protocol.outcome import Criterion, Level
from runner.protocol.trials import Metric, Trial, words_of

# Standard errors by which a score must exceed that of no model
_ERRORS = 3
# Share of trainings without a score that is a warning
_INFEASIBLE = 0.5
# The best of so many points must differ by more than this many standard deviations over seeds
_NEXT, _SEPARATE = 4, 2
_ROWS = 12


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Scores without a model.

    Attributes:
        majority: The share of the most frequent class of training among the validation examples.
        chance: The accuracy of random outputs.
        entropy: The entropy of the validation labels in nats: the least loss of a model that ignores its inputs.
        count: The number of validation examples.
    """

    majority: float
    chance: float
    entropy: float
    count: int

    @classmethod
    def of(cls, val: np.ndarray[Any, Any], train: np.ndarray[Any, Any]) -> Baseline:
        """Return the baseline of the numbers of validation and training examples of each class (K,)."""
        classes = max(len(val), len(train))
        val, train = (np.pad(each, (0, classes - len(each))) for each in (val, train))
        return cls(
            majority=float(val[train.argmax()] / val.sum()),
            chance=1 / classes,
            entropy=entropy(val / val.sum()),
            count=int(val.sum()),
        )


def criteria_of(
    best: Sequence[Trial], baseline: Baseline, edges: Sequence[str], sd: float, metric: Metric
) -> list[Criterion]:
    """Return the criteria; `best` are the points, the best first, `edges` the ends that the best is on."""
    finite = [each for each in best if each.finite]
    criteria = [_of_accuracy(finite, baseline), _of_loss(finite, baseline), _of_infeasible(best)]
    if not finite:
        return criteria
    inside = Criterion(
        name="inside the range",
        value=words_of(finite[0].values),
        threshold="not the lowest or highest",
        level=Level.WARN if edges else Level.PASS,
        why=f"the best point is on an edge ({', '.join(edges)}): a point beyond may be better" if edges else "",
        source="CS231n, neural-networks-3",
    )
    return [*criteria, inside, _of_spread(finite, sd, metric)]


def _of_accuracy(finite: Sequence[Trial], baseline: Baseline) -> Criterion:
    """Return the criterion that some point beats the most frequent class."""
    top = max((each.accuracy for each in finite), default=0.0)
    needed = baseline.majority + _ERRORS * math.sqrt(top * (1 - top) / baseline.count)
    beats = top > needed
    return Criterion(
        name="beats the most frequent class",
        value=f"{top:.4g}",
        threshold=f"> {needed:.4g} (most frequent class {baseline.majority:.4g}, chance {baseline.chance:.4g})",
        level=Level.PASS if beats else Level.FAIL,
        why="" if beats else "no training predicts validation examples: labels, splits or augmentation may be wrong",
    )


def _of_loss(finite: Sequence[Trial], baseline: Baseline) -> Criterion:
    """Return the criterion that some point has a smaller loss than the class frequencies.

    The standard error of a mean loss is taken as loss / sqrt(n): that of losses which vary as much as their mean.
    """
    least = min((each.nll for each in finite), default=math.inf)
    upper = least * (1 + _ERRORS / math.sqrt(baseline.count))
    beats = upper < baseline.entropy
    return Criterion(
        name="loss below that of the class frequencies",
        value=f"{least:.4g} + {_ERRORS} SE = {upper:.4g}" if math.isfinite(least) else "none is finite",
        threshold=f"< {baseline.entropy:.4g}",
        level=Level.PASS if beats else Level.FAIL,
        why="" if beats else "no training has a lower validation loss than the class frequencies alone",
    )


def _of_infeasible(best: Sequence[Trial]) -> Criterion:
    """Return the criterion that most points can be trained."""
    lost = sum(not each.finite for each in best)
    many = lost > _INFEASIBLE * len(best)
    return Criterion(
        name="trainings that diverged",
        value=f"{lost} of {len(best)}",
        threshold=f"at most {_INFEASIBLE:.0%}",
        level=Level.WARN if many else Level.PASS,
        why="most points cannot be trained: the learning rates are too high" if many else "",
        source="tuning playbook",
    )


def _of_spread(finite: Sequence[Trial], sd: float, metric: Metric) -> Criterion:
    """Return the criterion that the best point differs from the next ones by more than seeds do."""
    following = finite[1 : 1 + _NEXT]
    gap = abs(finite[0].score - following[-1].score) if following else math.nan
    known = math.isfinite(sd) and math.isfinite(gap)
    together = known and gap < _SEPARATE * sd
    if not known:
        level, why = Level.HINT, "one seed does not tell how much seeds differ: the best points are kept"
    elif together:
        level, why = Level.WARN, "the best points differ no more than seeds do: all of them are kept"
    else:
        level, why = Level.PASS, ""
    return Criterion(
        name="the best point stands out",
        value=f"{gap:.3g} in {metric} to place {1 + len(following)}" if following else "one point",
        threshold=f">= {_SEPARATE} x {sd:.3g} (sd over seeds)" if known else f"{_SEPARATE} sd over seeds: unknown",
        level=level,
        why=why,
    )


def headline_of(best: Sequence[Trial], count: int, epochs: float, metric: Metric) -> str:
    """Return the line about the best point."""
    if not best[0].finite:
        return f"all {count} trainings diverged"
    return (
        f"{words_of(best[0].values)}: {metric} {best[0].score:.4g}, accuracy {best[0].accuracy:.4g} "
        f"after {epochs:g} epochs, best of {count} trainings"
    )


def rows_of(best: Sequence[Trial], metric: Metric) -> list[dict[str, str]]:
    """Return the rows of the first points."""
    return [
        {
            "rank": str(place),
            **{key: f"{value:.4g}" for key, value in each.values.items()},
            metric: f"{each.score:.4g}" if each.finite else "",
            "accuracy": f"{each.accuracy:.4g}" if each.finite else "",
            "outcome": "" if each.finite else "diverged",
        }
        for place, each in enumerate(best[:_ROWS], 1)
    ]
