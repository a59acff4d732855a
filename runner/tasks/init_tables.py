"""The output of task=init_report: tables on the screen, `report.json`, pictures, and all of it in TensorBoard."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from runner.engine.activations import Layer
from runner.engine.logs import summaries
from runner.engine.logs.console import summary_table
from runner.engine.logs.log import Log, open_logs
from runner.engine.saving.storage import write_atomic
from runner.tasks.init_figures import depth_figure, histogram_figure
from runner.tasks.init_verdicts import Case, Gain, backward, forward, ratio, rows
from runner.tasks.job import Job
from runner.tasks.report import log_folder

SCHEMA = 1
SCALARS = ("mean", "std", "saturated", "zero", "dead", "grad_std")


def save(folder: Path, job: Job, cases: Sequence[Case]) -> None:
    """Write `report.json`, the pictures, and the event file."""
    record = {
        "schema": SCHEMA,
        "cotangent": job.config["task"]["cotangent"],
        "cases": [as_json(case) for case in cases],
    }
    write_atomic(folder / "report.json", json.dumps(finite(record), indent=1, allow_nan=False).encode())
    pictures = {"report": histogram_figure(cases), "depth": depth_figure(cases)}
    for name, picture in pictures.items():
        write_atomic(folder / f"{name}.png", picture)
    with closing(open_logs(folder, positions=None, step=0)) as log:
        text = yaml.safe_dump(job.config, sort_keys=False, allow_unicode=True)
        log.add(0, {f"init_report/{name}": picture for name, picture in pictures.items()})
        log.add(0, {"init_report/verdicts": markdown(cases), "config": f"```yaml\n{text}```"})
        by_depth(log, cases)


def by_depth(log: Log, cases: Sequence[Case]) -> None:
    """Log the numbers and histograms of each layer, with the layer's number in place of the step."""
    for place in range(max(len(case.layers) for case in cases)):
        for case in cases:
            if place < len(case.layers):
                layer = case.layers[place]
                tag = f"init_report/{re.sub(r'[^A-Za-z0-9_.=-]+', '_', case.name)}"
                numbers = {f"{tag}/{what}": getattr(layer, what) for what in SCALARS}
                log.add(place + 1, {name: value for name, value in numbers.items() if value is not None})
                log.add(place + 1, {f"{tag}/activations": histogram(f"{tag}/activations", layer)})


def histogram(tag: str, layer: Layer) -> Any:
    """Return a layer's histogram as TensorBoard's plugin reads it, exact zeros in a bucket of no width."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.histogram import metadata

    edges = np.linspace(*layer.edges, len(layer.counts) + 1)
    others = sum(layer.counts)
    buckets = np.stack([edges[:-1], edges[1:], np.array(layer.counts)], axis=1)
    zeros = layer.zero / (1 - layer.zero) * others if others else 1.0
    where = int(np.searchsorted(edges[:-1], 0.0))
    buckets = np.insert(buckets, where, [0.0, 0.0, zeros], axis=0) if zeros else buckets
    return Summary(value=[summaries.value(tag, buckets, metadata.create_summary_metadata("", ""))])


def as_json(case: Case) -> dict[str, Any]:
    """Return a case with all its numbers, gains included."""
    return {
        "activation": case.activation,
        "init": case.init,
        "verdict": case.verdict,
        "findings": [dataclasses.asdict(finding) for finding in case.findings],
        "gains": [
            {"from": row[0].name, "to": row[-1].name, "forward": gain(forward(row)), "backward": gain(backward(row))}
            for row in rows(case.layers)
        ],
        "layers": [dataclasses.asdict(layer) for layer in case.layers],
    }


def gain(found: Gain) -> dict[str, float]:
    """Return a gain's numbers."""
    return {"layers": found.layers, "total": found.total, "each": found.each}


def finite(value: Any) -> Any:
    """Return nested values with null for what is not finite."""
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show(folder: Path, job: Job, cases: Sequence[Case]) -> None:
    """Print a table per case with what is wrong below it, and one of all cases where there are several."""
    for case in cases:
        summary_table(layer_rows(case), title=f"{case.name}: {case.verdict}")
        for finding in case.findings:
            sys.stdout.write(f"  {finding.severity}: {finding.word}: {finding.text}\n")
        sys.stdout.write("\n" if case.findings else "")
    if len(cases) > 1:
        summary_table([overview(case) for case in cases], title="all together")
    sys.stdout.write(f"saved in      {folder}\nlook at it    {folder / 'report.png'}\n")
    sys.stdout.write(f"              tensorboard --logdir {log_folder(folder, job)}\n")


def layer_rows(case: Case) -> list[dict[str, str]]:
    """Return a row per layer; a gain is that of the way from the layer before (gradients: to it)."""
    found = []
    for number, layer in enumerate(case.layers):
        before = case.layers[number - 1] if number else None
        found.append(
            {
                "layer": layer.name,
                "    mean": short(layer.mean),
                "     std": short(layer.std),
                "saturated": share(layer.saturated),
                "    zero": share(layer.zero),
                "    dead": share(layer.dead),
                "gradient std": short(layer.grad_std, 12),
                "std gain": short(ratio(layer.std, before.std) if before else None),
                "gradient gain": short(ratio(before.grad_norm, layer.grad_norm) if before else None, 13),
            }
        )
    return found


def overview(case: Case) -> dict[str, str]:
    """Return one row for a case: its first and last layer, and the verdict."""
    first, last = case.layers[0], case.layers[-1]
    saturated = [layer.saturated for layer in case.layers if layer.saturated is not None]
    return {
        "activation": case.activation,
        "init": case.init,
        "std, first": short(first.std, 10),
        "last": short(last.std),
        "most saturated": share(max(saturated) if saturated else None, 14),
        "gradient, first": short(first.grad_std, 15),
        " last": short(last.grad_std),
        "verdict": case.verdict,
    }


def short(value: float | None, width: int = 8) -> str:
    """Return a number with three digits, to the right."""
    return (f"{value:.3g}" if value is not None else "").rjust(width)


def share(value: float | None, width: int = 8) -> str:
    """Return a share in per cent, to the right."""
    return (f"{value:.1%}" if value is not None else "").rjust(width)


def markdown(cases: Sequence[Case]) -> str:
    """Return the verdicts as a table for TensorBoard."""
    table = [{name.strip(): text.strip() for name, text in overview(case).items()} for case in cases]
    head = list(table[0])
    lines = [head, ["---"] * len(head), *(list(row.values()) for row in table)]
    wrong = [f"* {case.name}: {finding.word}: {finding.text}" for case in cases for finding in case.findings]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", *wrong])
