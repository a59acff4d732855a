"""Ranges of numbers as they are written: `range(0.1,0.5,0.2)` is 0.1 and 0.3, as in decimal notation.

In binary, 0.1 + 0.2 is 0.30000000000000004. No function lists a range, however many values it has.
"""

from __future__ import annotations

import math
from fractions import Fraction

_Number = int | float


def exact(number: _Number) -> Fraction:
    """Return the decimal number that a number is written as; ValueError if it is not finite."""
    return Fraction(repr(float(number))) if isinstance(number, float) else Fraction(number)


def count_in_range(start: _Number, stop: _Number, step: _Number) -> int:
    """Return how many values a range has whose end is left out; ValueError for a step of 0 or an infinite end."""
    if step == 0:
        raise ValueError("the step is 0")
    return max(0, math.ceil((exact(stop) - exact(start)) / exact(step)))


def nth_in_range(start: _Number, step: _Number, index: int) -> _Number:
    """Return a value of a range by its index: an integer if start and step are, else the nearest float."""
    value = exact(start) + index * exact(step)
    whole = isinstance(start, int) and isinstance(step, int)
    return int(value) if whole else float(value)
