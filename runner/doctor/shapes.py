"""The parts of a run's curves that the symptoms judge: the steady part of the training loss, its trend, the start."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runner.doctor.history import History, Series
from runner.doctor.measures import BLOCK_STEPS, BLOCKS, TREND_Z, Values, block_means, mann_kendall, noise_sd, theil_sen

LOSS, RATE, RATIO = "train/loss", "train/lr", "ratio/l2/_global"
# The share of a segment's end that is judged
_WINDOW = 1 / 3
# A change of the learning rate by more than this factor between two logged ones is a drop
_DROP = 1.5
# Schedules with drops; between them the rate is constant
_STEPPED = ("step", "multistep", "plateau")
_CONSTANT = ("constant", *_STEPPED)
# Steps whose mean loss is the start of the run
_START = 10
# The start is at most this many times the loss of zero outputs
_START_LIMIT = 1.5
# Half of the interval of the relative gain in which a curve counts as flat
_FLAT = 0.01


@dataclass(frozen=True)
class _Trend:
    """The trend of the training loss in the last third of a segment of constant learning rate.

    Attributes:
        blocks: The means of 20 blocks (20,).
        steps: The first and the last step.
        z: Mann-Kendall's z, negative for a falling loss.
        gain: The part of the run's whole fall that happened in the window; negative for a rising loss.
        gain_low, gain_high: Its 90 % interval.
        fall: The whole fall of the loss, in units of the loss.
        noise: The standard deviation of one step's loss.
        smooth: True if the learning rate changes inside the window, so that the trend says less.
    """

    blocks: Values
    steps: tuple[int, int]
    z: float
    gain: float
    gain_low: float
    gain_high: float
    fall: float
    noise: float
    smooth: bool

    @property
    def is_falling(self) -> bool:
        """True if the loss falls, at 1 %."""
        return self.z < -TREND_Z

    @property
    def is_rising(self) -> bool:
        """True if the loss rises, at 1 %."""
        return self.z > TREND_Z

    @property
    def is_flat(self) -> bool:
        """True if the gain is within 1 % with 90 % confidence: no trend found is not enough."""
        return self.gain_low > -_FLAT and self.gain_high < _FLAT

    @property
    def end(self) -> float:
        """The loss at the end: the mean of the last blocks."""
        return float(self.blocks[-4:].mean())

    @property
    def confidence(self) -> float:
        """The confidence of a rule that rests on the trend."""
        return 0.6 if self.smooth else 0.8


def losses(history: History) -> Series:
    """Return the finite training losses."""
    return history.series(LOSS).finite()


def start_loss(history: History) -> float | None:
    """Return the mean loss of the first 10 steps, at most 1.5 times that of zero outputs; None if there are fewer."""
    values = losses(history).values
    if len(values) < _START:
        return None
    start, chance = float(values[:_START].mean()), history.facts.chance_loss()
    return start if chance is None else min(start, _START_LIMIT * chance)


def whole_blocks(history: History, blocks: int = BLOCKS) -> Values | None:
    """Return the block means of the training loss over the whole run, None if it is shorter than 200 steps."""
    return block_means(losses(history).values, blocks)


def segments(history: History) -> list[Series]:
    """Return the training loss in parts of constant learning rate; the whole one under a schedule without drops."""
    loss, rate = losses(history), history.series(RATE).finite()
    if history.facts.config["scheduler"]["name"] not in _STEPPED or len(rate) < 2:
        return [loss]
    now, later = rate.values[:-1], rate.values[1:]
    dropped = np.flatnonzero((later * _DROP < now) | (later > now * _DROP))
    # A drop lies between two logged rates; the steps between them belong to neither part
    ends = [*(int(rate.steps[i]) for i in dropped), np.iinfo(np.int64).max]
    starts = [0, *(int(rate.steps[i + 1]) for i in dropped)]
    cut = [(loss.steps >= a) & (loss.steps <= b) for a, b in zip(starts, ends, strict=True)]
    return [part(loss, inside) for inside in cut if inside.any()]


def part(series: Series, inside: NDArray[np.bool_]) -> Series:
    """Return the points of a curve that a mask selects."""
    return Series(series.steps[inside], series.values[inside])


def trend(history: History) -> _Trend | None:
    """Return the trend at the end of the run, None if it is too short for one."""
    found = segments(history)
    return _trend_of(history, found[-1]) if found else None


def _trend_of(history: History, segment: Series) -> _Trend | None:
    """Return the trend in the last third of a segment, None if that is shorter than 200 steps."""
    start, size = start_loss(history), math.ceil(len(segment) * _WINDOW)
    values, steps = segment.values[-size:], segment.steps[-size:]
    blocks = block_means(values) if size else None
    if blocks is None or start is None:
        return None
    # The lowest level of the run so far, in blocks of the same length
    before = losses(history).values
    before = before[: int(np.searchsorted(losses(history).steps, steps[-1], side="right"))]
    lowest = block_means(before, max(1, len(before) // (size // BLOCKS)), 1)
    fall = start - float(min(blocks.min(), blocks.min() if lowest is None else lowest.min()))
    slope = theil_sen(blocks)
    scale = -BLOCKS / fall if fall > 0 else -math.inf
    return _Trend(
        blocks=blocks,
        steps=(int(steps[0]), int(steps[-1])),
        z=mann_kendall(blocks),
        gain=slope.value * scale,
        gain_low=slope.high * scale,
        gain_high=slope.low * scale,
        fall=fall,
        noise=noise_sd(values),
        smooth=history.facts.config["scheduler"]["name"] not in _CONSTANT,
    )


def warm_up(history: History) -> int:
    """Return the step at which the learning rate has reached its largest value; 0 without a warm-up."""
    scheduler, rate = history.facts.config["scheduler"], history.series(RATE).finite()
    warms = str(scheduler.get("warmup", "0%")).strip("0.") not in ("%", "steps", "epochs", "step", "epoch", "examples")
    if not len(rate) or not (warms or scheduler["name"] in ("onecycle", "triangular", "cyclic")):
        return 0
    return int(rate.steps[int(rate.values.argmax())])


def early_ratio(history: History) -> float | None:
    """Return the median update ratio of all weights in the first tenth of the run, None if it was not measured.

    The first 10 steps and the warm-up do not count. A short run has few measurements there: then the first three count.
    """
    ratio, first = history.series(RATIO).finite(), max(_START, warm_up(history))
    late = part(ratio, ratio.steps > first)
    early = late.values[late.steps <= max(first, history.facts.steps // 10)]
    early = early if len(early) >= 3 else late.values[:3]
    return float(np.median(early)) if len(early) else None


def is_short(history: History) -> bool:
    """True if the run has fewer than 200 steps of training loss: no curve of it is judged."""
    return len(losses(history)) < BLOCKS * BLOCK_STEPS
