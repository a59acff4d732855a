"""Scores of the rules on the bank: detection, cause among the first two findings, false warnings, with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.doctor.faults import FAULTS, HEALTHY, Alteration, names_cause
from runner.doctor import Finding, History, Series, Severity, diagnose
from runner.doctor.facts import RunFacts
from runner.engine.equal_examples import equal_from_record
from runner.status import Status

_Z95 = 1.959963984540054
# Faults whose validation scores cannot be compared with those of healthy runs
_OF_VALIDATION = (Alteration.LEAK, Alteration.SHIFTED, Alteration.RARE)
_LEAST_DAMAGE = 0.02
# Confidences of hints from which on they count as an alarm; none has 1
LEVELS = (1.0, 0.75, 0.65, 0.55, 0.45, 0.0)
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
        equal_examples=equal_from_record(record.get("equal_examples")),
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


@dataclass(frozen=True)
class _Judged:
    """A run of the bank and what the rules find in it, the worst first."""

    fault: str
    findings: list[Finding]
    harmed: bool

    @property
    def first(self) -> set[str]:
        """The symptoms that a user surely reads."""
        return {each.id for each in self.findings[:_FIRST]}

    @property
    def named(self) -> bool:
        """True if one of them names the cause."""
        return any(names_cause(self.fault, name) for name in self.first)

    @property
    def warned(self) -> bool:
        """True if a finding is more than a hint."""
        return any(each.severity is not Severity.HINT for each in self.findings)


def scores(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return detection, cause and false alarms over some runs, and the rows of each fault and each symptom.

    A run is detected if it has a finding, and warned if one of them is more than a hint. The false alarms of each level
    are those of the healthy runs at the same level.
    """
    # A run that diverges is not healthy, though nothing was done to it
    all_records = [record for record in records if not (_is_healthy(record) and record["status"] == "diverged")]
    well = [record for record in all_records if _is_healthy(record)]
    found = [
        _Judged(
            record["case"]["fault"],
            diagnose(history_of(record)),
            not _is_healthy(record) and harmed(record, well),
        )
        for record in all_records
    ]
    sick = [run for run in found if run.fault != HEALTHY]
    healthy = [run for run in found if run.fault == HEALTHY]
    hurt = [run for run in sick if run.harmed]
    return {
        **_shares(sick),
        **{f"harmed_{key}": share for key, share in _shares(hurt).items()},
        "false_warnings": _share(run.warned for run in healthy),
        "false_findings": _share(bool(run.findings) for run in healthy),
        # Of runs with a finding, those in which the first one, or one of the first two, names the cause
        "precision_of_the_first": _share(names_cause(run.fault, run.findings[0].id) for run in found if run.findings),
        "precision": _share(run.named for run in found if run.findings),
        "levels": {str(level): _level(found, level) for level in LEVELS},
        "faults": {fault: _row(fault, found) for fault in FAULTS if any(run.fault == fault for run in sick)},
        "symptoms": _symptoms(found),
    }


def _level(found: Sequence[_Judged], level: float) -> dict[str, Any]:
    """Return detection and false alarms if only warnings, errors and hints of some confidence count."""

    def alarms(run: _Judged) -> bool:
        return any(each.severity is not Severity.HINT or each.confidence >= level for each in run.findings)

    sick = [run for run in found if run.fault != HEALTHY]
    return {
        "detected": _share(alarms(run) for run in sick),
        "harmed_detected": _share(alarms(run) for run in sick if run.harmed),
        "false_alarms": _share(alarms(run) for run in found if run.fault == HEALTHY),
    }


def _is_healthy(record: Mapping[str, Any]) -> bool:
    """True if nothing was done to a run."""
    return bool(record["case"]["fault"] == HEALTHY)


def _shares(sick: Sequence[_Judged]) -> dict[str, Any]:
    """Return how many faulty runs are detected, and in how many the cause is named."""
    return {
        "detected": _share(bool(run.findings) for run in sick),
        "warned": _share(run.warned for run in sick),
        "cause_in_first_two": _share(run.named for run in sick),
        "cause": _share(_cause(run.fault, run.findings) for run in sick),
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
    if len(same) < 2:
        return True
    level = np.array([each["curves"]["val/accuracy"]["values"][-1] for each in same], float)
    mine = float(record["curves"]["val/accuracy"]["values"][-1])
    return bool(mine < level.mean() - max(2 * level.std(ddof=1), _LEAST_DAMAGE))


def _row(fault: str, found: Sequence[_Judged]) -> dict[str, Any]:
    """Return the scores of one fault.

    Its precision is over all runs, healthy ones included, in which one of its symptoms is among the first two: the
    share with this fault, or with another one whose cause that symptom names as well.
    """
    mine = [run for run in found if run.fault == fault]
    claimed = [run for run in found if any(names_cause(fault, name) for name in run.first)]
    right = (run.fault == fault or any(names_cause(fault, n) and names_cause(run.fault, n) for n in run.first)
             for run in claimed)  # fmt: skip
    return {**_shares(mine), "harmed": sum(run.harmed for run in mine), "precision": _share(right)}


def _symptoms(found: Sequence[_Judged]) -> dict[str, Any]:
    """Return for each symptom the runs with it among the first two findings, and in how many it names the cause."""
    names = sorted({name for run in found for name in run.first})
    return {name: _share(names_cause(run.fault, name) for run in found if name in run.first) for name in names}


def _cause(fault: str, findings: Iterable[Finding]) -> bool:
    """True if one of the findings names the cause."""
    return any(names_cause(fault, each.id) for each in findings)


def _share(hits: Iterable[bool]) -> dict[str, Any]:
    """Return a share of some yes and no as JSON values."""
    all_hits = list(hits)
    return Share(sum(all_hits), len(all_hits)).to_record()
