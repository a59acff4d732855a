"""The output of task=init_report: tables on the screen, `report.json`, pictures, and all of it in TensorBoard."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from runner.engine.activations import Layer
from runner.engine.logs import summaries
from runner.engine.logs.log import Log, open_logs
from runner.engine.saving.storage import printable, write_atomic
from runner.printing import write_stdout
from runner.screen_tables import print_table
from runner.tasks.init_figures import depth_figure, histogram_figure
from runner.tasks.init_verdicts import Case, Gain, backward_gain, comparable_rows, forward_gain, ratio
from runner.tasks.job import Job
from runner.tasks.next_steps import tensorboard_folder
from runner.tasks.run_folder import Run

_SCHEMA = 1
_SCALARS = ("mean", "std", "saturated", "zero", "dead", "grad_std")


def save_report(run: Run, job: Job, cases: Sequence[Case]) -> None:
    """Write `report.json`; the pictures, and the event file if it is asked for, follow after the result."""
    record = {
        "schema": _SCHEMA,
        "cotangent": job.config["task"]["cotangent"],
        "cases": [_case_record(case) for case in cases],
    }
    content = json.dumps(_null_if_not_finite(record), indent=1, allow_nan=False).encode()
    write_atomic(run.folder / "report.json", content)
    if job.config["task"]["tensorboard"]:
        run.afterwards.add("TensorBoard pages: not written", partial(_log_pages, job=job, cases=cases))
    for name, picture in {"report": histogram_figure(cases), "depth": depth_figure(cases)}.items():
        run.afterwards.draw(f"{name}.png", picture, tag=f"init_report/{name}")


def _log_pages(folder: Path, *, job: Job, cases: Sequence[Case]) -> None:
    """Write the event file, without the pictures."""
    with closing(open_logs(folder, positions=None, step=0)) as log:
        text = yaml.safe_dump(job.config, sort_keys=False, allow_unicode=True)
        log.add(0, {"init_report/verdicts": _verdict_table(cases), "config": f"```yaml\n{text}```"})
        _log_layers(log, cases)


def _log_layers(log: Log, cases: Sequence[Case]) -> None:
    """Log the numbers and histograms of each layer, with the layer's number in place of the step."""
    for place in range(max(len(case.layers) for case in cases)):
        for case in cases:
            if place < len(case.layers):
                layer = case.layers[place]
                tag = f"init_report/{re.sub(r'[^A-Za-z0-9_.=-]+', '_', case.name)}"
                numbers = {f"{tag}/{what}": getattr(layer, what) for what in _SCALARS}
                log.add(place + 1, {name: value for name, value in numbers.items() if value is not None})
                log.add(place + 1, {f"{tag}/activations": _histogram_value(f"{tag}/activations", layer)})


def _histogram_value(tag: str, layer: Layer) -> Any:
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


def _case_record(case: Case) -> dict[str, Any]:
    """Return a case with all its numbers, gains included."""
    return {
        "activation": case.activation,
        "init": case.init,
        "verdict": case.verdict,
        "findings": [dataclasses.asdict(finding) for finding in case.findings],
        "gains": [
            {
                "from": row[0].name,
                "to": row[-1].name,
                "forward": _gain_record(forward_gain(row)),
                "backward": _gain_record(backward_gain(row)),
            }
            for row in comparable_rows(case.layers)
        ],
        "layers": [dataclasses.asdict(layer) for layer in case.layers],
    }


def _gain_record(found: Gain) -> dict[str, float]:
    """Return a gain's numbers."""
    return {"layers": found.layers, "total": found.total, "each": found.each}


def _null_if_not_finite(value: Any) -> Any:
    """Return nested values with null for non-finite numbers."""
    if isinstance(value, dict):
        return {name: _null_if_not_finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_null_if_not_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show_report(run: Run, job: Job, cases: Sequence[Case]) -> None:
    """Print a table per case with its problems below, and a table of all cases if there are several."""
    for case in cases:
        print_table(_without_empty(_layer_rows(case)), title=f"{case.name}: {case.verdict}")
        for finding in case.findings:
            write_stdout(f"  {finding.severity}: {finding.word}: {finding.text}\n")
        write_stdout("\n" if case.findings else "")
    if len(cases) > 1:
        rows = _without_empty([_overview_row(case) for case in cases])
        print_table(rows, keys=("activation", "init"), title="all cases")
    write_stdout(f"saved in      {printable(run.folder)}\n")
    for name in run.afterwards.saved[:1]:
        write_stdout(f"view          {printable(run.folder / name)}\n")
    if job.config["task"]["tensorboard"]:
        write_stdout(f"              tensorboard --logdir {tensorboard_folder(run.folder, job)}\n")


def _without_empty(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Return rows without the columns that are empty in all of them, such as `saturated` of ReLU."""
    return [{name: row[name] for name in row if any(each[name] for each in rows)} for row in rows]


def _layer_rows(case: Case) -> list[dict[str, str]]:
    """Return a row per layer; gains are relative to the layer before."""
    found = []
    for number, layer in enumerate(case.layers):
        before = case.layers[number - 1] if number else None
        found.append(
            {
                "layer": layer.name,
                "mean": _number(layer.mean),
                "std": _number(layer.std),
                "saturated": _percent(layer.saturated),
                "zero": _percent(layer.zero),
                "dead": _percent(layer.dead),
                "gradient std": _number(layer.grad_std),
                "std gain": _number(ratio(layer.std, before.std) if before else None),
                "gradient gain": _number(ratio(before.grad_norm, layer.grad_norm) if before else None),
            }
        )
    return found


def _overview_row(case: Case) -> dict[str, str]:
    """Return one row for a case: its first and last layer, and the verdict."""
    first, last = case.layers[0], case.layers[-1]
    saturated = [layer.saturated for layer in case.layers if layer.saturated is not None]
    return {
        "activation": case.activation,
        "init": case.init,
        "std, first": _number(first.std),
        "std, last": _number(last.std),
        "most saturated": _percent(max(saturated) if saturated else None),
        "gradient, first": _number(first.grad_std),
        "gradient, last": _number(last.grad_std),
        "verdict": case.verdict,
    }


def _number(value: float | None) -> str:
    """Return a number with three digits."""
    return f"{value:.3g}" if value is not None else ""


def _percent(value: float | None) -> str:
    """Return a share in per cent."""
    return f"{value:.1%}" if value is not None else ""


def _verdict_table(cases: Sequence[Case]) -> str:
    """Return the verdicts as a table for TensorBoard."""
    table = [_overview_row(case) for case in cases]
    head = list(table[0])
    lines = [head, ["---"] * len(head), *(list(row.values()) for row in table)]
    wrong = [f"* {case.name}: {finding.word}: {finding.text}" for case in cases for finding in case.findings]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", *wrong])
