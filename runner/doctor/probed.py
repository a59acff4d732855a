"""The verdict of a probe on a finding: short trainings from one checkpoint, at the same and another learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from runner.doctor.finding import Evidence, Finding, Severity
from runner.doctor.history import History

# Factors on the learning rate; the first one is the run's own
SAME, LOWER, HIGHER = FACTORS = (1.0, 0.1, 3.0)
# Steps of each training, and those at its end that are compared
STEPS = 200
COMPARED = 50
# Standard errors of the difference, and its share of all that the loss fell in the run (diagnostics: 0.02 D)
EFFECT, _SHARE = 3.0, 0.02
# From the median absolute deviation to the standard deviation of normal noise
_TO_SD = 1.4826
# Symptoms that say that another rate is better, and the factor that shows it
TESTS = {
    "lr_high": LOWER,
    "ratio_high": LOWER,
    "plateau_decay": LOWER,
    "lr_low": HIGHER,
    "ratio_low": HIGHER,
}
_SURE, _DOUBTFUL = 0.95, 0.1
# Steps at the start whose mean is the first loss, and blocks of the run whose smallest mean is the last one
_FIRST, _BLOCKS = 10, 20
_WORDS = {LOWER: "a tenth of the learning rate", HIGHER: "three times the learning rate"}


@dataclass(frozen=True, kw_only=True)
class _Difference:
    """Two trainings compared: their mean losses at the end, and how many standard errors they differ by.

    Attributes:
        same: The mean loss of the last steps at the run's own rate.
        other: The mean loss at another rate; infinite if that training diverged.
        effect: The fall from `same` to `other` in standard errors.
    """

    same: float
    other: float
    effect: float

    def is_better(self, fall: float) -> bool:
        """Return True if the other rate is better beyond doubt, by enough of the `fall` of the whole run."""
        return self.effect > EFFECT and self.same - self.other > _SHARE * fall


def end_of(losses: NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean of the last 50 losses and its standard error, from the differences between consecutive ones."""
    changes = np.diff(losses)
    sigma = _TO_SD * float(np.median(np.abs(changes - np.median(changes)))) / math.sqrt(2)
    return float(np.mean(losses[-COMPARED:])), sigma / math.sqrt(COMPARED)


def has_diverged(other: NDArray[np.float64], same: NDArray[np.float64]) -> bool:
    """Return True if a training made fewer steps than the one that it is compared with, or has a loss of nan."""
    return len(other) < len(same) or not np.all(np.isfinite(other))


def compared(same: float, other: float, error: float) -> _Difference:
    """Return the difference of two mean losses, given its standard error."""
    gain = same - other
    return _Difference(same=same, other=other, effect=gain / error if error > 0 else math.copysign(math.inf, gain))


def difference(same: NDArray[np.float64], other: NDArray[np.float64]) -> _Difference:
    """Return how the losses of two trainings on the same batches differ at their end.

    Args:
        same: The losses (n,) of each step at the run's own rate.
        other: Those at another rate; fewer, or not finite, if it diverged.
    """
    end, error = end_of(same)
    there = math.inf if has_diverged(other, same) else float(np.mean(other[-COMPARED:]))
    return compared(end, there, math.sqrt(2) * error)


def fall_of(history: History) -> float:
    """Return how far the training loss of a run fell, from its first steps to the best of twenty parts of it."""
    values = history.series("train/loss").finite().values
    if len(values) < _BLOCKS:
        return math.inf
    best = min(float(np.mean(block)) for block in np.array_split(values, _BLOCKS))
    return float(np.mean(values[:_FIRST])) - best


def with_probe(finding: Finding, losses: Mapping[float, NDArray[np.float64]], fall: float, step: int) -> Finding:
    """Return a finding with what a probe measured: a warning if it is confirmed, else a hint of little confidence.

    Args:
        finding: A finding that `TESTS` names; others are returned as they are.
        losses: The losses of each training by its factor on the learning rate.
        fall: The fall of the loss in the whole run.
        step: The step of the checkpoint from which the trainings went on.
    """
    if (factor := TESTS.get(finding.id)) is None:
        return finding
    found = difference(losses[SAME], losses[factor])
    said = (
        f"{STEPS} steps after step {step} at {_WORDS[factor]} end at a loss of {found.other:.4g}, at the same rate at "
    )
    measured = f"{said}{found.same:.4g} ({found.effect:+.1f} standard errors)"
    numbers = {"probe_same": found.same, "probe_other": found.other, "probe_effect": found.effect}
    return judged(finding, measured, numbers, confirmed=found.is_better(fall))


def judged(finding: Finding, measured: str, numbers: Mapping[str, float], *, confirmed: bool) -> Finding:
    """Return a finding with what a probe measured: a warning if it is confirmed, else a hint of little confidence."""
    verdict = "A probe confirms it: " if confirmed else "A probe does not confirm it: "
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
