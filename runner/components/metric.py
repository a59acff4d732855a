"""Metrics: scores of a validation beside accuracy, loss and nll, which every validation has.

A run computes all of them at its end, with the selected weights, and so does `task=evaluate`. `metric=[f1_macro]`
computes one at each validation, too, and so does `monitor=val/f1_macro`. docs/metrics.md says more.
"""

from __future__ import annotations

import torch
from torch import Tensor

from runner.engine.losses import Loss
from runner.engine.metrics import (
    Metric,
    calibration,
    calibration_error,
    class_counts,
    errors_by_confidence,
    lower_is_better,
    mean_over_examples,
    risk_coverage,
    squared_errors,
)
from runner.registry import register
from runner.settings import NO_LIKELIHOOD

_TOP = 5


@register("metric")
def balanced_accuracy() -> Metric:
    """Return the mean over classes of the accuracy of a class, as scikit-learn's `balanced_accuracy_score`.

    A class without examples does not count.
    """

    def score(counts: Tensor) -> Tensor:
        examples, _, hits = counts
        present = examples > 0
        return torch.mean(hits[present] / examples[present])

    return Metric(class_counts, score)


@register("metric")
def f1_macro() -> Metric:
    """Return the mean over classes of the F1 score, as scikit-learn's `f1_score(average="macro")`.

    F1 is the harmonic mean of precision and recall. A class with neither examples nor predictions does not count.
    """

    def score(counts: Tensor) -> Tensor:
        examples, predictions, hits = counts
        either = examples + predictions
        return torch.mean(2 * hits[either > 0] / either[either > 0])

    return Metric(class_counts, score)


@register("metric")
def top5(num_classes: int) -> Metric:
    """Return the share of examples whose label is among the five most probable classes; it needs six classes."""

    def is_among(outputs: Tensor, labels: Tensor) -> Tensor:
        return (outputs.topk(_TOP, dim=1).indices == labels[:, None]).any(1)

    few = f"the data have {num_classes} classes, and it needs more than {_TOP}" if num_classes <= _TOP else None
    return mean_over_examples(is_among, undefined=few)


@register("metric")
@lower_is_better
def ece(loss: Loss) -> Metric:
    """Return the expected calibration error (Guo et al. 2017, arXiv 1706.04599, equation 3), with 15 bins.

    It is the mean over examples of the gap, in their bin of confidence, between mean confidence and accuracy. The
    confidence is the largest probability. Losses without probabilities (hinge, mse) have none.
    """
    return Metric(calibration, calibration_error, _without_likelihood(loss))


@register("metric")
@lower_is_better
def brier(loss: Loss) -> Metric:
    """Return the Brier score: the mean squared distance of the probabilities from the one-hot labels, in [0, 2].

    It is Brier's own form (1950), the sum over classes, also of two classes, where scikit-learn's `brier_score_loss`
    is half of it. Losses without probabilities (hinge, mse) have none.
    """
    return mean_over_examples(squared_errors, undefined=_without_likelihood(loss))


@register("metric")
@lower_is_better
def aurc(loss: Loss) -> Metric:
    """Return the area under the risk-coverage curve (Geifman and El-Yaniv 2017, arXiv 1705.08500).

    It is the mean, over n, of the error rate among the n most confident predictions: 0 if every one is right. The
    confidence is the largest probability; predictions whose odds differ by less than 0.04 % count as equally confident.
    Losses without probabilities (hinge, mse) have none.
    """
    return Metric(errors_by_confidence, lambda bins: risk_coverage(bins).mean(), _without_likelihood(loss))


def _without_likelihood(loss: Loss) -> str | None:
    """Return why a loss has no metric of probabilities, None if it has."""
    return NO_LIKELIHOOD if loss.log_probabilities is None else None
