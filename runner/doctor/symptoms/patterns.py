"""Symptoms of patterns in the training loss: spikes that return, and what repeats in each epoch."""

from __future__ import annotations

import numpy as np

from runner.doctor.advice import divided_lr
from runner.doctor.changes_advised import clipped
from runner.doctor.finding import Evidence, Finding, Severity
from runner.doctor.history import History, Series
from runner.doctor.measures import autocorrelation, running_mean, running_median
from runner.doctor.shapes import LOSS, is_short, losses, trend
from runner.registry import register

# Spikes: height in standard deviations of the noise and in units of the fall, steps to return, how many for a warning
_SPIKE, _SPIKE_SIZE, _RETURN, _SPIKES = 8.0, 0.1, 50, 3
_WIDTH = 51
# Of the loss of zero outputs: a loss that a network which is nearly trained has for no usual batch
_FAR = 0.5
# Steps that are searched for spikes, from the end
_MOST = 20_000
# Of the gradient's norm over its median, where it was measured at a spike
_GRADIENT = 10.0
# Autocorrelation at the length of an epoch
_PERIODIC, _PERIODIC_Z, _PEAK = 0.3, 3.0, 0.15
# A correlation, and a size of what repeats, of the loss of zero outputs, that a random order does not have
_REPEATS, _LARGE, _HUGE = 0.4, 0.05, 0.3
# Epochs after the first one
_PERIODS = 3.5


@register("symptom")
def spikes(history: History) -> Finding | None:
    """Return a finding if single steps have a loss far above those around them, and it returns."""
    loss, shape = losses(history), trend(history)
    if shape is None or shape.fall <= 0:
        return None
    found = _spikes(Series(loss.steps[-_MOST:], loss.values[-_MOST:]), _SPIKE_SIZE * shape.fall)
    # The last batch of an epoch may have fewer examples
    found = [step for step in found if step % history.facts.steps_per_epoch]
    norms, level = history.series("grad_norm/_global").finite(), history.facts.chance_loss() or shape.fall
    measured = norms.values[np.isin(norms.steps, found)]
    high = len(measured) > 0 and measured.max() > _GRADIENT * np.median(norms.values)
    # Single batches may be unusual, unless their gradients are as well or many losses jump far
    large = [step for step in found if float(loss.values[np.searchsorted(loss.steps, step)]) > _FAR * level]
    if not high and (len(measured) or len(large) < 2):
        return None
    many = len(found) >= _SPIKES
    usual = float(np.percentile(norms.values, 90)) if len(norms) else None
    betas = history.facts.config["optim"].get("betas")
    return Finding(
        id="spikes",
        severity=Severity.WARN if many else Severity.HINT,
        confidence=0.75 if many else 0.4,
        evidence=Evidence(numbers={"spikes": len(found)}, steps=(found[0], found[-1]), tags=(LOSS,)),
        why=f"The training loss jumps far above its level at {len(found)} step{'s' if len(found) > 1 else ''} and "
        "returns" + ("." if many else "; single batches may be unusual."),
        advice=(
            *clipped(history.facts.config, usual),
            *([("optim.betas=[0.9,0.95]",)] if betas and betas[1] > 0.95 else []),
            *divided_lr(history.facts.config, 3),
        ),
        probe=None,
        source="Tuning Playbook, unstable training",
    )


def _spikes(loss: Series, least: float) -> list[int]:
    """Return the steps of the first points of spikes that return within 50 steps."""
    values, half = loss.values, _WIDTH // 2
    if len(values) < 2 * _WIDTH:
        return []
    above = values - running_median(values, _WIDTH)
    # The noise changes during a run, so it is measured around each step
    sd = 1.4826 * running_median(np.abs(above), 2 * _WIDTH + 1)
    high = (above > _SPIKE * sd) & (above > least)
    # The fall of the first steps is no spike
    high[:half] = False
    places = np.flatnonzero(high)
    first = [int(p) for i, p in enumerate(places) if i == 0 or p - places[i - 1] > _RETURN]
    return [int(loss.steps[p]) for p in first if not high[p : p + _RETURN + 1].all() and p + _RETURN < len(values)]


@register("symptom")
def periodic(history: History) -> Finding | None:
    """Return a finding if the training loss repeats itself from epoch to epoch."""
    loss, lag, chance = losses(history), history.facts.steps_per_epoch, history.facts.chance_loss()
    values = loss.values[lag:][-_MOST:]
    if is_short(history) or lag < _WIDTH // 5 or len(values) < _PERIODS * lag:
        return None
    # The mean over a whole epoch has no part of what repeats in each, and all of a straight trend, but for the ends
    half = lag // 2
    rest = values - running_mean(values, lag | 1)
    # The last batch of an epoch may have fewer examples, so that its loss varies more
    rest[lag - 1 :: lag] = 0.0
    rest = rest[half : len(values) - half]
    found, others = autocorrelation(rest, lag), [autocorrelation(rest, lag - lag // part) for part in (3, 4)]
    # White noise has a correlation of 1 / sqrt(n); noise with a memory has one at shorter lags as well
    if found <= max(_PERIODIC, _PERIODIC_Z / len(rest) ** 0.5):
        return None
    size = float(rest.std()) * found**0.5
    if found < min(others) + _PEAK and not (chance is not None and size > _HUGE * chance):
        return None
    sure = found > _REPEATS and chance is not None and size > _LARGE * chance
    return Finding(
        id="periodic",
        severity=Severity.WARN if sure else Severity.HINT,
        confidence=0.97 if sure else 0.5,
        evidence=Evidence(
            numbers={"autocorrelation": found, "steps_per_epoch": lag, "size": size},
            steps=(int(loss.steps[-len(values)]), int(loss.steps[-1])),
            tags=(LOSS,),
        ),
        why="The training loss repeats itself in each epoch"
        + (
            f", by {size:.2g}: the examples come in the same order each time."
            if sure
            else "; the examples may come in the same order each time."
        ),
        advice=(),
        probe="look at the batches of two epochs: python -m runner task=preview",
        source="Tuning Playbook, training curves",
    )
