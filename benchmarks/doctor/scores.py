"""Scores of the rules on the bank: detection, cause among the first two findings, false warnings, with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.doctor.faults import FAULTS, HEALTHY, Alteration, names_cause
from runner.doctor import Finding, History, Series, Severity, diagnose
from runner.doctor.facts import RunFacts
from runner.status import Status

_Z95 = 1.959963984540054
# Faults whose validation scores cannot be compared with those of healthy runs
_OF_VALIDATION = (Alteration.LEAK, Alteration.SHIFTED, Alteration.RARE)
_LEAST_DAMAGE = 0.02
# Findings that a user surely reads
_FIRST = 2


def history_of(record: Mapping[str, Any]) -> History:
    """Return the history of a record of the bank."""
    counts = record["train_counts"]
    steps = record["steps"]
    facts = RunFacts(
        config=record["config"],
        classes=len(counts),
        train_examples=sum(counts),
        val_examples=record["val_count"],
        steps=record["config"]["steps"],
        steps_per_epoch=max(1, round(steps / record["epochs"])) if record["epochs"] else 1,
        status=Status(record["status"]),
        diverged_at=steps + 1 if record["status"] == "diverged" else None,
        reason=record["reason"],
        class_shares=tuple(count / sum(counts) for count in counts),
    )
    return History(facts, {tag: _series(curve) for tag, curve in record["curves"].items()})


def _series(curve: Mapping[str, Any]) -> Series:
    """Return a curve of a record."""
    values = np.array([float(value) for value in curve["values"]])
    return Series(np.array(curve.get("steps", range(1, len(values) + 1)), np.int64), values)


@dataclass(frozen=True)
class Share:
    """A share with Wilson's 95 % interval (Wilson 1927)."""

    hits: int
    count: int

    @property
    def interval(self) -> tuple[float, float]:
        """The ends of the interval; (0, 1) of nothing."""
        if not self.count:
            return 0.0, 1.0
        share, weight = self.hits / self.count, _Z95**2 / self.count
        middle = (share + weight / 2) / (1 + weight)
        half = _Z95 * math.sqrt(share * (1 - share) / self.count + weight / (4 * self.count)) / (1 + weight)
        return max(0.0, middle - half), min(1.0, middle + half)

    def to_record(self) -> dict[str, Any]:
        """Return the share as JSON values."""
        low, high = self.interval
        return {"hits": self.hits, "n": self.count, "low": round(low, 3), "high": round(high, 3)}


def scores(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return detection, cause and false warnings over some runs, and the row of each fault."""
    found = [(record["case"]["fault"], diagnose(history_of(record))) for record in records]
    sick = [pair for pair in found if pair[0] != HEALTHY]
    healthy = [findings for fault, findings in found if fault == HEALTHY]
    return {
        "detected": _share(bool(findings) for _, findings in sick),
        "warned": _share(_warns(findings) for _, findings in sick),
        "cause_in_first_two": _share(_cause(fault, findings[:_FIRST]) for fault, findings in sick),
        "cause": _share(_cause(fault, findings) for fault, findings in sick),
        "false_warnings": _share(_warns(findings) for findings in healthy),
        "false_findings": _share(bool(findings) for findings in healthy),
        "faults": {fault: _row(fault, sick) for fault in FAULTS if any(name == fault for name, _ in sick)},
    }


def harmed(record: Mapping[str, Any], healthy: Iterable[Mapping[str, Any]]) -> bool:
    """True if a fault did damage: the run diverged, or its last validation accuracy is below that of healthy runs.

    Below means more than two standard deviations and more than 0.02 under the mean of the healthy runs of the same net
    and data set. A fault of the validation split itself (a leak, other labels or shares) always counts.
    """
    case = record["case"]
    if record["status"] == "diverged" or FAULTS[case["fault"]].data in _OF_VALIDATION:
        return True
    same = [each for each in healthy if all(each["case"][key] == case[key] for key in ("net", "data"))]
    level = np.array([each["curves"]["val/accuracy"]["values"][-1] for each in same], float)
    mine = float(record["curves"]["val/accuracy"]["values"][-1])
    return bool(mine < level.mean() - max(2 * level.std(ddof=1), _LEAST_DAMAGE))


def _row(fault: str, sick: Iterable[tuple[str, list[Finding]]]) -> dict[str, Any]:
    """Return the scores of one fault."""
    mine = [findings for name, findings in sick if name == fault]
    return {
        "detected": _share(bool(findings) for findings in mine),
        "cause_in_first_two": _share(_cause(fault, findings[:_FIRST]) for findings in mine),
        "cause": _share(_cause(fault, findings) for findings in mine),
    }


def _cause(fault: str, findings: Iterable[Finding]) -> bool:
    """True if one of the findings names the cause."""
    return any(names_cause(fault, each.id) for each in findings)


def _warns(findings: Iterable[Finding]) -> bool:
    """True if a finding is more than a hint."""
    return any(each.severity is not Severity.HINT for each in findings)


def _share(hits: Iterable[bool]) -> dict[str, Any]:
    """Return a share of some yes and no as JSON values."""
    all_hits = list(hits)
    return Share(sum(all_hits), len(all_hits)).to_record()
