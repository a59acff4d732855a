"""The numbers of a comparison as CSV, with all digits: a line for each configuration, a line for each run."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from runner.comparing.bands import COST, cost, seconds, typical_ratio
from runner.comparing.groups import worded
from runner.comparing.report import Report
from runner.comparing.runs import Run
from runner.comparing.tables import SCORES
from runner.comparing.verdicts import Row


def configurations_csv(report: Report) -> str:
    """Return a line for each configuration."""
    keys = list(dict.fromkeys(key for row in report.rows for key in row.group.values))
    return as_csv([line(row, keys) for row in report.rows])


def line(row: Row, keys: Sequence[str]) -> dict[str, object]:
    """Return what is told of one configuration."""
    return {
        "configuration": row.group.label, **{key: worded(row.group.values.get(key)) for key in keys},
        "runs": len(row.group.runs), "n": len(row.scores), "mean": row.mean, "sd": row.sd,
        "pairs": len(row.differences), "difference": row.paired.mean, "low": row.paired.low, "high": row.paired.high,
        "p": row.paired.p, "p_holm": row.holm, "p_sign_flip": row.flips, "better_in": row.better_in, "r": row.r,
        "detectable": row.detectable, "pairs_needed": row.needed, "welch_difference": row.welch.mean,
        "welch_low": row.welch.low, "welch_high": row.welch.high, "welch_p": row.welch.p, "verdict": row.verdict,
        "log10_update_ratio": typical_ratio(row.group), "seconds": seconds(row.group),
        **{tag.removeprefix("time/"): cost(row.group, tag) for tag in COST},
    }  # fmt: skip


def runs_csv(report: Report) -> str:
    """Return a line for each run, failed ones and repeats too."""
    return as_csv([run_line(row, run) for row in report.rows for run in (*row.group.runs, *row.group.repeats)])


def run_line(row: Row, run: Run) -> dict[str, object]:
    """Return what is told of one run."""
    scores = {f"{metric} {at}": run.score(metric, at) for metric in SCORES for at in ("last", "best")}
    result = run.result
    return {
        "folder": str(run.folder), "configuration": row.group.label, "seed": run.seed, "status": result.status,
        "reason": result.reason, "repeat": run in row.group.repeats, **scores,
        "test/accuracy": run.score("test/accuracy", ""), "test_reads": result.test_reads, "steps": result.steps,
        "epochs": result.epochs, "seconds": result.seconds, "started": run.started,
    }  # fmt: skip


def as_csv(lines: Sequence[dict[str, object]]) -> str:
    """Return dicts of the same keys as CSV; what is not there is an empty cell."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({key: blank(value) for key, value in line.items()})
    return file.getvalue()


def blank(value: object) -> object:
    """Return a value for a cell: nan and None are nothing; a text that a spreadsheet would run is quoted."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+@" else value
