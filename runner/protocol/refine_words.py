"""The outcome of step 5: the winner against the incumbent over fresh seeds, in numbers and in words."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from runner.comparing.statistics import NO_INTERVAL, Interval, paired_interval
from runner.printing import counted
from runner.protocol.outcome import Criterion, Level
from runner.protocol.trials import Metric, Trial, words_of
from runner.search.refine import Request


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """The trainings with fresh seeds.

    Attributes:
        winner: Those of the best point of the search, in the order of their seeds.
        incumbent: Those of the best candidate with the same seeds; empty if it is the winner.
        sign: 1 if a larger score is better, else -1.
        seed_sd: The standard deviation over seeds, pooled over all points with several.
        reason: Why the rounds ended.
    """

    winner: Sequence[Trial]
    incumbent: Sequence[Trial]
    sign: float
    seed_sd: float
    reason: str = ""

    @property
    def interval(self) -> Interval:
        """Return the mean of winner minus incumbent over the seeds, with its 95 % t-interval; nan without both."""
        pairs = zip(self.winner, self.incumbent, strict=False)
        differences = [one.score - other.score for one, other in pairs]
        finite = bool(differences) and all(map(math.isfinite, differences))
        return paired_interval(differences) if finite else NO_INTERVAL

    @property
    def worse(self) -> bool:
        """True if the winner is worse than the incumbent on the mean of the fresh seeds, or the only one to diverge."""
        if not self.incumbent or not all(each.finite for each in self.incumbent):
            return False
        return not all(each.finite for each in self.winner) or self.sign * self.interval.mean < 0

    @property
    def kept(self) -> Sequence[Trial]:
        """Return the trainings of the point that is handed on: the better one on the fresh seeds."""
        return self.incumbent if self.worse else self.winner

    @property
    def chosen(self) -> dict[str, float]:
        """Return the overrides of that point."""
        return dict(self.kept[0].values)


def criteria_of(confirmed: Confirmed, edges: Sequence[str], metric: Metric) -> list[Criterion]:
    """Return the criteria; `edges` are the ends of what was tried that the winner is on."""
    lost = sum(not each.finite for each in confirmed.kept)
    return [
        Criterion(
            name="trains with fresh seeds",
            value=f"{len(confirmed.kept) - lost} of {len(confirmed.kept)}",
            threshold="all",
            level=Level.FAIL if lost else Level.PASS,
            why="a training with a seed that did not choose the point diverged" if lost else "",
        ),
        Criterion(
            name="inside the range",
            value=words_of(confirmed.winner[0].values),
            threshold="not the lowest or highest",
            level=Level.WARN if edges else Level.PASS,
            why=f"the winner is on an edge ({', '.join(edges)}): a point beyond may be better" if edges else "",
            source="CS231n, neural-networks-3",
        ),
        _of_difference(confirmed, metric),
    ]


def _of_difference(confirmed: Confirmed, metric: Metric) -> Criterion:
    """Return the criterion that the winner is not worse than the incumbent on fresh seeds."""
    if not confirmed.incumbent:
        return Criterion(
            name="not worse than the incumbent",
            value="the same point",
            threshold="no worse on fresh seeds",
            level=Level.PASS,
            why="the search found no better point than the best candidate",
        )
    return Criterion(
        name="not worse than the incumbent",
        value=_difference(confirmed.interval, metric),
        threshold=f"{'>=' if confirmed.sign > 0 else '<='} 0 on {counted(len(confirmed.winner), 'fresh seed')}",
        level=Level.WARN if _verdict(confirmed) == "worse" else Level.PASS,
        why="on fresh seeds the winner is not better: the incumbent is handed on" if confirmed.worse else "",
        source="winner's curse: the score that chose a point is biased",
    )


def _difference(interval: Interval, metric: Metric) -> str:
    """Return winner minus incumbent in words."""
    if math.isnan(interval.mean):
        return "a training diverged"
    if math.isnan(interval.low):
        return f"{interval.mean:+.3g} {metric}, no interval"
    return f"{interval.mean:+.3g} {metric} (95 % interval {interval.low:+.3g} to {interval.high:+.3g})"


def _verdict(confirmed: Confirmed) -> str:
    """Return what the interval says of the winner: better, worse, or not distinguishable."""
    interval = confirmed.interval
    low, high = sorted((confirmed.sign * interval.low, confirmed.sign * interval.high))
    return "better" if low > 0 else "worse" if high < 0 else "not distinguishable"


def sure_of(confirmed: Confirmed, metric: Metric) -> str:
    """Return how sure the choice is, in a sentence or two."""
    count = counted(len(confirmed.winner), "fresh seed")
    spread = "" if math.isnan(confirmed.seed_sd) else f" The sd over seeds is {confirmed.seed_sd:.2g}."
    if not confirmed.incumbent:
        return f"How sure: the search found nothing better than the best candidate, trained with {count}.{spread}"
    kept = "the incumbent" if confirmed.worse else "the winner"
    difference = _difference(confirmed.interval, metric)
    about = f"{difference}: {_verdict(confirmed)}; {kept} is handed on.{spread}"
    return f"How sure: winner minus incumbent over {count}: {about}"


def headline_of(confirmed: Confirmed, count: int, epochs: float, metric: Metric) -> str:
    """Return the line about the choice."""
    scores = [each.score for each in confirmed.kept]
    if not all(map(math.isfinite, scores)):
        return f"the best of {count} trainings diverges with a fresh seed"
    name = "incumbent" if confirmed.worse else "winner"
    return (
        f"{words_of(confirmed.chosen)} ({name}): {metric} {statistics.fmean(scores):.4g} "
        f"over {counted(len(scores), 'fresh seed')} after {epochs:g} epochs, {count} trainings"
    )


def rows_of(done: Sequence[tuple[Request, Trial]], metric: Metric) -> list[dict[str, str]]:
    """Return a row for each point of a stage: its mean over the seeds of the stage."""
    groups: dict[tuple[str, str], list[Trial]] = {}
    for request, trial in done:
        groups.setdefault((request.stage, words_of(trial.values)), []).append(trial)
    return [
        {
            "stage": stage,
            **{key: f"{value:.4g}" for key, value in each[0].values.items()},
            metric: f"{statistics.fmean(one.score for one in each):.4g}" if all(t.finite for t in each) else "",
            "accuracy": f"{statistics.fmean(one.accuracy for one in each):.4g}" if all(t.finite for t in each) else "",
            "seeds": str(len(each)),
        }
        for (stage, _), each in groups.items()
    ]
