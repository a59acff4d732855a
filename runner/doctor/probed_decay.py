"""The verdict of a probe on an early drop of the learning rate: the run again without the drop, for as many steps."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from runner.doctor.finding import Finding
from runner.doctor.probed import COMPARED, EFFECT, compared, end_of, has_diverged, judged

DECAY = "decay_too_early"


def is_repeated(logged: NDArray[np.float64], again: NDArray[np.float64]) -> bool:
    """Return True if training again gave the losses before the drop (n,), up to their noise; `again` has all steps."""
    if len(again) < len(logged) or len(logged) < COMPARED:
        return False
    (first, error), (second, other) = end_of(logged), end_of(again[: len(logged)])
    return abs(first - second) <= EFFECT * math.hypot(error, other)


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
    (here, error), (there, other) = end_of(own), (math.inf, 0.0) if has_diverged(old, own) else end_of(old)
    found = compared(here, there, math.hypot(error, other))
    measured = (
        f"{len(own)} steps after step {drop} at the old learning rate end at a loss of {there:.4g}, with the drop at "
        f"{here:.4g} ({found.effect:+.1f} standard errors)"
    )
    numbers = {"probe_same": here, "probe_other": there, "probe_effect": found.effect}
    return judged(finding, measured, numbers, confirmed=found.is_better(fall))
