"""Symptoms of the numbers themselves: steps whose loss or gradient is not finite."""

from __future__ import annotations

import numpy as np

from runner.doctor.advice import divided_lr
from runner.doctor.finding import Evidence, Finding, Severity
from runner.doctor.history import History
from runner.registry import register
from runner.status import Status

_LOSS = "train/loss"
# A learning rate that makes the loss overflow is too large by far
_FACTOR = 10


@register("symptom")
def nonfinite(history: History) -> Finding | None:
    """Return a finding if a loss, gradient, weight or score was not finite; the first step counts."""
    facts, loss = history.facts, history.series(_LOSS)
    bad = loss.steps[~np.isfinite(loss.values)]
    if facts.status is not Status.DIVERGED and not len(bad):
        return None
    step = facts.diverged_at if facts.diverged_at is not None else int(bad[0])
    first = facts.reason.partition("; ")[0] if facts.reason else f"The training loss of step {step} is not finite"
    before = loss.finite()
    last = {"last_finite_loss": float(before.values[-1])} if len(before) else {}
    return Finding(
        id="nonfinite",
        severity=Severity.ERROR,
        confidence=1.0,
        evidence=Evidence(numbers=last, steps=(step, step), tags=(_LOSS,)),
        why=f"{first[:1].upper()}{first[1:]}.",
        advice=(*divided_lr(facts.config, _FACTOR), *_other_advice(history)),
        probe=None,
        source="a finite check of each step's loss and gradients",
    )


def _other_advice(history: History) -> list[tuple[str, ...]]:
    """Return what helps besides a smaller learning rate, where the run did without."""
    config, found = history.facts.config, list[tuple[str, ...]]()
    if config["precision"] in ("fp16", "bf16", "pure_bf16"):
        found.append(("precision=fp32",))
    if config["clip"] is None:
        found.append(("clip=1.0",))
    return found
