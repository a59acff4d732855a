"""The result of a step of the protocol: criteria with their numbers, advice, and the status that follows from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

SCHEMA = 1


class Level(StrEnum):
    """How a criterion, or a step, came out."""

    PASS = "pass"
    HINT = "hint"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


_WORST_FIRST = (Level.FAIL, Level.WARN, Level.PASS)


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """One thing that was checked.

    Attributes:
        name: What was checked, in a few words.
        value: What was measured.
        threshold: What it must be, in words or as a formula.
        level: How it came out; a hint does not change the status of the step.
        why: What the outcome means, in a sentence; empty for a pass without more to say.
        source: Where the threshold comes from.
    """

    name: str
    value: str
    threshold: str
    level: Level
    why: str = ""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """A change to try.

    Attributes:
        text: What it does, in a sentence.
        overrides: Words for the command line, each of which composes with the config; may be empty.
    """

    text: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """The result of one step.

    Attributes:
        step: The name of the step.
        headline: What was found, in one line.
        criteria: What was checked, in order.
        advice: Changes to try, the best first.
        measurements: All numbers, as JSON values.
        table: Rows to show, with the same keys.
        handoff: Overrides for the steps that follow and for the recipe.
        facts: Numbers that later steps use.
        trainings: The trainings that the step needed.
        seconds: The wall time of the step.
        skipped: Why the step checked nothing, None if it did.
    """

    step: str
    headline: str
    criteria: Sequence[Criterion] = ()
    advice: Sequence[Advice] = ()
    measurements: Mapping[str, Any] = field(default_factory=dict)
    table: Sequence[Mapping[str, str]] = ()
    handoff: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    trainings: int = 0
    seconds: float = 0.0
    skipped: str | None = None

    @property
    def status(self) -> Level:
        """Return the worst level of the criteria; hints pass."""
        return Level.SKIP if self.skipped else worst(each.level for each in self.criteria)

    @property
    def failures(self) -> list[Criterion]:
        """Return the criteria that failed."""
        return [each for each in self.criteria if each.level is Level.FAIL]

    def record(self, **more: Any) -> dict[str, Any]:
        """Return the content of `result.json`; numbers that are not finite are null."""
        found = {"schema": SCHEMA, "status": str(self.status), **asdict(self), **more}
        cleaned: dict[str, Any] = json_values(found)
        return cleaned


def worst(levels: Iterable[Level]) -> Level:
    """Return the worst of some levels; a hint counts as a pass."""
    found = set(levels)
    return next((each for each in _WORST_FIRST if each in found), Level.PASS)


def from_record(record: Mapping[str, Any]) -> StepResult:
    """Return the result that a `result.json` holds."""
    names = StepResult.__dataclass_fields__
    values = {name: record[name] for name in names if name in record}
    values["criteria"] = [Criterion(**{**each, "level": Level(each["level"])}) for each in record["criteria"]]
    values["advice"] = [Advice(text=each["text"], overrides=tuple(each["overrides"])) for each in record["advice"]]
    return StepResult(**values)


def json_values(value: Any) -> Any:
    """Return nested values as JSON has them: numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(key): json_values(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_values(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, StrEnum) else value
