"""The numbers of a comparison as rows of words: for the terminal, Markdown and HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence

from runner.comparing.curves import COST, cost, median_update_ratio, seconds, step_range
from runner.comparing.groups import format_value
from runner.comparing.report import Report, limited
from runner.comparing.statistics import Interval, sample_sd
from runner.comparing.verdicts import MIN_SEEDS, SCORE_FORMAT, ComparedRow
from runner.engine.monitor import score_name
from runner.printing import counted

Table = list[dict[str, str]]
DAGGER = "†"
# Values of a hyperparameter in its row
_MOST_VALUES = 50
_CALIBRATION = ("val/nll", "val/ece", "val/brier", "val/aurc")


def scores_table(report: Report) -> Table:
    """Return the main table: n, mean and sd, the difference with its interval, adjusted p, and the verdict."""
    return [
        {
            "configuration": row.group.label + (f" {DAGGER}" if row.failed else ""),
            "n": _count(row),
            score_name(report.criterion.metric, report.criterion.at): _mean_sd(row),
            "difference": "" if row.is_baseline else _signed(row.paired.mean),
            "95 % interval": _interval(row.paired),
            "p": _p_value(row.p_holm),
            "verdict": row.verdict,
        }
        for row in report.rows
    ]


def screen_table(report: Report) -> Table:
    """Return the main table for a screen: short labels, and the interval as `difference ± half width`."""
    found = []
    for row, wide in zip(report.rows, scores_table(report), strict=True):
        wide |= {"configuration": row.group.short + (f" {DAGGER}" if row.failed else "")}
        half = row.paired.high - row.paired.mean
        width = f" ± {half:{SCORE_FORMAT}}" if half == half else ""
        shown = {
            key: value for key, value in wide.items() if key not in ("difference", "95 % interval", "p", "verdict")
        }
        difference = f"{wide['difference']}{width}"
        found.append({**shown, "difference ± 95 %": difference, "p": wide["p"], "verdict": wide["verdict"]})
    return found


def _other_score(report: Report, row: ComparedRow) -> dict[str, str]:
    """Return the compared score at its other validation, by its name: the best where the last is compared."""
    at = "best" if report.criterion.at == "last" else "last"
    found = list(row.group.scores(report.criterion.metric, at).values())
    return {score_name(report.criterion.metric, at): _mean_and_sd(found)}


def cost_table(report: Report, *, narrow: bool = False) -> Table:
    """Return what each configuration costs, its update/weight ratio, and the test scores that were read.

    For a screen (`narrow`) labels are short, and the compared score at its other validation is there, too. What no
    configuration has, such as a ratio without its probe, is no column.
    """
    tests = any(run.score("test/accuracy", "") is not None for row in report.rows for run in row.group.runs)
    rows = [
        {
            "configuration": row.group.short if narrow else row.group.label,
            **(_other_score(report, row) if narrow else {}),
            "steps": step_range(row.group),
            "seconds": _number(seconds(row.group), ".3g"),
            "ms/step": _number(cost(row.group, COST[0]), ".3g"),
            "examples/s": _number(cost(row.group, COST[1]), ".0f"),
            "peak MB": _number(cost(row.group, COST[2]), ".0f"),
            "log10 ratio": _number(median_update_ratio(row.group), ".2f"),
            **({"test accuracy": _test_scores(row)} if tests else {}),
        }
        for row in report.rows
    ]
    return [{key: text for key, text in row.items() if any(other[key] for other in rows)} for row in rows]


def other_scores_table(report: Report) -> Table:
    """Return mean and sd of the last and the best validation of each configuration."""
    return [
        {
            "configuration": row.group.label,
            **{
                score_name(metric, at): _mean_and_sd(list(row.group.scores(metric, at).values()))
                for metric in report.scores
                for at in ("last", "best")
            },
        }
        for row in report.rows
    ]


def calibration_scores(report: Report) -> list[str]:
    """Return the scores of probabilities that some run has; none where no run has one beside the likelihood.

    A run computes them at its end, a trial of a sweep only what it lists.
    """
    runs = [run for row in report.rows for run in row.group.complete]
    found = [tag for tag in _CALIBRATION if any(run.score(tag, "best") is not None for run in runs)]
    return found if set(found) - {"val/nll"} else []


def calibration_table(report: Report, *, narrow: bool = False) -> Table:
    """Return mean and sd of the scores of probabilities, with the selected weights; smaller is better for all."""
    tags = calibration_scores(report)
    return [
        {
            "configuration": row.group.short if narrow else row.group.label,
            **{score_name(tag, "best"): _mean_and_sd(list(row.group.scores(tag, "best").values())) for tag in tags},
        }
        for row in report.rows
        if tags
    ]


def statistics_table(report: Report) -> Table:
    """Return the statistics behind the verdicts, unadjusted: pairs, tests, Welch's interval and power."""
    return [
        {
            "configuration": row.group.label,
            "pairs": str(len(row.differences)),
            "better in": f"{row.better_in}/{len(row.differences)}",
            "r (paired)": _number(row.r, ".2f"),
            "p (paired t)": _p_value(row.paired.p),
            "p (permutation)": _p_value(row.p_sign_flip),
            "Welch 95 % interval": _interval(row.welch),
            "p (Welch)": _p_value(row.welch.p),
            "detectable (80 % power)": _number(row.detectable, SCORE_FORMAT),
            "pairs needed": str(row.pairs_needed or ""),
        }
        for row in report.rows
        if not row.is_baseline
    ]


def differences_table(report: Report) -> Table:
    """Return the hyperparameters that differ, with their values."""
    keys = dict.fromkeys(key for row in report.rows for key in row.group.values)
    found = []
    for key in keys:
        values = list(dict.fromkeys(format_value(row.group.values.get(key)) for row in report.rows))
        found.append({"hyperparameter": key, "values": ", ".join(limited(values, _MOST_VALUES, ""))})
    return found


def importance_table(report: Report) -> Table:
    """Return the share of the variance of the scores that each hyperparameter explains, with its interval."""
    return [
        {
            "hyperparameter": each.key,
            "share": f"{each.share:.2f}",
            "95 % interval": "" if math.isnan(each.low) else f"{each.low:.2f} to {each.high:.2f}",
        }
        for each in report.importance.effects
    ]


def _count(row: ComparedRow) -> str:
    """Return the number of runs that count, as `4/5` if some do not."""
    return (
        str(len(row.scores)) if len(row.scores) == len(row.group.runs) else f"{len(row.scores)}/{len(row.group.runs)}"
    )


def _mean_sd(row: ComparedRow) -> str:
    """Return mean and sd over seeds, or the scores of fewer than three runs."""
    return _mean_and_sd(list(row.scores.values()))


def _mean_and_sd(values: Sequence[float]) -> str:
    """Return mean and sd of at least three numbers, else the numbers."""
    if len(values) < MIN_SEEDS:
        return ", ".join(f"{value:{SCORE_FORMAT}}" for value in values)
    return f"{sum(values) / len(values):{SCORE_FORMAT}} ± {sample_sd(values):{SCORE_FORMAT}}"


def _test_scores(row: ComparedRow) -> str:
    """Return the test accuracies that were read, with the number of reads."""
    values = [score for run in row.group.complete if (score := run.score("test/accuracy", "")) is not None]
    reads = sum(run.result.test_reads for run in row.group.runs)
    return f"{_mean_and_sd(values)} ({counted(reads, 'read')})" if reads else ""


def _interval(found: Interval) -> str:
    """Return the ends of an interval."""
    return "" if math.isnan(found.low) else f"{_signed(found.low)} {_signed(found.high)}"


def _signed(value: float) -> str:
    """Return a difference with its sign, empty for nan."""
    return "" if math.isnan(value) else f"{value:+{SCORE_FORMAT}}"


def _p_value(p: float) -> str:
    """Return a p-value without its leading zero, empty for nan."""
    return "" if math.isnan(p) else "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0") if p < 1 else "1"


def _number(value: float, form: str) -> str:
    """Return a number, empty for nan."""
    return "" if math.isnan(value) else f"{value:{form}}"


def markdown_table(rows: Table) -> list[str]:
    """Return rows as the lines of a Markdown table."""
    if not rows:
        return []
    return [
        f"| {' | '.join(map(escape_markdown, rows[0]))} |",
        f"|{'---|' * len(rows[0])}",
        *(f"| {' | '.join(map(escape_markdown, row.values()))} |" for row in rows),
    ]


def escape_markdown(text: str) -> str:
    """Return text that Markdown shows literally, also in a table cell."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|" else letter for letter in " ".join(text.split()))
