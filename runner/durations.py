"""Durations such as `5epochs` in optimizer steps, and the steps at which something recurs; imports no torch."""

from __future__ import annotations

from fractions import Fraction

from runner.errors import ConfigError
from runner.schema import Duration, Pattern


def steps_of(duration: str, *, total_steps: int, steps_per_epoch: int, batch: int) -> int:
    """Turn a duration in the user's unit into optimizer steps (rounded to the nearest, never below zero).

    `batch` is the number of examples of one optimizer step. A percentage is of the whole run.
    """
    count, unit = count_and_unit(duration)
    steps = {"step": 1.0, "epoch": float(steps_per_epoch), "example": 1 / batch, "%": total_steps / 100}
    return round(float(count) * steps[unit])


def exact_steps_of(duration: str, *, total_steps: int, steps_per_epoch: int, batch: int) -> Fraction:
    """Return a duration in optimizer steps, not rounded."""
    count, unit = count_and_unit(duration)
    steps = {"step": (1, 1), "epoch": (steps_per_epoch, 1), "example": (1, batch), "%": (total_steps, 100)}
    return count * Fraction(*steps[unit])


def count_and_unit(duration: str) -> tuple[Fraction, str]:
    """Return the number of a duration and its unit: `step`, `epoch`, `example` or `%`; ConfigError if malformed."""
    pattern: Pattern = Duration.__metadata__[0]  # type: ignore[attr-defined]
    match = pattern.expression.fullmatch(duration)
    if match is None:
        raise ConfigError(f"got '{duration}', must be {pattern.says}")
    return Fraction(match["count"]), match["unit"].rstrip("s")


def date(number: int, every: int | Fraction) -> int:
    """Return the step of the k-th repetition, `round(k * every)`; `number` is k and `every` is at least 1 step.

    Rounding `every` first would add up to half a step of error per repetition.
    """
    return round(number * every)


def dates_until(step: int, every: int | Fraction) -> int:
    """Return how many of the dates `round(k * every)`, k = 1, 2, ..., lie at or before `step`."""
    # k * every < step + 1/2, in whole numbers
    count, rest = divmod((2 * step + 1) * every.denominator, 2 * every.numerator)
    # `round` takes half a step to the even neighbor
    return count - 1 if rest == 0 and step % 2 else count


def is_date(step: int, every: int | Fraction) -> bool:
    """Return True if `step` is one of the dates `round(k * every)`."""
    if every.denominator == 1:
        return step % every.numerator == 0
    return dates_until(step, every) > dates_until(step - 1, every)
