"""What the benchmark leaves: a JSON file with every round, a Markdown table, a bar chart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.chart import draw
from benchmarks.machine import line
from benchmarks.result import NOT_ASKED, Result


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
