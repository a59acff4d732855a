"""The numbers of a comparison as rows of words: for the terminal, Markdown, HTML and CSV alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

from runner.comparing.bands import COST, cost, seconds, steps_made, typical_ratio
from runner.comparing.groups import worded
from runner.comparing.report import Report
from runner.comparing.statistics import Interval, spread
from runner.comparing.verdicts import FEW, NUMBER, Row

Table = list[dict[str, str]]
SCORES = ("val/accuracy", "val/loss")
DAGGER = "†"


def scores_table(report: Report) -> Table:
    """Return what is compared: n, mean and sd, the difference with its interval, adjusted p, and the verdict."""
    return [
        {
            "configuration": row.group.label + (f" {DAGGER}" if row.failed else ""),
            "n": count(row),
            report.rule.metric: mean_sd(row),
            "difference": "" if row.is_baseline else signed(row.paired.mean),
            "95 % interval": interval(row.paired),
            "p": probability(row.holm),
            "verdict": row.verdict,
        }
        for row in report.rows
    ]


def narrow(report: Report) -> Table:
    """Return the same for a screen: the interval as what is to be added to and taken from the difference."""
    found = []
    for row, wide in zip(report.rows, scores_table(report), strict=True):
        wide |= {"configuration": row.group.short + (f" {DAGGER}" if row.failed else "")}
        half = row.paired.high - row.paired.mean
        width = f" ± {half:{NUMBER}}" if half == half else ""
        shown = {
            key: value for key, value in wide.items() if key not in ("difference", "95 % interval", "p", "verdict")
        }
        difference = f"{wide['difference']}{width}"
        found.append({**shown, "difference ± 95 %": difference, "p": wide["p"], "verdict": wide["verdict"]})
    return found


def cost_table(report: Report, *, narrow: bool = False) -> Table:
    """Return what each configuration costs, how far its steps go (update / weights), and test scores that were read."""
    tests = any(run.score("test/accuracy", "") is not None for row in report.rows for run in row.group.runs)
    return [
        {
            "configuration": row.group.short if narrow else row.group.label,
            "steps": steps_made(row.group),
            "seconds": number(seconds(row.group), ".3g"),
            "ms/step": number(cost(row.group, COST[0]), ".3g"),
            "examples/s": number(cost(row.group, COST[1]), ".0f"),
            "peak MB": number(cost(row.group, COST[2]), ".0f"),
            "log10 ratio": number(typical_ratio(row.group), ".2f"),
            **({"test accuracy": of_test(row)} if tests else {}),
        }
        for row in report.rows
    ]


def other_scores_table(report: Report) -> Table:
    """Return last and best validation of each configuration, mean and sd."""
    return [
        {
            "configuration": row.group.label,
            **{
                f"{metric} {at}": mean_and_sd(list(row.group.scores(metric, at).values()))
                for metric in SCORES
                for at in ("last", "best")
            },
        }
        for row in report.rows
    ]


def statistics_table(report: Report) -> Table:
    """Return what stands behind the verdicts, unadjusted: pairs, both tests, Welch's interval, and the power."""
    return [
        {
            "configuration": row.group.label,
            "pairs": str(len(row.differences)),
            "better in": f"{row.better_in}/{len(row.differences)}",
            "r of pairs": number(row.r, ".2f"),
            "p (paired t)": probability(row.paired.p),
            "p (sign flips)": probability(row.flips),
            "Welch 95 % interval": interval(row.welch),
            "p (Welch)": probability(row.welch.p),
            "seen in 80 %": number(row.detectable, NUMBER),
            "pairs for the difference seen": str(row.needed or ""),
        }
        for row in report.rows
        if not row.is_baseline
    ]


def differences_table(report: Report) -> Table:
    """Return every hyperparameter that differs, with its values."""
    keys = dict.fromkeys(key for row in report.rows for key in row.group.values)
    found = []
    for key in keys:
        values = dict.fromkeys(worded(row.group.values.get(key)) for row in report.rows)
        found.append({"hyperparameter": key, "values": ", ".join(values)})
    return found


def count(row: Row) -> str:
    """Return how many runs count, of how many."""
    return (
        str(len(row.scores)) if len(row.scores) == len(row.group.runs) else f"{len(row.scores)}/{len(row.group.runs)}"
    )


def mean_sd(row: Row) -> str:
    """Return mean and standard deviation over seeds; of one or two runs their scores."""
    return mean_and_sd(list(row.scores.values()))


def mean_and_sd(values: Sequence[float]) -> str:
    """Return mean and standard deviation of at least three numbers, else the numbers."""
    if len(values) < FEW:
        return ", ".join(f"{value:{NUMBER}}" for value in values)
    return f"{sum(values) / len(values):{NUMBER}} ± {spread(values):{NUMBER}}"


def of_test(row: Row) -> str:
    """Return the test accuracies that were read, and how often the split was read for them."""
    values = [score for run in row.group.complete if (score := run.score("test/accuracy", "")) is not None]
    reads = sum(run.result.test_reads for run in row.group.runs)
    return f"{mean_and_sd(values)} ({reads} reads)" if reads else ""


def interval(found: Interval) -> str:
    """Return an interval's ends."""
    return "" if math.isnan(found.low) else f"{signed(found.low)} {signed(found.high)}"


def signed(value: float) -> str:
    """Return a difference with its sign."""
    return "" if math.isnan(value) else f"{value:+{NUMBER}}"


def probability(p: float) -> str:
    """Return an adjusted p."""
    return "" if math.isnan(p) else "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0") if p < 1 else "1"


def number(value: float, form: str) -> str:
    """Return a number, nothing for none."""
    return "" if math.isnan(value) else f"{value:{form}}"


def markdown_table(rows: Table) -> list[str]:
    """Return rows as the lines of a Markdown table."""
    if not rows:
        return []
    return [
        f"| {' | '.join(map(escaped, rows[0]))} |",
        f"|{'---|' * len(rows[0])}",
        *(f"| {' | '.join(map(escaped, row.values()))} |" for row in rows),
    ]


def escaped(text: str) -> str:
    """Return a text that a cell of a Markdown table shows as it is."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|" else letter for letter in " ".join(text.split()))
