"""The numbers of a comparison as CSV with all digits: a row per configuration, a row per run."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from runner.comparing.curves import COST, cost, median_update_ratio, seconds
from runner.comparing.groups import format_value
from runner.comparing.report import Report
from runner.comparing.runs import Run
from runner.comparing.tables import calibration_scores
from runner.comparing.verdicts import ComparedRow


def configurations_csv(report: Report) -> str:
    """Return a row per configuration."""
    keys = list(dict.fromkeys(key for row in report.rows for key in row.group.values))
    return to_csv([_configuration(row, keys) for row in report.rows])


def _configuration(row: ComparedRow, keys: Sequence[str]) -> dict[str, object]:
    """Return the cells of one configuration."""
    return {
        "configuration": row.group.label, **{key: format_value(row.group.values.get(key)) for key in keys},
        "runs": len(row.group.runs), "n": len(row.scores), "mean": row.mean, "sd": row.sd,
        "pairs": len(row.differences), "difference": row.paired.mean, "low": row.paired.low, "high": row.paired.high,
        "p": row.paired.p, "p_holm": row.p_holm, "p_sign_flip": row.p_sign_flip, "better_in": row.better_in, "r": row.r,
        "detectable": row.detectable, "pairs_needed": row.pairs_needed, "welch_difference": row.welch.mean,
        "welch_low": row.welch.low, "welch_high": row.welch.high, "welch_p": row.welch.p, "verdict": row.verdict,
        "log10_update_ratio": median_update_ratio(row.group), "seconds": seconds(row.group),
        **{tag.removeprefix("time/"): cost(row.group, tag) for tag in COST},
    }  # fmt: skip


def runs_csv(report: Report) -> str:
    """Return a row per run, incomplete and repeated ones included."""
    found, columns = [], [(metric, at) for metric in report.scores for at in ("last", "best")]
    columns += [(metric, "best") for metric in calibration_scores(report) if metric not in report.scores]
    for row in report.rows:
        found += [_run(row, run, columns, repeat=False) | _arrival(report, run) for run in row.group.runs]
        found += [_run(row, run, columns, repeat=True) | _arrival(report, run) for run in row.group.repeats]
    return to_csv(found)


def _run(row: ComparedRow, run: Run, columns: Sequence[tuple[str, str]], *, repeat: bool) -> dict[str, object]:
    """Return the cells of one run."""
    scores = {f"{metric} {at}": run.score(metric, at) for metric, at in columns}
    result = run.result
    return {
        "folder": str(run.folder), "configuration": row.group.label, "seed": run.seed, "status": result.status,
        "reason": result.reason, "repeat": repeat, **scores,
        "test/accuracy": run.score("test/accuracy", ""), "test_reads": result.test_reads, "steps": result.steps,
        "epochs": result.epochs, "seconds": result.seconds, "started": run.started,
    }  # fmt: skip


def _arrival(report: Report, run: Run) -> dict[str, float | None]:
    """Return the steps and seconds of a run to the target, `inf` if it never arrived; nothing without a target."""
    if report.race is None:
        return {}
    found = report.race.arrivals.get(run.folder)
    return {
        "steps to target": None if found is None else found.steps,
        "seconds to target": None if found is None else found.seconds,
    }


def importance_csv(report: Report) -> str:
    """Return a row per hyperparameter, the largest share of the variance first."""
    found = report.importance.effects
    return to_csv([{"hyperparameter": e.key, "share": e.share, "low": e.low, "high": e.high} for e in found])


def to_csv(lines: Sequence[dict[str, object]]) -> str:
    """Return dicts with equal keys as CSV; None and nan are empty cells."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({key: _cell(value) for key, value in line.items()})
    return file.getvalue()


def _cell(value: object) -> object:
    """Return a value for a cell; text that a spreadsheet would run as a formula gets a leading quote."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+@" else value
