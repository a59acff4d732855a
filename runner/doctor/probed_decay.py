"""The verdict of a probe on an early drop of the learning rate: the run again without the drop, for as many steps."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from runner.doctor.finding import Evidence, Finding, Severity

DECAY = "decay_too_early"
# Steps at the end that are compared, standard errors, and the share of all that the loss fell in the run
COMPARED, _EFFECT, _SHARE = 50, 3.0, 0.02
_TO_SD = 1.4826
_SURE, _DOUBTFUL = 0.95, 0.1


def end_of(losses: NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean of the last 50 losses and its standard error, from the differences between consecutive ones."""
    changes = np.diff(losses)
    sigma = _TO_SD * float(np.median(np.abs(changes - np.median(changes)))) / math.sqrt(2)
    return float(np.mean(losses[-COMPARED:])), sigma / math.sqrt(COMPARED)


def is_repeated(logged: NDArray[np.float64], again: NDArray[np.float64]) -> bool:
    """Return True if training again gave the losses before the drop (n,), up to their noise; `again` has all steps."""
    if len(again) < len(logged) or len(logged) < COMPARED:
        return False
    (first, error), (second, other) = end_of(logged), end_of(again[: len(logged)])
    return abs(first - second) <= _EFFECT * math.hypot(error, other)


def with_old_rate(
    finding: Finding, own: NDArray[np.float64], old: NDArray[np.float64], fall: float, drop: int
) -> Finding:
    """Return the finding with what the probe measured: a warning if it is confirmed, else a hint of little confidence.

    Args:
        finding: The finding that the rate dropped too early.
        own: The losses (n,) of the run after the drop, n >= 50.
        old: Those at the old rate; fewer, or not finite, if that training diverged.
        fall: The fall of the loss in the whole run.
        drop: The last step before the drop.
    """
    diverged = len(old) < len(own) or not np.all(np.isfinite(old))
    (here, error), (there, other) = end_of(own), (math.inf, 0.0) if diverged else end_of(old)
    both = math.hypot(error, other)
    effect = (here - there) / both if both > 0 else math.copysign(math.inf, here - there)
    confirmed = effect > _EFFECT and here - there > _SHARE * fall
    verdict = "A probe confirms it: " if confirmed else "A probe does not confirm it: "
    measured = (
        f"{len(own)} steps after step {drop} at the old learning rate end at a loss of {there:.4g}, with the drop at "
        f"{here:.4g} ({effect:+.1f} standard errors)"
    )
    numbers = {"probe_same": here, "probe_other": there, "probe_effect": effect}
    return replace(
        finding,
        severity=Severity.WARN if confirmed else Severity.HINT,
        confidence=_SURE if confirmed else _DOUBTFUL,
        evidence=Evidence(
            numbers={**finding.evidence.numbers, **numbers}, steps=finding.evidence.steps, tags=finding.evidence.tags
        ),
        why=f"{finding.why} {verdict}{measured}.",
        probe=None,
    )
