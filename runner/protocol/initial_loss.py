"""The loss of an untrained model, measured over seeds and held against what the loss and the head predict."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner.assemble import Experiment
from runner.engine.batches import EvalBatches
from runner.engine.losses import as_loss
from runner.engine.randomness import epoch_order
from runner.engine.weights import classifiers
from runner.protocol.expected_loss import expected_loss, has_softmax
from runner.protocol.outcome import Criterion, Level

# Total variation between the softmax of the head's bias and the class frequencies, below which the bias is a prior
_PRIOR = 0.05
# Relative distance from a factor that names a wrong reduction
_NEAR = 0.05
# Nats that the approximation of the excess by the variance of the logits may miss
_NATS = 0.1
_SUMS_TO_ONE = 1e-3


@dataclass(frozen=True, kw_only=True)
class InitialLoss:
    """The loss of an untrained model on training examples.

    Attributes:
        loss: The mean over batches of what training minimizes.
        error: Its standard error, from the losses of single examples.
        single: The mean of the losses of single examples, which differs for another reduction than the mean.
        variance: The mean over examples of the variance of the logits over classes, without the head's bias.
        finite: True if the loss of each example is.
        probabilities: True if the outputs of each example sum to one and lie in [0, 1].
        in_unit: True if all outputs lie in [0, 1] and differ.
        shares: The share (K,) of each class among the examples.
        bias: The bias (K,) of the head, zeros without one.
    """

    loss: float
    error: float
    single: float
    variance: float
    finite: bool
    probabilities: bool
    in_unit: bool
    shares: NDArray[np.float64]
    bias: NDArray[np.float64]


def examples_of(experiment: Experiment, count: int) -> EvalBatches:
    """Return training examples, not augmented, in batches as the loss sees them in training."""
    batches, recipe = experiment.batches, experiment.recipe
    size = max(1, batches.batch // recipe.accumulate)
    index = epoch_order(recipe.seed, 0, len(batches.split.labels))[:count]
    # A last batch of another size would have other statistics
    whole = len(index) - len(index) % size or len(index)
    return EvalBatches(
        batches.split, batch=size, preprocess=batches.preprocess, device=experiment.device, index=index[:whole]
    )


@torch.no_grad()
def measure(experiment: Experiment, count: int) -> InitialLoss:
    """Return the loss of an untrained model in training mode, over `count` examples; its BatchNorms see them."""
    recipe, model = experiment.recipe, experiment.learner.model
    model.train()
    recipe.reseed(0)
    means, logits, labels = [], [], []
    for images, target in examples_of(experiment, count):
        with recipe.autocast():
            z = model(images).float()
            means.append(float(recipe.loss(z, target)))
        logits.append(z.cpu())
        labels.append(target.cpu())
    z, target = torch.cat(logits), torch.cat(labels)
    classes = len(experiment.classes)
    bias = _head_bias(model, classes)
    single, error = _of_single_examples(experiment, z, target)
    mean = statistics.fmean(means)
    positive = bool((z >= 0).all() and (z <= 1).all())
    shares = torch.bincount(target, minlength=classes).double() / len(target)
    return InitialLoss(
        loss=mean,
        error=error * abs(mean / single) if single and math.isfinite(mean / single) else error,
        single=single,
        variance=float((z - torch.from_numpy(bias).float()).var(1, correction=0).mean()),
        finite=bool(torch.isfinite(z).all()) and all(map(math.isfinite, means)),
        probabilities=positive and bool(((z.sum(1) - 1).abs() < _SUMS_TO_ONE).all()),
        in_unit=positive and float(z.std()) > 0,
        shares=shares.numpy(),
        bias=bias,
    )


def _of_single_examples(experiment: Experiment, z: Tensor, target: Tensor) -> tuple[float, float]:
    """Return the weighted mean of the losses of single examples, and its standard error."""
    totals = as_loss(experiment.recipe.loss).totals
    device = experiment.device
    pairs = [totals(a.to(device), b.to(device)) for a, b in zip(torch.split(z, 1), torch.split(target, 1), strict=True)]
    sums = np.array([float(a) for a, _ in pairs])
    weights = np.array([float(b) for _, b in pairs])
    if not weights.sum():
        return math.nan, math.nan
    mean = float(sums.sum() / weights.sum())
    spread = float(np.sqrt(((sums - mean * weights) ** 2).sum()) / weights.sum())
    return mean, spread


def _head_bias(model: torch.nn.Module, classes: int) -> NDArray[np.float64]:
    """Return the bias of the layer that computes the logits, zeros if it has none."""
    for layer in classifiers(model):
        bias = getattr(layer.module, "bias", None)
        if isinstance(bias, Tensor) and bias.shape == (classes,):
            return bias.detach().cpu().double().numpy()
    return np.zeros(classes)


def expectation(
    found: InitialLoss, loss: Mapping[str, Any], counts: NDArray[np.float64], given: float | None
) -> tuple[float | None, str]:
    """Return the expected loss, None if unknown, and how it is written."""
    if given is not None:
        return given, "task.expected"
    odds = np.exp(found.bias - found.bias.max())
    prior = 0.5 * float(np.abs(odds / odds.sum() - found.shares).sum()) < _PRIOR and bool(found.bias.any())
    logits = found.bias if prior else np.zeros(len(found.bias))
    value = expected_loss(loss, found.shares, counts, logits)
    if value is None:
        return None, "unknown"
    classes = len(counts)
    if prior and has_softmax(loss["name"]):
        return value, "H(p), as the head's bias is the class frequencies"
    plain = {"cross_entropy": f"ln {classes}", "hinge": f"margin (K - 1), K = {classes}", "mse": f"1/{classes}"}
    return value, plain.get(loss["name"], f"{loss['name']} of equal logits, K = {classes}")


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The thresholds of the initial loss, as shares of the expected one."""

    pass_at: float
    warn_at: float
    pretrained: bool = False


def loss_criteria(found: Sequence[InitialLoss], expected: float, softmax: bool, gate: Gate) -> list[Criterion]:
    """Return the criteria of the initial loss, from the median over seeds.

    Args:
        found: The measurement of each seed.
        expected: The expected loss.
        softmax: True for cross-entropy, whose excess the variance of the logits explains.
        gate: The thresholds.
    """
    loss = statistics.median(each.loss for each in found)
    error = statistics.median(each.error for each in found)
    variance = statistics.median(each.variance for each in found)
    excess, scale = loss - expected, abs(expected)
    low, high = -max(4 * error, 0.02 * scale), max(3 * error, gate.pass_at * scale)
    value, threshold = f"{excess:+.4g} ({excess / scale if scale else math.nan:+.1%})", f"{low:.3g} to {high:.3g}"
    if excess < low:
        level = Level.HINT if gate.pretrained else Level.FAIL
        why = "better than chance before training: a leak, pretrained weights, or a loss of another scale"
    elif excess <= high:
        level, why = Level.PASS, ""
    else:
        level = Level.WARN if excess <= gate.warn_at * scale else Level.FAIL
        why = "the first outputs are confident and wrong: the head begins too large, or the inputs are not normalized"
        level = Level.HINT if gate.pretrained else level
    source = "CS231n, neural-networks-3; 15 % lets a stock ResNet pass"
    criteria = [
        Criterion(name="excess over the expected loss", value=value, threshold=threshold, level=level, why=why,
                  source=source)
    ]  # fmt: skip
    return [*criteria, *([_explained(excess, variance, error, gate)] if softmax else [])]


def _explained(excess: float, variance: float, error: float, gate: Gate) -> Criterion:
    """Return the criterion that half the variance of the logits, as of Gaussian ones, explains the excess."""
    # Beyond a variance of 1 the approximation gives too much
    tolerance = max(4 * error, _NATS, 0.2 * abs(excess), 0.5 * max(0.0, variance - 1))
    is_explained = abs(excess - variance / 2) <= tolerance
    return Criterion(
        name="explained by the logits",
        value=f"variance {variance:.3g}, predicts {variance / 2:+.3g}",
        threshold=f"{excess - tolerance:.3g} to {excess + tolerance:.3g}",
        level=Level.PASS if is_explained else Level.HINT if gate.pretrained else Level.WARN,
        why="" if is_explained else "the scale of the logits does not explain it: check labels, reduction and loss",
        source="half the variance of Gaussian logits",
    )


def reduction_criterion(found: InitialLoss, expected: float | None, factors: Mapping[str, float]) -> Criterion:
    """Return the criterion that the loss of a batch is the mean over its examples; else what it is instead.

    Args:
        found: The measurement of one seed.
        expected: The expected loss, if it is known.
        factors: Names of wrong reductions and the factor of each.
    """
    passed = Criterion(name="reduction", value="mean", threshold="mean over the examples", level=Level.PASS)
    for what, ratio in (
        ("single examples", _ratio(found.loss, found.single)),
        ("expected", _ratio(found.loss, expected)),
    ):
        if ratio is None or abs(ratio - 1) <= _NEAR:
            continue
        for name, factor in factors.items():
            if abs(ratio / factor - 1) <= _NEAR and abs(factor - 1) > 2 * _NEAR:
                return Criterion(
                    name="reduction",
                    value=f"{ratio:.4g} times {what}",
                    threshold="mean over the examples",
                    level=Level.FAIL,
                    why=f"the loss is {name} times that of {what}: it is not the mean over the examples",
                )
    return passed


def _ratio(a: float, b: float | None) -> float | None:
    """Return a quotient, None where it is undefined or not positive."""
    return a / b if b and math.isfinite(a / b) and a / b > 0 else None


def output_criterion(found: InitialLoss, loss: str) -> Criterion:
    """Return the criterion that the model returns logits and no probabilities."""
    why, level = "", Level.PASS
    if found.probabilities and found.in_unit:
        level, why = Level.FAIL, "softmax before the loss, which has a softmax: return the logits"
    elif found.in_unit and loss in ("bce", "cross_entropy", "focal", "poly"):
        level, why = Level.WARN, "all outputs lie in [0, 1]: is there a sigmoid before the loss?"
    value = "each row sums to 1" if found.probabilities else "all in [0, 1]" if found.in_unit else "logits"
    return Criterion(name="model outputs", value=value, threshold="logits", level=level, why=why)
