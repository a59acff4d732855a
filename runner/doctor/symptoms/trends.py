"""Symptoms of the course of the training loss: stuck at chance, late start, flat, rising, spikes, periodic."""

from __future__ import annotations

import math

import numpy as np

from runner.doctor.advice import divided_lr
from runner.doctor.changes_advised import better_start, clipped, decayed, more_lr
from runner.doctor.finding import Evidence, Finding, Severity
from runner.doctor.history import History, Series
from runner.doctor.layers import activation_gain
from runner.doctor.measures import autocorrelation, block_means, noise_sd, running_mean, running_median
from runner.doctor.shapes import LOSS, is_short, losses, part, start_loss, trend, warm_up
from runner.registry import register

# Distance to the loss of zero outputs, relative to it, at which nothing is learned
_CHANCE = 0.02
# Share of the run, and steps, that the loss may stay at its start
_PLATEAU, _PLATEAU_STEPS = 0.05, 100
_SMOOTH = 10
# Gains per layer at initialization that are no reason for a plateau
_GAINS = (0.75, 1.33)
# Of the loss of zero outputs: below it, nothing is left to learn
_LEARNED = 0.02
# Rise in the window, of the whole fall
_RISE = -0.02
# Spikes: height in standard deviations of the noise and in units of the fall, steps to return, how many for a warning
_SPIKE, _SPIKE_SIZE, _RETURN, _SPIKES = 8.0, 0.1, 50, 3
_WIDTH = 51
# Steps that are searched for spikes, from the end
_MOST = 20_000
# Of the gradient's norm over its median, where it was measured at a spike
_GRADIENT = 10.0
# Autocorrelation at the length of an epoch
_PERIODIC, _PERIODIC_Z, _PEAK = 0.3, 3.0, 0.15
# A correlation, and a size of what repeats, of the loss of zero outputs, that a random order does not have
_REPEATS, _LARGE = 0.4, 0.05
# Epochs after the first one
_PERIODS = 3.5


@register("symptom")
def no_learning(history: History) -> Finding | None:
    """Return a finding if the training loss never falls below that of a network that ignores its input."""
    loss, chance = losses(history), history.facts.chance_loss()
    late = part(loss, loss.steps > loss.steps[-1] // 10) if len(loss) else loss
    blocks = block_means(late.values)
    if chance is None or blocks is None:
        return None
    prior = history.facts.prior_entropy() if history.facts.config["loss"]["name"] == "cross_entropy" else None
    level = min(chance, chance if prior is None else prior)
    # With strong label smoothing the best loss is near that of zero outputs
    if _smoothed_floor(history) > (1 - 2 * _CHANCE) * level:
        return None
    if blocks.min() < (1 - _CHANCE) * level:
        return None
    config = history.facts.config
    return Finding(
        id="no_learning",
        severity=Severity.WARN,
        confidence=0.7,
        evidence=Evidence(
            numbers={"lowest_level": float(blocks.min()), "chance": level},
            steps=(int(late.steps[0]), int(late.steps[-1])),
            tags=(LOSS,),
        ),
        why=f"The training loss never falls below {level:.3g}, that of a network that ignores its input.",
        advice=(*better_start(config), *divided_lr(config, 10), *more_lr(config, 10)),
        probe="overfit one batch, with a ladder of learning rates",
        source="CS231n, neural networks 3; Karpathy, A Recipe for Training Neural Networks",
    )


def _smoothed_floor(history: History) -> float:
    """Return the lowest cross-entropy that label smoothing allows, 0 for other losses."""
    loss, classes = history.facts.config["loss"], history.facts.classes
    share = float(loss.get("label_smoothing") or 0.0) if loss["name"] == "cross_entropy" else 0.0
    if not share or classes < 2:
        return 0.0
    others = share / classes
    return -(1 - share + others) * math.log(1 - share + others) - (classes - 1) * others * math.log(others)


@register("symptom")
def bad_init_plateau(history: History) -> Finding | None:
    """Return a finding if the loss stays at its start for long and then falls quickly."""
    loss, start = losses(history), start_loss(history)
    smooth = block_means(loss.values, len(loss) // _SMOOTH) if len(loss) >= 2 * _SMOOTH else None
    if smooth is None or start is None or is_short(history) or start <= smooth.min():
        return None
    fall = start - float(smooth.min())
    tenth, half = (int(np.argmax(smooth < start - share * fall)) * _SMOOTH for share in (0.1, 0.5))
    flat = tenth > max(_PLATEAU * len(loss), _PLATEAU_STEPS, warm_up(history)) and half - tenth < tenth
    # A fall within the noise has no start
    if not flat or fall < max(3 * noise_sd(smooth), _CHANCE * start):
        return None
    gain = activation_gain(history)
    agrees = gain is not None and not _GAINS[0] <= gain <= _GAINS[1]
    numbers = {"steps_to_a_tenth": tenth, "steps_to_half": half} | ({"activation_gain": gain} if gain else {})
    return Finding(
        id="bad_init_plateau",
        severity=Severity.WARN if agrees else Severity.HINT,
        confidence=0.9 if agrees else 0.5,
        evidence=Evidence(numbers=numbers, steps=(1, int(loss.steps[min(tenth, len(loss) - 1)])), tags=(LOSS,)),
        why=f"The training loss stays at its start for {tenth} steps and then falls"
        + (
            f"; activations change by a factor of {gain:.2g} per layer at initialization."
            if agrees
            else "; this is consistent with a bad initialization, a tiny learning rate or a hard start."
        ),
        advice=tuple(better_start(history.facts.config)),
        probe="python -m runner task=init_report with the same model",
        source="CS231n, neural networks 2",
    )


@register("symptom")
def plateau_decay(history: History) -> Finding | None:
    """Return a finding if the loss is flat at a learning rate that never fell."""
    config, shape, chance = history.facts.config, trend(history), history.facts.chance_loss()
    if config["scheduler"]["name"] != "constant" or shape is None or not shape.is_flat:
        return None
    if shape.end <= _LEARNED * (chance or 0.0) or (chance is not None and shape.end > (1 - _CHANCE) * chance):
        return None
    return Finding(
        id="plateau_decay",
        severity=Severity.HINT,
        confidence=0.6,
        evidence=Evidence(
            numbers={"gain_low": shape.gain_low, "gain_high": shape.gain_high, "end": shape.end},
            steps=shape.steps,
            tags=(LOSS,),
        ),
        why="The training loss no longer changes at this constant learning rate; a lower one may let it fall further.",
        advice=(*decayed(config), *divided_lr(config, 3)),
        probe="train 200 steps from the last checkpoint with a tenth of the learning rate",
        source="CS231n, neural networks 3",
    )


@register("symptom")
def loss_rising(history: History) -> Finding | None:
    """Return a finding if the training loss rises in the last third of the run."""
    shape = trend(history)
    if shape is None or not shape.is_rising or not shape.gain < _RISE or shape.fall <= 0:
        return None
    return Finding(
        id="loss_rising",
        severity=Severity.WARN,
        confidence=shape.confidence,
        evidence=Evidence(
            numbers={"z": shape.z, "rise_of_fall": -shape.gain, "end": shape.end}, steps=shape.steps, tags=(LOSS,)
        ),
        why=f"The training loss rises by {-shape.gain:.0%} of what it had fallen: often a learning rate that is too "
        "high, or a fault in the data's order.",
        advice=tuple(divided_lr(history.facts.config, 3)),
        probe="train 200 steps from the checkpoint before the rise with a third of the learning rate",
        source="Tuning Playbook, training curves",
    )


@register("symptom")
def spikes(history: History) -> Finding | None:
    """Return a finding if single steps have a loss far above those around them, and it returns."""
    loss, shape = losses(history), trend(history)
    if shape is None or shape.fall <= 0:
        return None
    found = _spikes(Series(loss.steps[-_MOST:], loss.values[-_MOST:]), _SPIKE_SIZE * shape.fall)
    # The last batch of an epoch may have fewer examples
    found = [step for step in found if step % history.facts.steps_per_epoch]
    norms = history.series("grad_norm/_global").finite()
    measured = norms.values[np.isin(norms.steps, found)]
    high = len(measured) > 0 and measured.max() > _GRADIENT * np.median(norms.values)
    # A single batch may be unusual, unless its gradient is as well
    if not found or (not high and (len(measured) or len(found) == 1)):
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
    if found <= max(_PERIODIC, _PERIODIC_Z / len(rest) ** 0.5) or found < min(others) + _PEAK:
        return None
    size = float(rest.std()) * found**0.5
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
