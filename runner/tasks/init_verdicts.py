"""Verdicts on a model's activations before training: rules with their thresholds.

The thresholds were calibrated on six layers of tanh and ReLU under nine initializations (docs/init_report.md).
Gradients are judged by dL/d(activation), never by dL/d(weights): with ReLU those are alike in all layers however the
signal shrinks, because what the forward pass loses the backward pass makes up for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from runner.engine.activations import Layer

_Severity = Literal["hint", "warning", "error"]
_SEVERITIES: tuple[_Severity, ...] = ("hint", "warning", "error")

# Factor per layer, for rows of at least _LONG layers
_HEALTHY_GAIN = (0.75, 1.33)
_LONG = 4
# The same for shorter rows, in which a moderate factor has not multiplied up yet
_HEALTHY_GAIN_OF_FEW = (1 / 3, 3.0)
# Healthy factor over a row of any number of layers
_HEALTHY_TOTAL = (0.1, 10.0)
# Factor over a row outside which a network does not train
_HOPELESS_TOTAL = (1e-3, 1e3)
# Share of saturated outputs in one layer: hint, warning
_SATURATED = (0.10, 0.25)
# Share of the first layer's standard deviation below which a layer has collapsed
_COLLAPSED = 0.1
# Share of dead units in one layer: hint, warning
_DEAD = (0.05, 0.10)
# With fewer examples, a healthy layer has units that are silent by chance
_ENOUGH_EXAMPLES = 2048


@dataclass(frozen=True)
class _Finding:
    """One problem of a model's activations or gradients."""

    word: str
    severity: _Severity
    text: str  # with the numbers and the threshold


@dataclass(frozen=True)
class Case:
    """One activation with one initialization: the measurements and the problems found."""

    activation: str
    init: str
    layers: Sequence[Layer]
    findings: Sequence[_Finding]

    @property
    def name(self) -> str:
        """Return the name of the case."""
        return f"{self.activation}, {self.init}"

    @property
    def verdict(self) -> str:
        """Return the findings in a few words, `ok` if there are none."""
        return ", ".join(dict.fromkeys(finding.word for finding in self.findings)) or "ok"

    @property
    def severity(self) -> _Severity | None:
        """Return the severity of the worst finding, None if there are no findings."""
        return self.findings[0].severity if self.findings else None


@dataclass(frozen=True)
class Gain:
    """How a signal changes over a row of layers: the total factor, and the factor of each layer."""

    layers: int
    total: float

    @property
    def each(self) -> float:
        """Return the geometric mean of the layers' factors; 1 for a single layer."""
        return self.total ** (1 / (self.layers - 1)) if self.layers > 1 else 1.0


def find_problems(layers: Sequence[Layer], *, residual: bool, examples: int) -> list[_Finding]:
    """Return the problems of a model's activations, worst first.

    In a `residual` model the sum of branches makes signals grow without harm, so gains are only hints.
    """
    if not all(math.isfinite(layer.std) and math.isfinite(layer.grad_norm) for layer in layers):
        first = next(x for x in layers if not (math.isfinite(x.std) and math.isfinite(x.grad_norm)))
        return [_Finding("not finite", "error", f"{first.name}: activations or gradients are not finite")]
    found = [
        *_find_collapsed(layers),
        *_find_saturated(layers),
        *_find_dead(layers, examples),
        *_find_unhealthy_gains(layers, residual=residual),
    ]
    return sorted(found, key=lambda finding: -_SEVERITIES.index(finding.severity))


def _find_collapsed(layers: Sequence[Layer]) -> Iterator[_Finding]:
    """Yield a finding if the outputs of a later layer are almost constant."""
    least = min(layers, key=lambda layer: layer.std)
    if least.std == 0 or least.std < _COLLAPSED * layers[0].std:
        share = f"{least.std / layers[0].std:.2g} of the first layer's" if layers[0].std else "as the first layer's"
        text = f"{least.name}: standard deviation {least.std:.2g}, {share} (collapsed below {_COLLAPSED})"
        yield _Finding(
            "collapsed", "error" if least.std < _HOPELESS_TOTAL[0] * layers[0].std or not least.std else "warning", text
        )


def _find_saturated(layers: Sequence[Layer]) -> Iterator[_Finding]:
    """Yield a finding if many outputs are in the flat ends of a bounded function."""
    most = max(layers, key=lambda layer: layer.saturated or 0.0)
    share = most.saturated or 0.0
    if share > _SATURATED[0]:
        severity: _Severity = "warning" if share > _SATURATED[1] else "hint"
        yield _Finding(
            "saturated", severity, f"{most.name}: {share:.0%} of the outputs (saturated above {_SATURATED[0]:.0%})"
        )


def _find_dead(layers: Sequence[Layer], examples: int) -> Iterator[_Finding]:
    """Yield a finding if many units give one value for all of enough examples."""
    most = max(layers, key=lambda layer: layer.dead)
    if examples >= _ENOUGH_EXAMPLES and most.dead > _DEAD[0]:
        severity: _Severity = "warning" if most.dead > _DEAD[1] else "hint"
        yield _Finding("dead units", severity, f"{most.name}: {most.dead:.0%} of the units (dead above {_DEAD[0]:.0%})")


def _find_unhealthy_gains(layers: Sequence[Layer], *, residual: bool) -> Iterator[_Finding]:
    """Yield findings for signals and gradients that shrink or grow with depth."""
    if all(layer.grad_norm == 0 for layer in layers):
        yield _Finding("no gradient", "hint", "no gradient reaches any layer (is the classifier zero?)")
    for row in comparable_rows(layers):
        for gain, what, low, high in (
            (forward_gain(row), "activations", "shrinking activations", "exploding activations"),
            (backward_gain(row), "gradient", "vanishing gradient", "exploding gradient"),
        ):
            severity = _gain_severity(gain)
            if severity:
                text = f"{row[0].name} to {row[-1].name}: {what} {_gain_in_words(gain)}"
                yield _Finding(low if gain.total < 1 else high, "hint" if residual else severity, text)


def _gain_in_words(gain: Gain) -> str:
    """Return a gain and the healthy range, in words."""
    low, high = _healthy_gain(gain)
    return (
        f"times {gain.each:.2g} per layer (healthy from {low:.2g} to {high:.3g}), "
        f"times {gain.total:.2g} in all (healthy from {_HEALTHY_TOTAL[0]:g} to {_HEALTHY_TOTAL[1]:g})"
    )


def _healthy_gain(gain: Gain) -> tuple[float, float]:
    """Return the healthy factors of a layer, in a row as long as that of a gain."""
    return _HEALTHY_GAIN if gain.layers >= _LONG else _HEALTHY_GAIN_OF_FEW


def comparable_rows(layers: Sequence[Layer]) -> list[list[Layer]]:
    """Return the layers in rows that can be compared: consecutive ones of one function and one kind of layer."""
    grouped = itertools.groupby(layers, key=lambda layer: (layer.kind, len(layer.shape)))
    return [list(row) for _, row in grouped]


def forward_gain(row: Sequence[Layer]) -> Gain:
    """Return how the outputs' standard deviation changes from the first layer to the last."""
    return Gain(len(row), ratio(row[-1].std, row[0].std))


def backward_gain(row: Sequence[Layer]) -> Gain:
    """Return how the gradient's norm changes from the last layer back to the first.

    The norm, not the standard deviation: with as many outputs in each layer both say the same, and pooling and
    changes of width, which spread a gradient over more outputs or fewer, leave the norm nearly as it is.
    """
    return Gain(len(row), ratio(row[0].grad_norm, row[-1].grad_norm))


def ratio(value: float, other: float) -> float:
    """Return value / other: 1 where both are zero."""
    return value / other if other else math.inf if value else 1.0


def _gain_severity(gain: Gain) -> _Severity | None:
    """Return how bad a gain is, None if it is healthy."""
    if not _HOPELESS_TOTAL[0] <= gain.total <= _HOPELESS_TOTAL[1]:
        return "error"
    low, high = _healthy_gain(gain)
    return None if low <= gain.each <= high and _HEALTHY_TOTAL[0] <= gain.total <= _HEALTHY_TOTAL[1] else "warning"
