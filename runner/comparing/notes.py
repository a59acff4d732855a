"""What must be known to read a comparison: how few seeds there are, what they could see, and the winner's curse."""

from __future__ import annotations

from collections.abc import Sequence

from runner.comparing.runs import Run
from runner.comparing.statistics import lead_by_chance
from runner.comparing.verdicts import FEW, NUMBER, Row, Rule

MANY = 5  # configurations from which on the best one is told of as the best of many
RELIABLE = 5  # seeds
WEAK = 0.2  # correlation


def notes(rows: Sequence[Row], rule: Rule) -> list[str]:
    """Return what must be known to read the table."""
    others = [row for row in rows if not row.is_baseline]
    lines = [reading(rule)]
    counts = [len(row.differences) for row in others]
    if any(len(row.scores) == 1 for row in rows):
        lines.append("single runs: no uncertainty is known, so no verdict")
    if any(FEW <= count < RELIABLE for count in counts):
        lines.append("with 3 or 4 seeds an interval rests on the differences being normal; rely on 5 and more")
    tested = [count for count in counts if FEW <= count < 6]
    if tested:
        lines.append(
            f"with {max(tested)} seeds the exact permutation test cannot go below p = {2 / 2 ** max(tested):.4g}: "
            "what is significant here is so by the t-test alone"
        )
    if any(abs(row.r) < 0.2 for row in others):
        lines.append(
            "pairs barely correlate (|r| < .2): pairing brings nothing there; Welch's interval stands in the files"
        )
    if sum(row.holm == row.holm for row in others) > 1:
        lines.append(
            f"p is adjusted over {sum(row.holm == row.holm for row in others)} comparisons (Holm); intervals are not"
        )
    return [*lines, *power_line(others), *best_of_many(rows, rule)]


def power_line(others: Sequence[Row]) -> list[str]:
    """Return what these runs could see at all: without it "not distinguishable" says nothing."""
    seen = [row.detectable for row in others if row.detectable == row.detectable]
    if not seen:
        return []
    ends = f"{min(seen):{NUMBER}}" + (f" to {max(seen):{NUMBER}}" if len(seen) > 1 else "")
    pairs = sorted({len(row.differences) for row in others if row.detectable == row.detectable})
    counts = f"{pairs[0]}" + (f" to {pairs[-1]}" if len(pairs) > 1 else "")
    return [
        f"with {counts} seeds a true difference of {ends} is seen in 80 % of such experiments, a smaller one less often"
    ]


def reading(rule: Rule) -> str:
    """Return what is compared."""
    way = "larger" if rule.larger_is_better else "smaller"
    which = "the last validation" if rule.at == "last" else "the best validation"
    return f"{rule.metric} of {which} ({way} is better); differences are seed by seed, with 95 % t-intervals"


def best_of_many(rows: Sequence[Row], rule: Rule) -> list[str]:
    """Return how far the best of many configurations would lead by chance alone: the winner's curse."""
    scored = [row for row in rows if row.scores]
    if len(scored) < MANY:
        return []
    line = f"the best of {len(scored)} configurations was picked by the score shown: expect less on new examples"
    errors = [row.sd**2 / len(row.scores) for row in scored if row.sd == row.sd]
    if errors:
        lead = lead_by_chance(len(scored)) * (sum(errors) / len(errors)) ** 0.5
        line += f"; equal ones would spread so that the best leads their mean by {lead:{NUMBER}}"
    return [line]


def test_reads(runs: Sequence[Run]) -> list[str]:
    """Return how often the test split was read, if it was."""
    reads = sum(run.result.test_reads for run in runs)
    most = max((run.result.test_reads for run in runs), default=0)
    if not reads:
        return []
    often = f", one of them {most} times" if most > 1 else ""
    return [f"the test split was read {reads} times by these runs{often}; nothing here was chosen by it"]
