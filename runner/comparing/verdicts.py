"""Each configuration against the baseline: differences by seed, and a verdict that says no more than they do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from runner.comparing.groups import Group
from runner.comparing.statistics import (
    ALPHA,
    NOTHING,
    Interval,
    correlation,
    detectable,
    equivalent,
    holm,
    paired,
    pairs_needed,
    sign_flip,
    spread,
    welch,
)

FEW = 3  # seeds without which nothing is said
NUMBER = ".4f"
TELLING = ("diverged", "pruned")  # ends that hang on the score: leaving such seeds out would flatter


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What is compared, and how."""

    metric: str
    at: str
    margin: float | None = None  # differences below it do not matter; None: not said, so nothing is ever equivalent

    @property
    def larger_is_better(self) -> bool:
        """Tell which way is up."""
        return self.metric.endswith("accuracy")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One configuration: its scores, and how they differ from the baseline's."""

    group: Group
    scores: dict[int, float]  # by seed
    mean: float
    sd: float  # nan below three seeds
    is_baseline: bool
    differences: dict[int, float]  # by seed, of the seeds that both have
    paired: Interval = NOTHING
    welch: Interval = NOTHING
    holm: float = math.nan
    flips: float = math.nan  # exact p of the sign flips
    r: float = math.nan  # correlation of the pairs
    detectable: float = math.nan  # the smallest true difference that would be seen in 80 %
    needed: int | None = None  # pairs that would show a true difference of the size seen
    better_in: int = 0  # seeds
    verdict: str = ""

    @property
    def failed(self) -> bool:
        """Tell whether a seed is missing from the mean."""
        return len(self.group.complete) < len(self.group.runs)


def compare(groups: Sequence[Group], against: Group, rule: Rule) -> list[Row]:
    """Return a row for each configuration, p-values adjusted over all of those that something may be said of."""
    rows = [measured(group, against, rule) for group in groups]
    adjusted = holm([math.nan if withheld(row, against, rule) else row.paired.p for row in rows])
    rows = [replace(row, holm=p) for row, p in zip(rows, adjusted, strict=True)]
    return [replace(row, verdict=verdict(row, against, rule)) for row in rows]


def measured(group: Group, against: Group, rule: Rule) -> Row:
    """Return a row without what hangs on the other rows."""
    scores, others = (each.scores(rule.metric, rule.at) for each in (group, against))
    mean = fmean(scores.values()) if scores else math.nan
    sd = spread(list(scores.values())) if len(scores) >= FEW else math.nan
    row = Row(
        group=group, scores=scores, mean=mean, sd=sd, is_baseline=group is against, differences=by_seed(scores, others)
    )
    if row.is_baseline:
        return row
    values = list(row.differences.values())
    sign = 1 if rule.larger_is_better else -1
    gap = spread(values)
    return replace(
        row,
        paired=paired(values),
        welch=welch(list(scores.values()), list(others.values())),
        flips=sign_flip(values),
        r=correlation([scores[seed] for seed in row.differences], [others[seed] for seed in row.differences]),
        detectable=detectable(gap, len(values)),
        needed=pairs_needed(fmean(values), gap) if values else None,
        better_in=sum(sign * value > 0 for value in values),
    )


def by_seed(scores: Mapping[int, float], others: Mapping[int, float]) -> dict[int, float]:
    """Return the difference of each seed that both have."""
    return {seed: score - others[seed] for seed, score in scores.items() if seed in others}


def verdict(row: Row, against: Group, rule: Rule) -> str:
    """Return what may be said of a row; one seed gives none, and p > .05 is no proof that nothing is there."""
    if row.is_baseline:
        return "baseline"
    count = len(row.differences)
    if silent := withheld(row, against, rule):
        return silent
    if row.holm < ALPHA:
        return "better" if (row.paired.mean > 0) == rule.larger_is_better else "worse"
    if rule.margin is not None and equivalent(list(row.differences.values()), rule.margin):
        return f"within +-{rule.margin:g}"
    seen = f" (n={count} would show {row.detectable:{NUMBER}})" if row.detectable < math.inf else ""
    return f"not distinguishable{seen}"


def withheld(row: Row, against: Group, rule: Rule) -> str:
    """Return why nothing is said, or nothing."""
    count = len(row.differences)
    for group in (row.group, against):
        for fate in TELLING:
            if group.fates[fate]:
                whose = "of the baseline's" if group is against else "of"
                return f"none: {group.fates[fate]} {whose} {len(group.runs)} {fate}"
    if not row.scores:
        return "none: no score"
    if count < FEW:
        why = "one seed" if count == 1 else f"{count} seeds in common" if count == 0 else f"{count} seeds"
        return f"none: {why}, {FEW} needed"
    if alike(row, against, rule):
        return "none: every score is the same to the bit; does what differs act?"
    if not any(row.differences.values()):
        return "none: equal scores"
    return "none: differences without spread" if math.isnan(row.paired.p) else ""


def alike(row: Row, against: Group, rule: Rule) -> bool:
    """Tell whether all scores of both, not only the compared one, are the same seed by seed."""
    own, other = ({run.seed: run.result.scores for run in group.complete} for group in (row.group, against))
    return all(own[seed] == other[seed] for seed in row.differences)
