"""Metrics: scores of a split beside accuracy, loss and nll, computed from sums over its examples.

B examples, K classes. A metric gets what accuracy is computed from: log-probabilities (B, K) float32, of a loss without
probabilities the logits. Its sums stay on the device until the end of the split and are added over processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from runner.errors import ConfigError

_Factory = TypeVar("_Factory", bound=Callable[..., Any])
# (outputs (B, K), labels (B,) int64) -> sums over these examples, of a shape that does not depend on B; B may be 0
Sums = Callable[[Tensor, Tensor], Tensor]
# Bins of confidence in ECE and in the reliability diagram (Guo et al. 2017, arXiv 1706.04599, section 5)
BINS = 15
# Bins of confidence in the risk-coverage curve: bins per factor of 2 of the odds, factors on each side of 1
_PER_OCTAVE, _OCTAVES = 2048, 26


@dataclass(frozen=True)
class Metric:
    """A score of a split. Larger values are better, unless its component is under `@lower_is_better`.

    Attributes:
        sums: (outputs (B, K), labels (B,) int64) -> sums over these examples. Metrics with the same function share its
            result.
        score: (the total of the sums, float64 on the CPU) -> the score; NaN where it is not defined.
        undefined: Why the metric has no meaning in this run, as in "it needs probabilities"; None if it has one.
    """

    sums: Sums
    score: Callable[[Tensor], Tensor | float]
    undefined: str | None = None


def lower_is_better(factory: _Factory) -> _Factory:
    """Mark the component of a metric whose smaller values are better; write it as a decorator, which is also read."""
    factory.lower_is_better = True  # type: ignore[attr-defined]
    return factory


def mean_over_examples(each: Sums, *, undefined: str | None = None) -> Metric:
    """Return the metric that is the mean of a number (B,) of each example."""

    def sums(outputs: Tensor, labels: Tensor) -> Tensor:
        values = each(outputs, labels).float()
        return torch.stack([values.sum(), values.new_full((), len(labels))])

    return Metric(sums, lambda total: total[0] / total[1], undefined)


def class_counts(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the number of examples, of predictions and of correct predictions of each class (3, K)."""
    predicted = outputs.argmax(1)
    ones = torch.ones_like(labels, dtype=torch.float32)
    counts = outputs.new_zeros(3, outputs.shape[1], dtype=torch.float32)
    for row, (classes, values) in zip(
        counts, ((labels, ones), (predicted, ones), (labels, ones * (predicted == labels))), strict=True
    ):
        row.scatter_add_(0, classes, values)
    return counts


def confusion(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the confusion matrix (K, K): rows are true classes, columns predicted ones."""
    classes = outputs.shape[1]
    counts = outputs.new_zeros(classes * classes, dtype=torch.float32)
    counts.scatter_add_(0, labels * classes + outputs.argmax(1), torch.ones_like(labels, dtype=torch.float32))
    return counts.view(classes, classes)


def calibration(log_p: Tensor, labels: Tensor) -> Tensor:
    """Return the examples, the sum of confidences and the correct predictions of each bin of confidence (3, BINS).

    The confidence is the largest probability. Bins are of equal width, open below and closed above.
    """
    best, predicted = log_p.max(1)
    confidence = best.float().exp().clamp(max=1)
    bins = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    counts = log_p.new_zeros(3, BINS, dtype=torch.float32)
    for row, values in zip(
        counts, (torch.ones_like(confidence), confidence, (predicted == labels).float()), strict=True
    ):
        row.scatter_add_(0, bins, values)
    return counts


def calibration_error(bins: Tensor) -> Tensor:
    """Return the expected calibration error () of the bins of `calibration`; NaN without examples."""
    examples, confidence, hits = bins
    return torch.sum(torch.abs(confidence - hits)) / torch.sum(examples)


def squared_errors(log_p: Tensor, labels: Tensor) -> Tensor:
    """Return the squared distance (B,) of the probabilities from the one-hot labels, in [0, 2]."""
    one_hot = torch.zeros_like(log_p).scatter_(1, labels[:, None], 1.0)
    return (log_p.exp() - one_hot).square().sum(1)


def errors_by_confidence(log_p: Tensor, labels: Tensor) -> Tensor:
    """Return the examples and the wrong predictions of each of many narrow bins of confidence (2, bins).

    The first bin is the least confident. The bins have equal widths in the logarithm of the odds, so that confidences
    close to 0 and to 1 are told apart, too.
    """
    best, predicted = log_p.max(1)
    best = best.float().clamp(max=0)
    log_odds = (best / math.log(2) - torch.log2(-torch.expm1(best))).nan_to_num().clamp(-_OCTAVES, _OCTAVES)
    bins = ((log_odds + _OCTAVES) * _PER_OCTAVE).long().clamp(max=2 * _OCTAVES * _PER_OCTAVE - 1)
    counts = log_p.new_zeros(2, 2 * _OCTAVES * _PER_OCTAVE, dtype=torch.float32)
    # A confidence that is NaN makes the risk NaN
    wrong = (predicted != labels).float() + 0 * best.exp()
    for row, values in zip(counts, (torch.ones_like(best), wrong), strict=True):
        row.scatter_add_(0, bins, values)
    return counts


def risk_coverage(bins: Tensor) -> Tensor:
    """Return the error rate (N,) of the n most confident of N examples, n = 1 to N, from `errors_by_confidence`.

    Examples in one bin count as equally confident: the value is the mean over their orders.
    """
    examples, wrong = bins.flip(1)
    filled = examples > 0
    counts = examples[filled].long()
    errors = torch.repeat_interleave(wrong[filled] / examples[filled], counts).cumsum(0)
    return errors / torch.arange(1, len(errors) + 1, dtype=errors.dtype, device=errors.device)


@dataclass(frozen=True)
class Metrics:
    """The metrics of an evaluation by name, and other sums to take in the same pass.

    Attributes:
        by_name: The metrics.
        classes: The number of classes K.
        more: Functions whose sums are wanted, too.
        left_out: Why other metrics have no meaning, by name.
    """

    by_name: Mapping[str, Metric] = field(default_factory=dict)
    classes: int = 0
    more: tuple[Sums, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    def tally(self, device: torch.device) -> _Tally:
        """Return sums of nothing, on a device."""
        return _Tally(self, device)

    def scores(self, totals: Mapping[Sums, Tensor]) -> dict[str, float]:
        """Return the scores by name; one that is not a finite number is left out."""
        found = {name: float(metric.score(totals[metric.sums])) for name, metric in self.by_name.items()}
        return {name: value for name, value in found.items() if math.isfinite(value)}


class _Tally:
    """Sums over the examples of a split, on the device; each function is called once a batch."""

    def __init__(self, metrics: Metrics, device: torch.device) -> None:
        self._names = {metric.sums: name for name, metric in metrics.by_name.items()}
        functions = dict.fromkeys([*self._names, *metrics.more])
        # Of no examples, because a process may have none
        outputs = torch.zeros(0, metrics.classes, device=device)
        labels = torch.zeros(0, dtype=torch.int64, device=device)
        self._totals = {sums: sums(outputs, labels).float() for sums in functions}

    def add(self, outputs: Tensor, labels: Tensor) -> None:
        """Add a batch: outputs (B, K) and labels (B,)."""
        for sums, total in self._totals.items():
            found = sums(outputs, labels)
            if found.shape != total.shape:
                raise ConfigError(
                    f"metric={self._names.get(sums)}: its sums have the shape {tuple(found.shape)}, must have "
                    f"{tuple(total.shape)} as for no examples"
                )
            total += found

    @property
    def flat(self) -> list[Tensor]:
        """Return all sums as vectors."""
        return [total.flatten() for total in self._totals.values()]

    def in_shape(self, flat: Tensor) -> dict[Sums, Tensor]:
        """Return the sums by function, in their shapes, from the concatenation of `flat`."""
        parts = torch.split(flat, [total.numel() for total in self._totals.values()])
        return {sums: part.view(total.shape) for (sums, total), part in zip(self._totals.items(), parts, strict=True)}
