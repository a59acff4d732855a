"""Each configuration against the baseline: paired differences, and a verdict that the seeds support."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from runner.comparing.groups import Group
from runner.comparing.statistics import (
    ALPHA,
    NO_INTERVAL,
    Interval,
    Moments,
    correlation,
    detectable_difference,
    holm_adjusted,
    is_equivalent,
    moments,
    paired_interval,
    pairs_needed,
    sample_sd,
    sign_flip_p,
    welch_interval,
)
from runner.engine.monitor import Monitor
from runner.status import Status

# Fewest seeds for a verdict
MIN_SEEDS = 3
SCORE_FORMAT = ".4f"


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """The score that is compared, and the difference that matters."""

    metric: str  # `<split>/<metric>`
    at: str  # `last` or `best` validation
    margin: float | None = None  # smaller differences do not matter; without it nothing is ever equivalent
    lower_is_better: bool = False  # of a component's metric

    @property
    def score(self) -> Monitor:
        """The score with its direction."""
        return Monitor(self.metric, lower_is_better=self.lower_is_better)

    @property
    def larger_is_better(self) -> bool:
        """True if a larger score is better."""
        return self.score.larger_is_better


@dataclass(frozen=True, kw_only=True)
class ComparedRow:
    """One configuration: its scores, and how they differ from the baseline's."""

    group: Group
    scores: dict[int, float]  # by seed
    mean: float
    sd: float  # nan below three seeds
    is_baseline: bool
    differences: dict[int, float]  # by seed, of the seeds that both sides have
    paired: Interval = NO_INTERVAL
    welch: Interval = NO_INTERVAL
    p_holm: float = math.nan
    p_sign_flip: float = math.nan  # p of the exact permutation test
    r: float = math.nan  # correlation of the pairs
    detectable: float = math.nan  # the true difference that is detected with 80 % power
    pairs_needed: int | None = None  # pairs that detect a true difference as large as the observed one
    better_in: int = 0  # number of seeds with a better score
    verdict: str = ""

    @property
    def failed(self) -> bool:
        """True if a run is excluded from the mean."""
        return len(self.scores) < len(self.group.runs)


def compare_with_baseline(groups: Sequence[Group], baseline: Group, criterion: Criterion) -> list[ComparedRow]:
    """Return a row for each configuration, with p-values adjusted over all rows that get a verdict."""
    others = baseline.scores(criterion.metric, criterion.at)
    against = moments(list(others.values()))
    rows = [_measure(group, others, against, criterion, is_baseline=group is baseline) for group in groups]
    seeds = len({run.seed for group in groups for run in group.runs})
    adjusted = holm_adjusted(
        [math.nan if _no_verdict_reason(row, baseline, criterion) else row.paired.p for row in rows]
    )
    rows = [replace(row, p_holm=p) for row, p in zip(rows, adjusted, strict=True)]
    return [replace(row, verdict=_verdict(row, baseline, criterion, seeds)) for row in rows]


def _measure(
    group: Group, others: Mapping[int, float], against: Moments, criterion: Criterion, *, is_baseline: bool
) -> ComparedRow:
    """Return a row without the adjusted p and the verdict, which depend on the other rows.

    `others` are the scores of the baseline by seed, `against` their moments.
    """
    scores = group.scores(criterion.metric, criterion.at)
    mean = fmean(scores.values()) if scores else math.nan
    sd = sample_sd(list(scores.values())) if len(scores) >= MIN_SEEDS else math.nan
    row = ComparedRow(
        group=group,
        scores=scores,
        mean=mean,
        sd=sd,
        is_baseline=is_baseline,
        differences=_paired_differences(scores, others),
    )
    if row.is_baseline:
        return row
    values = list(row.differences.values())
    sign = 1 if criterion.larger_is_better else -1
    gap = sample_sd(values)
    return replace(
        row,
        paired=paired_interval(values),
        welch=welch_interval(moments(list(scores.values())), against),
        p_sign_flip=sign_flip_p(values),
        r=correlation([scores[seed] for seed in row.differences], [others[seed] for seed in row.differences]),
        detectable=detectable_difference(gap, len(values)),
        pairs_needed=pairs_needed(fmean(values), gap) if values else None,
        better_in=sum(sign * value > 0 for value in values),
    )


def _paired_differences(scores: Mapping[int, float], others: Mapping[int, float]) -> dict[int, float]:
    """Return the differences of the seeds that both sides have."""
    return {seed: score - others[seed] for seed, score in scores.items() if seed in others}


def _verdict(row: ComparedRow, baseline: Group, criterion: Criterion, seeds: int) -> str:
    """Return the verdict on a row, with the number of seeds behind it if that is not all seeds of the comparison."""
    if row.is_baseline:
        return "baseline"
    if why := _no_verdict_reason(row, baseline, criterion):
        return why
    count = len(row.differences)
    return _verdict_of_all(row, criterion) + (f", from {count} of {seeds} seeds" if count < seeds else "")


def _verdict_of_all(row: ComparedRow, criterion: Criterion) -> str:
    """Return the verdict on a row; a p above .05 does not prove equality, so it is `not distinguishable`."""
    count = len(row.differences)
    if row.p_holm < ALPHA:
        return "better" if (row.paired.mean > 0) == criterion.larger_is_better else "worse"
    if criterion.margin is not None and is_equivalent(list(row.differences.values()), criterion.margin):
        return f"within +-{criterion.margin:g}"
    seen = f" (n={count} would show {row.detectable:{SCORE_FORMAT}})" if row.detectable < math.inf else ""
    return f"not distinguishable{seen}"


def _no_verdict_reason(row: ComparedRow, baseline: Group, criterion: Criterion) -> str:
    """Return why a row gets no verdict, empty if it gets one."""
    count = len(row.differences)
    for group in (row.group, baseline):
        for status in Status:
            if status.depends_on_score and (count_of := group.failures[status]):
                runs = f"{len(group.runs)} baseline runs" if group is baseline else str(len(group.runs))
                return f"none: {count_of} of {runs} {status}"
    if not row.scores:
        return "none: no score"
    if count < MIN_SEEDS:
        why = "one seed" if count == 1 else f"{count} seeds in common" if count == 0 else f"{count} seeds"
        return f"none: {why}, {MIN_SEEDS} needed"
    if _identical_scores(row, baseline, criterion):
        return "none: all scores are bit-identical; does the setting have any effect?"
    if not any(row.differences.values()):
        return "none: equal scores"
    return "none: all differences are equal" if math.isnan(row.paired.p) else ""


def _identical_scores(row: ComparedRow, baseline: Group, criterion: Criterion) -> bool:
    """Return True if all scores of both sides, not only the compared one, are equal seed by seed."""
    if any(row.differences.values()):
        return False
    own, other = ({run.seed: run.result.scores for run in group.complete} for group in (row.group, baseline))
    return all(own[seed] == other[seed] for seed in row.differences)
