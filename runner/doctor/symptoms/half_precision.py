"""Symptoms of half precision: the loss scaler of fp16 skips steps."""

from __future__ import annotations

import numpy as np

from runner.doctor.advice import divided_lr
from runner.doctor.finding import Evidence, Finding, Severity
from runner.doctor.history import History
from runner.registry import register

_SKIPPED = "train/skipped_steps"
# At first the scale is too large on purpose, and a few steps are skipped until it fits
_AFTER = 200
# Share of the steps, and steps that must have been counted
_SHARE, _LEAST = 0.05, 100


@register("symptom")
def scaler_skips(history: History) -> Finding | None:
    """Return a finding if the loss scaler of fp16 skips more than a twentieth of the steps after step 200."""
    # A row counts the steps since the row before it
    counts = history.series(_SKIPPED)
    whole = counts.steps[:-1] >= _AFTER
    first, skipped = counts.steps[:-1][whole], counts.values[1:][whole]
    if not len(first) or not np.all(np.isfinite(skipped)):
        return None
    steps = int(counts.steps[-1] - first[0])
    share = float(skipped.sum()) / steps
    if steps < _LEAST or share <= _SHARE:
        return None
    return Finding(
        id="scaler_skips",
        severity=Severity.WARN,
        confidence=0.95,
        evidence=Evidence(
            numbers={"skipped": float(skipped.sum()), "steps": steps, "share": share, "limit": _SHARE},
            steps=(int(first[0]) + 1, int(counts.steps[-1])),
            tags=(_SKIPPED,),
        ),
        why=f"The loss scaler skipped {share:.0%} of the steps after step {int(first[0])}, because their gradients "
        "were not finite in fp16; about one in 2,000 is usual.",
        advice=(("precision=bf16",), *divided_lr(history.facts.config, 3)),
        probe="train in precision=fp32",
        source="Micikevicius et al. 2018, Mixed Precision Training; torch.amp.GradScaler",
    )
