"""Symptoms of the course of the training loss: stuck at chance, late start, flat, rising, spikes, periodic."""

from __future__ import annotations

import math

import numpy as np

from runner.doctor.advice import divided_lr
from runner.doctor.changes_advised import better_start, decayed, more_lr
from runner.doctor.finding import Evidence, Finding, Severity
from runner.doctor.history import History
from runner.doctor.layers import activation_gain
from runner.doctor.measures import block_means, noise_sd
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
