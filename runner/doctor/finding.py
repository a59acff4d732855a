"""A finding, which a symptom returns: severity, evidence and advice."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """How sure and how harmful a finding is, the worst first."""

    ERROR = "error"  # certain: the evidence is deterministic
    WARN = "warn"  # a statistical rule passed, and the effect has a practical size
    HINT = "hint"  # suggestive: another cause may look the same

    @property
    def rank(self) -> int:
        """The place in the order of severities, 0 for the worst."""
        return list(Severity).index(self)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The evidence of a finding.

    Attributes:
        numbers: The measured numbers, with the thresholds that they are compared with, by name.
        steps: The first and the last step of the part of the run that shows it.
        tags: The tags of the curves that show it, as in `metrics.jsonl`.
    """

    numbers: Mapping[str, float]
    steps: tuple[int, int]
    tags: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One problem of a run.

    Attributes:
        id: The name of the symptom, as in `lr_very_high`.
        severity: How sure and how harmful it is.
        confidence: How sure the rule is, in [0, 1]; it orders findings of one severity.
        evidence: The numbers and curves that it rests on.
        why: One plain sentence; that of a hint says `may` or `is consistent with`.
        advice: Lists of overrides, the best first; each is one change of the run's config.
        probe: What would prove it, None if nothing is left to prove.
        source: Where the rule comes from.
    """

    id: str
    severity: Severity
    confidence: float
    evidence: Evidence
    why: str
    advice: tuple[tuple[str, ...], ...]
    probe: str | None
    source: str

    def to_record(self) -> dict[str, Any]:
        """Return the finding as JSON values; non-finite numbers are strings, as in `metrics.jsonl`."""
        evidence = self.evidence
        return {
            "id": self.id,
            "severity": str(self.severity),
            "confidence": round(float(self.confidence), 3),
            "evidence": {
                "numbers": {name: _number(value) for name, value in evidence.numbers.items()},
                "steps": [int(step) for step in evidence.steps],
                "tags": list(evidence.tags),
            },
            "why": self.why,
            "advice": [list(words) for words in self.advice],
            "probe": self.probe,
            "source": self.source,
        }


def _number(value: float) -> float | int | str:
    """Return a number as a value of JSON, which has no non-finite ones."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = float(value)
    if math.isfinite(found):
        return found
    return "NaN" if math.isnan(found) else "Infinity" if found > 0 else "-Infinity"
