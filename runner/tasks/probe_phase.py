"""The comparison of a fine-tuned model with the linear probe that it began with (`transfer=lp_ft`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from runner.assemble import Experiment
from runner.decoration import decorative
from runner.engine.logs.sinks import METRICS, read_metrics
from runner.tasks.run_folder import Run

_WORSE = "FINETUNE_WORSE_THAN_PROBE"
_ACCURACY = "val/accuracy"
# Standard errors of the difference
_MOST = 2.0


class _Fall(NamedTuple):
    """A fall of the accuracy on validation after the probe."""

    step: int
    probe: float
    final: float
    errors: float  # of the difference, in standard errors


def compare_with_probe(run: Run, experiment: Experiment) -> None:
    """Record in words if fine-tuning ended below the probe by more than two standard errors."""
    groups: Iterable[Mapping[str, Any]] = experiment.learner.optimizer.param_groups
    switch = next((int(group["phases"][0][1]) for group in groups if "phases" in group), None)
    if switch is None:
        return
    with decorative("comparison with the probe: not made"):
        rows = [(step, row[_ACCURACY]) for step, row in read_metrics(run.folder / METRICS) if _ACCURACY in row]
        if fall := _fall(rows, switch, len(experiment.validation["val"])):
            run.result.findings = [_WORSE]
            run.lines.append(
                f"{_WORSE}: validation accuracy {fall.final:.4f} at the end, {fall.probe:.4f} at the end of the probe "
                f"(step {fall.step}), {fall.errors:.1f} standard errors more; lower transfer.lr_factor, or choose "
                "transfer=feature_extraction"
            )


def _fall(rows: list[tuple[int, float]], switch: int, examples: int) -> _Fall | None:
    """Return how far the last accuracy is below the last one of the probe, None if it is not by two standard errors."""
    probed = [row for row in rows if row[0] <= switch]
    if not probed or not examples or rows[-1][0] <= switch:
        return None
    (step, probe), (_, final) = probed[-1], rows[-1]
    error = math.sqrt((probe * (1 - probe) + final * (1 - final)) / examples)
    if probe - final <= _MOST * error:
        return None
    return _Fall(step, probe, final, (probe - final) / error if error else math.inf)
