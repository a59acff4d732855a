"""The rounds of step 7 in numbers and in words."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runner.doctor.finding import Finding, Severity
from runner.printing import counted
from runner.protocol.next_change import Change, errors_in
from runner.protocol.outcome import Criterion, Level
from runner.protocol.trials import Metric

# Of the interval of the differences, two-sided
_LEVEL = 0.9
# Trainings with the same seed may differ by next to nothing and in the same direction each time
_LEAST = 0.01
_PAIRED = "paired t-interval; design of experiments with common random numbers"


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round: a change, and the scores before and after it with the same seeds.

    Attributes:
        number: Its number, from 1.
        change: What was changed.
        before, after: The scores by seed; nan for a training that diverged.
        sign: 1 if a larger score is better, else -1.
        seed_sd: The standard deviation over seeds that step 5 found, nan if it is not known.
    """

    number: int
    change: Change
    before: Sequence[float]
    after: Sequence[float]
    sign: float
    seed_sd: float

    @property
    def gains(self) -> list[float]:
        """Return the improvements by seed, above 0 where the change is better."""
        return [self.sign * (new - old) for old, new in zip(self.before, self.after, strict=True)]

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 90 % t-interval of the improvement; nan if a training diverged."""
        mean, count = statistics.fmean(self.gains), len(self.gains)
        if not math.isfinite(mean) or count < 2:
            return math.nan, math.nan
        # Late: it takes a while
        from scipy.stats import t

        half = float(t.ppf((1 + _LEVEL) / 2, count - 1)) * statistics.stdev(self.gains) / math.sqrt(count)
        return mean - half, mean + half

    @property
    def accepted(self) -> bool:
        """True if the improvement is distinguishable, and large enough to matter.

        Distinguishable: its interval is above 0, or it exceeds twice the noise of seeds.
        """
        if not all(map(math.isfinite, self.after)):
            return False
        if not all(map(math.isfinite, self.before)):
            return True
        gain, noise = statistics.fmean(self.gains), 2 * self.seed_sd * math.sqrt(2 / len(self.gains))
        distinguishable = self.interval[0] > 0 or (math.isfinite(noise) and gain > noise > 0)
        return distinguishable and gain >= self.least

    @property
    def least(self) -> float:
        """Return the smallest improvement that matters: 1 % of the loss, or of the share of wrong predictions."""
        mean = statistics.fmean(self.before)
        return _LEAST * abs(1 - mean if self.sign > 0 else mean)

    @property
    def decision(self) -> str:
        """Return what became of the change, in words."""
        if self.accepted:
            return "kept"
        if not all(map(math.isfinite, self.after)):
            return "reverted: a training diverged"
        if self.interval[0] > 0:
            return f"reverted: better by less than 1 % ({self.least:.2g})"
        return "reverted: worse" if self.interval[1] < 0 else "reverted: not distinguishable"

    def gain_in_words(self, metric: Metric) -> str:
        """Return the improvement with its interval."""
        low, high = self.interval
        if math.isnan(low):
            return "a training diverged"
        return f"{statistics.fmean(self.gains):+.3g} {metric} better (90 % interval {low:+.3g} to {high:+.3g})"

    def record(self) -> dict[str, Any]:
        """Return the round as JSON values."""
        low, high = self.interval
        return {
            "round": self.number,
            "row": self.change.row,
            "symptom": self.change.symptom,
            "change": list(self.change.words),
            "before": list(self.before),
            "after": list(self.after),
            "gain": {"mean": statistics.fmean(self.gains), "low": low, "high": high, "level": _LEVEL},
            "decision": self.decision,
        }


def headline_of(rounds: Sequence[Round], ended: str) -> str:
    """Return the line about the step."""
    kept = [each.change.text for each in rounds if each.accepted]
    return f"{counted(len(rounds), 'round')}, kept: {', '.join(kept) or 'nothing'}; ended: {ended}"


def criteria_of(
    rounds: Sequence[Round], findings: Sequence[Finding], said: Sequence[str], metric: Metric
) -> list[Criterion]:
    """Return a criterion for what is left to find, one for each round, and remarks."""
    bad = errors_in(findings)
    warned = [each.id for each in findings if each.severity is Severity.WARN]
    healthy = Criterion(
        name="no errors or warnings at the end",
        value=", ".join([each.id for each in bad] + warned) or "none",
        threshold="none",
        level=Level.FAIL if bad else Level.WARN if warned else Level.PASS,
        why=f"{bad[0].why}: go back to step 1" if bad else "",
        source="docs/doctor.md",
    )
    made = [
        Criterion(
            name=f"round {each.number}: {each.change.text}",
            value=each.gain_in_words(metric),
            threshold=f"interval above 0, at least {each.least:.2g}",
            level=Level.PASS if each.accepted else Level.HINT,
            why=f"{each.change.symptom} ({each.change.row}): {each.decision}",
            source=_PAIRED,
        )
        for each in rounds
    ]
    remarks = [
        Criterion(name="not tried", value=line, threshold="", level=Level.HINT, why="", source="") for line in said
    ]
    return [healthy, *made, *remarks]


def rows_of(rounds: Sequence[Round], metric: Metric) -> list[dict[str, str]]:
    """Return a row for each round."""
    return [
        {
            "round": str(each.number),
            "hypothesis": each.change.symptom,
            "change": each.change.text,
            f"{metric} before": _mean(each.before),
            "after": _mean(each.after),
            "seeds": str(len(each.after)),
            "decision": each.decision,
        }
        for each in rounds
    ]


def notebook_of(rounds: Sequence[Round], ended: str, metric: Metric) -> str:
    """Return the notebook as Markdown: a line for each round, and why the last one was the last."""
    lines = [
        f"{each.number}. Hypothesis: {each.change.symptom} ({each.change.why.rstrip('.')}). "
        f"Change: `{each.change.text}`. Result over {counted(len(each.after), 'seed')}: "
        f"{each.gain_in_words(metric)}. Decision: {each.decision}."
        for each in rounds
    ]
    return "\n".join(["# Notebook of step 7", "", *lines, *([""] if rounds else []), f"Ended: {ended}.", ""])


def sure_of(rounds: Sequence[Round], metric: Metric) -> str:
    """Return how sure the last change is that was kept."""
    last = [each for each in rounds if each.accepted][-1]
    return (
        f"How sure: with {last.change.text} the score is {last.gain_in_words(metric)} over "
        f"{counted(len(last.after), 'seed')} that no search has used; {counted(len(rounds), 'change')} tried."
    )


def _mean(scores: Sequence[float]) -> str:
    mean = statistics.fmean(scores)
    return f"{mean:.4g}" if math.isfinite(mean) else "diverged"
