"""The ranges of the refining search around some candidates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from runner.protocol.context import Config
from runner.protocol.trials import DECAY, LR
from runner.search.space import Axis, Point, Space

# Factors around the candidates, and how far later rounds may go beyond these ranges
_LR_AROUND, _DECAY_AROUND, _WIDEST = 2.0, 3.0, 10.0


def candidates_of(config: Config, facts: Mapping[str, Any]) -> list[Point]:
    """Return the candidates of step 4, the best first; without that step the values of the config."""
    optim = config["optim"]
    own = {LR: float(optim["lr"])}
    own |= {DECAY: float(optim["weight_decay"])} if "weight_decay" in optim else {}
    found = facts.get("candidates") or [own]
    return [{key: float(value) for key, value in each.items()} for each in found]


def first_ranges(candidates: Sequence[Mapping[str, Any]], stable: float | None) -> Space:
    """Return the ranges around the candidates.

    The learning rate goes from half the least to twice the largest one, but not above `stable`; the weight decay from a
    third to three times. With a 0 among them its axis is linear and begins at 0; if all are 0 there is none.
    """
    rates = [each[LR] for each in candidates]
    # A candidate itself is never left out
    high = min(max(rates) * _LR_AROUND, max(stable or math.inf, *rates))
    axes = [Axis(key=LR, kind="float", low=_short(min(rates) / _LR_AROUND), high=_short(high), log=True)]
    decays = [each[DECAY] for each in candidates if DECAY in each]
    if any(decays):
        low = 0.0 if min(decays) == 0 else _short(min(decays) / _DECAY_AROUND)
        top = _short(max(decays) * _DECAY_AROUND)
        axes.append(Axis(key=DECAY, kind="float", low=low, high=top, log=low > 0))
    return Space(tuple(axes))


def widest_ranges(start: Space, stable: float | None) -> Space:
    """Return the ranges that no round leaves."""
    axes = []
    for axis in start.axes:
        high = axis.high * _WIDEST
        if axis.key == LR:
            high = min(high, max(stable or math.inf, axis.high))
        axes.append(replace(axis, low=axis.low / _WIDEST, high=high))
    return Space(tuple(axes))


def edges_of(winner: Point, tried: Sequence[Point], stable: float | None) -> list[str]:
    """Return the ends of what was tried that the winner is on; not a weight decay of 0, nor the largest stable rate."""
    found = []
    for key, value in winner.items():
        values = [float(each[key]) for each in tried]
        if float(value) == min(values) < max(values) and value != 0:
            found.append(f"lowest {key}")
        if float(value) == max(values) > min(values) and not (key == LR and stable and float(value) >= stable):
            found.append(f"highest {key}")
    return found


def _short(value: float) -> float:
    """Return a number with six digits, as points have them."""
    return float(f"{value:.6g}")
