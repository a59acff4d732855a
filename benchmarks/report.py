"""What the benchmark leaves: a JSON file with every round, a Markdown table, a bar chart."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.chart import draw
from benchmarks.machine import line
from benchmarks.rounds import Pairs, Spread, spread
from benchmarks.targets import Target

NOT_MEASURED, NOT_ASKED = "not measured", "not asked for"


@dataclass(frozen=True)
class Result:
    """A target with what was found: the numbers of each round, or why there are none."""

    target: Target
    found: Pairs | str

    @property
    def pairs(self) -> Pairs:
        """The numbers of each round."""
        return [] if isinstance(self.found, str) else self.found

    @property
    def values(self) -> Spread | None:
        """The spread of what the bound is for."""
        return spread([self.target.value(*pair) for pair in self.pairs]) if self.pairs else None

    @property
    def verdict(self) -> str:
        """How the median stands to the bound."""
        target, values = self.target, self.values
        if values is None:
            return NOT_MEASURED
        if target.bound is None:
            return "for information"
        if target.stretch is not None and target.within(values.median, target.stretch):
            return "stretch"
        return "pass" if target.within(values.median, target.bound) else "MISS"

    @property
    def medians(self) -> tuple[float, float]:
        """The medians of both sides in the target's unit."""
        ours, other = (statistics.median(column) for column in zip(*self.pairs, strict=True))
        return ours * self.target.scale, other * self.target.scale

    def as_json(self) -> dict[str, Any]:
        """Return everything, for the file."""
        measured = {"reason": self.found} if isinstance(self.found, str) else {"pairs": self.found}
        values = asdict(self.values) if self.values else {}
        return {**asdict(self.target), "verdict": self.verdict, **values, **pooled(self), **measured}


def pooled(result: Result) -> dict[str, float]:
    """Return the value over all rounds together, which no rare cost can hide from."""
    if not result.pairs:
        return {}
    ours, other = (statistics.fmean(column) for column in zip(*result.pairs, strict=True))
    return {"pooled": result.target.value(ours, other)}


def markdown(results: Sequence[Result], machine: Mapping[str, str]) -> str:
    """Return the table and, below, what was not measured."""
    rows = [
        "| target | compared with | value | bound | stretch | median | range (n) | ours | other | |",
        "|---" * 10 + "|",
    ]
    rows += [row(result) for result in results if result.pairs]
    absent = [f"- {r.target.name}: not measured: {r.found}" for r in results if not r.pairs and r.found != NOT_ASKED]
    notes = ["", *absent] if absent else []
    return "\n".join([line(dict(machine)), "", *rows, *notes, ""])


def row(result: Result) -> str:
    """Return a line of the table."""
    target, values = result.target, result.values
    assert values is not None
    ours, other = (f"{number:.4g} {target.unit}" for number in result.medians)
    sign = ">=" if target.compares == "other / ours" else "<="
    bounds = [f"{sign} {bound:g}" if bound is not None else "" for bound in (target.bound, target.stretch)]
    spread = f"{values.low:.3f} to {values.high:.3f} ({values.n})"
    cells = [target.title, target.other, target.compares, *bounds, f"{values.median:.3f}", spread, ours]
    return f"| {' | '.join([*cells, other if target.other else '', result.verdict])} |"


def write(folder: Path, results: Sequence[Result], machine: Mapping[str, str], losses: Mapping[str, Any]) -> None:
    """Write results.json, results.md and results.png."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {"schema": 1, "machine": machine, "losses": losses, "targets": [r.as_json() for r in results]}
    (folder / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "results.md").write_text(f"# Benchmarks\n\n{markdown(results, machine)}\n![chart](results.png)\n")
    draw(folder / "results.png", results, line(dict(machine)))
