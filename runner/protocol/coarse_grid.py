"""The points of the coarse search: a grid around a learning rate, its extension at edges, or quasi-random points."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from runner.protocol.context import Config
from runner.protocol.trials import DECAY, LR, Values
from runner.search.samplers import distinct_points
from runner.search.space import Axis, Space

# Weight decays of optimizers that subtract them from the weights, and of those that add them to the gradient
_DECOUPLED = ("adamw", "adafactor", "lamb", "lion", "muon", "schedulefree")
_DECAYS_DECOUPLED, _DECAYS_L2 = (0.0, 1e-2, 1e-1), (0.0, 1e-5, 1e-4, 1e-3)
# Distance of a value beyond an edge
_LR_BEYOND, _DECAY_BEYOND = 3.0, 10.0
# Share of an axis at its ends that counts as an edge of quasi-random points
_OUTER = 0.1


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The values of a grid in rising order; no weight decays if the optimizer has none."""

    lrs: tuple[float, ...]
    decays: tuple[float, ...]
    highest: float = math.inf

    def points(self) -> list[dict[str, float]]:
        """Return all points."""
        if not self.decays:
            return [{LR: lr} for lr in self.lrs]
        return [{LR: lr, DECAY: decay} for lr, decay in itertools.product(self.lrs, self.decays)]

    def edges(self, best: Values) -> list[str]:
        """Return the ends beyond which a better point may be: `highest optim.lr`, ...; none that cannot be moved."""
        found = []
        if best[LR] == self.lrs[0]:
            found.append(f"lowest {LR}")
        if best[LR] == self.lrs[-1] and _rounded(best[LR] * _LR_BEYOND) <= self.highest:
            found.append(f"highest {LR}")
        if self.decays and best[DECAY] == self.decays[-1]:
            found.append(f"highest {DECAY}")
        if self.decays and best[DECAY] == self.decays[0] > 0:
            found.append(f"lowest {DECAY}")
        return found

    def extended(self, edges: Sequence[str]) -> Grid:
        """Return the grid with one more value at each of these ends."""
        lrs, decays = list(self.lrs), list(self.decays)
        if f"lowest {LR}" in edges:
            lrs.insert(0, _rounded(lrs[0] / _LR_BEYOND))
        if f"highest {LR}" in edges:
            lrs.append(_rounded(lrs[-1] * _LR_BEYOND))
        if f"lowest {DECAY}" in edges:
            decays.insert(0, _rounded(decays[0] / _DECAY_BEYOND))
        if f"highest {DECAY}" in edges:
            decays.append(_rounded(decays[-1] * _DECAY_BEYOND))
        return Grid(lrs=tuple(lrs), decays=tuple(decays), highest=self.highest)

    def sampled(self, mode: Literal["qmc", "random"], count: int, seed: int) -> list[dict[str, float]]:
        """Return points between the ends; the weight decay 0 is not among them."""
        positive = [each for each in self.decays if each > 0]
        axes = [_axis(LR, self.lrs)] if len(self.lrs) > 1 else []
        axes += [_axis(DECAY, positive)] if len(positive) > 1 else []
        fixed: dict[str, float] = {} if len(self.lrs) > 1 else {LR: self.lrs[0]}
        fixed |= {DECAY: self.decays[0]} if self.decays and len(positive) <= 1 else {}
        if not axes:
            return [fixed]
        drawn = itertools.islice(distinct_points(Space(tuple(axes)), {"name": mode, "seed": seed}), count)
        return [{**{key: float(value) for key, value in point.items()}, **fixed} for point in drawn]

    def outer(self, best: Values) -> list[str]:
        """Return the ends whose outer tenth, on a logarithmic scale, has the best of quasi-random points."""
        found = []
        for key, values in ((LR, self.lrs), (DECAY, [each for each in self.decays if each > 0])):
            if len(values) < 2 or key not in best or not best[key] > 0:
                continue
            place = math.log(best[key] / values[0]) / math.log(values[-1] / values[0])
            if place < _OUTER:
                found.append(f"lowest {key}")
            if place > 1 - _OUTER and (key != LR or _rounded(values[-1] * _LR_BEYOND) <= self.highest):
                found.append(f"highest {key}")
        return found


def grid_around(
    config: Config, factors: Sequence[float], decays: Sequence[float] | None, facts: Mapping[str, Any]
) -> Grid:
    """Return the grid around the learning rate of a config.

    Args:
        config: A checked config.
        factors: Factors on the learning rate; those above 1 only as far as short trainings were stable.
        decays: Weight decays; None for those that suit the optimizer.
        facts: What earlier steps found.
    """
    center, stable = config["optim"]["lr"], facts.get("lr_max_stable")
    highest = math.inf if stable is None else float(stable)
    kept = {factor for factor in factors if factor <= 1 or _rounded(center * factor) <= highest} or {1.0}
    if decays is None:
        decays = _DECAYS_DECOUPLED if config["optim"]["name"] in _DECOUPLED else _DECAYS_L2
    if "weight_decay" not in config["optim"]:
        decays = ()
    lrs = sorted({_rounded(center * factor) for factor in kept})
    return Grid(lrs=tuple(lrs), decays=tuple(sorted({float(each) for each in decays})), highest=highest)


def _rounded(value: float) -> float:
    """Return a number with three digits, as it is printed."""
    return float(f"{value:.3g}")


def _axis(key: str, values: Sequence[float]) -> Axis:
    """Return the axis between the least and the largest value."""
    return Axis(key=key, kind="float", low=min(values), high=max(values), log=True)
