"""Symptoms of a learning rate that is too high or too low, from the training loss and other trials of a sweep."""

from __future__ import annotations

import numpy as np

from runner.doctor.advice import divided_lr
from runner.doctor.changes_advised import clipped, decayed, more_lr, warmed_up
from runner.doctor.finding import Evidence, Finding, Severity
from runner.doctor.history import History
from runner.doctor.measures import TREND_Z, block_means, mann_kendall, noise_sd
from runner.doctor.shapes import LOSS, RATE, RATIO, early_ratio, is_short, losses, start_loss, trend, whole_blocks
from runner.registry import register

# Of the larger of the start and the loss of zero outputs: a loss above it has diverged (CS231n, neural networks 3)
_ABOVE_START = 1.2
# Of the best level: a loss above it has diverged (fastai's range test); and the least rise, of the loss of zero outputs
_ABOVE_BEST, _LEAST_RISE = 4.0, 0.1
# Of the loss of zero outputs: a lowest level above it has learned nothing; steps of a short rise
_LOST, _SHORT = 0.98, 10
# Share of the fall that is reached in the first tenth
_FAST, _FAST_SHARE = 0.8, 0.1
# Update ratio above which a rate is high, below which it is low (CS231n; measured on small networks)
_HIGH_RATIO, _LOW_RATIO = 3e-2, 3e-4
# A loss that is still this share of that of zero outputs has hardly been learned
_UNLEARNED = 0.5
_AT_START, _LOW_RATIO_AT_START = 0.85, 1e-3
# Gain per unit of summed learning rate in the second half over that in the first: near 1, the loss falls in a line
_LINE = 0.6
# Standard errors between the ends of two trials
_APART = 3.0
# Share of the run in which an early rise counts, and its size
# (measured: healthy runs at their best constant rate may double it)
_EARLY, _EARLY_RISE = 0.05, 3.0
_SMOOTHING = 5


@register("symptom")
def lr_very_high(history: History) -> Finding | None:
    """Return a finding if the training loss ends above its start, or far above its best level."""
    blocks, start, chance = whole_blocks(history), start_loss(history), history.facts.chance_loss()
    if blocks is None or start is None or is_short(history):
        return None
    level = max(start, chance or 0.0)
    best, last = float(blocks.min()), float(blocks[-1])
    above_start = min(blocks[-2:]) > _ABOVE_START * level
    above_best = last > max(_ABOVE_BEST * best, best + _LEAST_RISE * level)
    # A decayed rate brings the loss back to that of zero outputs, which is no recovery; large weights begin above it
    values = losses(history).values
    short = block_means(values, len(values) // _SHORT)
    peak = float(blocks.max() if short is None else short.max())
    lost = chance is not None and peak > _ABOVE_START * max(float(values[0]), chance) and best > _LOST * chance
    if not (above_start or above_best or lost):
        return None
    steps, place = losses(history).steps, int(blocks.argmin() if above_best else blocks.argmax())
    return Finding(
        id="lr_very_high",
        severity=Severity.WARN,
        confidence=0.95,
        evidence=Evidence(
            numbers={"start": level, "best": best, "highest": peak, "end": last},
            steps=(int(steps[len(steps) * place // len(blocks)]), int(steps[-1])),
            tags=(LOSS,),
        ),
        why=_how(above_start, above_best, peak, last) + ": the learning rate is too high.",
        advice=(*divided_lr(history.facts.config, 10), *warmed_up(history.facts.config), *_clip(history)),
        probe="train 200 steps from the best checkpoint with a tenth of the learning rate",
        source="CS231n, neural networks 3; fastai's range test (4 times the best loss)",
    )


def _how(above_start: bool, above_best: bool, highest: float, last: float) -> str:
    """Return how the loss went, in words."""
    if above_start or above_best:
        return (
            f"The training loss ends at {last:.3g}, {'above its start' if above_start else 'far above its best level'}"
        )
    return f"The training loss rises to {highest:.3g} and never falls below that of outputs of zero"


def _clip(history: History) -> list[tuple[str, ...]]:
    """Return the advice to clip at the 90th percentile of the gradient norms (Tuning Playbook)."""
    norms = history.series("grad_norm/_global").finite().values
    return clipped(history.facts.config, float(np.percentile(norms, 90)) if len(norms) else None)


@register("symptom")
def lr_high(history: History) -> Finding | None:
    """Return a finding if the loss falls fast and stays flat, with large updates or a better trial at a lower rate."""
    shape, blocks, start = trend(history), whole_blocks(history), start_loss(history)
    if shape is None or blocks is None or start is None or shape.fall <= 0 or not shape.is_flat:
        return None
    early = blocks[: max(1, round(len(blocks) * _FAST_SHARE))]
    reached = (start - float(early.min())) / shape.fall
    ratio, lower = early_ratio(history), _better_at_lower_rate(history)
    learned = history.facts.chance_loss() is None or shape.end < 0.02 * (history.facts.chance_loss() or 0.0)
    if reached < _FAST or learned or not (lower is not None or (ratio or 0.0) > _HIGH_RATIO):
        return None
    numbers = {"share_of_fall_in_first_tenth": reached, "end": shape.end}
    numbers |= {"early_update_ratio": ratio} if ratio is not None else {}
    numbers |= {"end_of_trial_with_lower_lr": lower} if lower is not None else {}
    return Finding(
        id="lr_high",
        severity=Severity.HINT if lower is None else Severity.WARN,
        confidence=0.5 if lower is None else 0.9,
        evidence=Evidence(numbers=numbers, steps=shape.steps, tags=(LOSS, RATIO)),
        why="The training loss falls fast and then stays flat; "
        + ("the learning rate may be too high." if lower is None else "a trial with a lower learning rate ends lower."),
        advice=(*divided_lr(history.facts.config, 3), *decayed(history.facts.config)),
        probe="train 200 steps from the last checkpoint with a tenth of the learning rate",
        source="CS231n, neural networks 3",
    )


def _better_at_lower_rate(history: History) -> float | None:
    """Return the end loss of a trial that differs in a lower learning rate only, if it is lower by 3 SE."""
    mine = _end(history)
    for other in history.siblings:
        theirs = _end(other) if _differs_in_rate(history, other) else None
        if mine and theirs and mine[0] - theirs[0] > _APART * float(np.hypot(mine[1], theirs[1])):
            return theirs[0]
    return None


def _differs_in_rate(history: History, other: History) -> bool:
    """True if another run has a lower learning rate and else the same config and seed."""
    mine, theirs = dict(history.facts.config), dict(other.facts.config)
    rates = [each["optim"].get("lr") for each in (mine, theirs)]
    if not all(isinstance(rate, (int, float)) for rate in rates) or not rates[1] < rates[0]:
        return False
    for each in (mine, theirs):
        each["optim"] = {key: value for key, value in each["optim"].items() if key != "lr"}
        each["name"] = None
    return mine == theirs


def _end(history: History) -> tuple[float, float] | None:
    """Return the mean loss of the last 50 steps and its standard error."""
    values = losses(history).values[-50:]
    return (float(values.mean()), noise_sd(values) / len(values) ** 0.5) if len(values) == 50 else None


@register("symptom")
def lr_low(history: History) -> Finding | None:
    """Return a finding if the loss falls in a line and little, and the updates are small."""
    loss, start, chance = losses(history), start_loss(history), history.facts.chance_loss()
    blocks, ratio = whole_blocks(history), early_ratio(history)
    if blocks is None or start is None or chance is None or ratio is None or is_short(history):
        return None
    halves = _gains_by_rate(history)
    z = mann_kendall(blocks)
    # A loss that has hardly moved shows the same with larger updates
    limit = _LOW_RATIO_AT_START if blocks[-1] > _AT_START * chance else _LOW_RATIO
    if z >= -TREND_Z or blocks[-1] <= _UNLEARNED * chance or ratio >= limit or halves is None or halves < _LINE:
        return None
    return Finding(
        id="lr_low",
        severity=Severity.HINT,
        confidence=0.7,
        evidence=Evidence(
            numbers={"z": z, "gain_of_second_half": halves, "end": float(blocks[-1]), "early_update_ratio": ratio},
            steps=(int(loss.steps[0]), int(loss.steps[-1])),
            tags=(LOSS, RATIO),
        ),
        why=f"The training loss falls slowly and in a line, to {blocks[-1]:.3g}; the learning rate may be too low.",
        advice=tuple(more_lr(history.facts.config, 10 if ratio < _LOW_RATIO / 10 else 3)),
        probe="train 200 steps from the last checkpoint with three times the learning rate",
        source="CS231n, neural networks 3",
    )


def _gains_by_rate(history: History) -> float | None:
    """Return the gain in the second half of the summed learning rate over that in the first, None if there is none."""
    loss, rate = losses(history), history.series(RATE).finite()
    if not len(rate):
        return None
    summed = np.cumsum(np.interp(loss.steps, rate.steps, rate.values))
    half = int(np.searchsorted(summed, summed[-1] / 2))
    parts = [block_means(values, 5, 5) for values in (loss.values[:half], loss.values[half:])]
    if parts[0] is None or parts[1] is None:
        return None
    first = float(parts[0][0] - parts[0][-1])
    return float(parts[1][0] - parts[1][-1]) / first if first > 0 else None


@register("symptom")
def unstable_early(history: History) -> Finding | None:
    """Return a finding if the loss rises above its start in the first 5 % of the steps and then recovers."""
    loss, start = losses(history), start_loss(history)
    count = int(len(loss) * _EARLY)
    if start is None or is_short(history) or count < 2 * _SMOOTHING:
        return None
    smooth = np.convolve(loss.values[:count], np.full(_SMOOTHING, 1 / _SMOOTHING), mode="valid")
    peak, limit = float(smooth.max()), _EARLY_RISE * max(float(loss.values[0]), history.facts.chance_loss() or 0.0)
    limit = max(limit, float(loss.values[0]) + 4 * noise_sd(loss.values[:count]) / _SMOOTHING**0.5)
    if peak <= limit or float(loss.values[-count:].mean()) >= start:
        return None
    return Finding(
        id="unstable_early",
        severity=Severity.HINT,
        confidence=0.6,
        evidence=Evidence(
            numbers={"first": float(loss.values[0]), "peak": peak},
            steps=(int(loss.steps[0]), int(loss.steps[count - 1])),
            tags=(LOSS,),
        ),
        why=f"The training loss rises to {peak:.3g} in the first steps and then recovers; a warm-up may help.",
        advice=(*warmed_up(history.facts.config), *divided_lr(history.facts.config, 3)),
        probe="train the first 500 steps with twice the learning rate and look at each step",
        source="Tuning Playbook, unstable training",
    )
