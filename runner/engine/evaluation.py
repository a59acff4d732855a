"""Accuracy, loss, negative log-likelihood and other metrics of a model on the examples of a split."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.engine.batches import EvalBatches
from runner.engine.contracts import Predict
from runner.engine.interruption import NEVER, Stop
from runner.engine.learner import Learner
from runner.engine.losses import Loss, LossFunction, Prediction, as_loss, at_least_float32, log_softmax
from runner.engine.metrics import Metrics, Sums
from runner.engine.parts import mode
from runner.engine.recipe import Recipe
from runner.engine.snapshots import MeanPrediction, PredictedBatch, Snapshots
from runner.errors import ConfigError

# The split on which snapshots are scored, and the names of their scores
VALIDATION, SNAPSHOT, ENSEMBLE = "val", "snapshot", "ensemble"
# Gets the outputs (B, K) of each batch, from which accuracy is computed
_Keep = Callable[[Tensor], None]


class Predicting(Protocol):
    """The parts of a run that predict: a recipe has them, and so has a trained model that is loaded for use."""

    @property
    def loss(self) -> Loss | LossFunction:
        """Return the loss, which says what probabilities are."""
        ...

    @property
    def predict(self) -> Predict:
        """Return what turns images into predictions."""
        ...

    @property
    def autocast(self) -> Callable[[], AbstractContextManager[None]]:
        """Return what makes a context manager for mixed precision."""
        ...

    @property
    def reseed(self) -> Callable[[int], None]:
        """Return what seeds torch's global generators."""
        ...


def validate(recipe: Recipe, learner: Learner, validation: dict[str, EvalBatches], stop: Stop) -> dict[str, float]:
    """Return the scores of the averaged model by tag, as `<split>/accuracy`, for each split given.

    After the first snapshot the scores of the newest one and of all together are added, as `val/snapshot/accuracy` and
    `val/ensemble/accuracy`.
    """
    scores = {
        f"{split}/{name}": value
        for split, batches in validation.items()
        for name, value in evaluate(recipe, learner, batches, stop).items()
    }
    mean = learner.snapshots.mean_of(VALIDATION)
    taken = learner.snapshots.until(learner.step)
    if taken and VALIDATION in validation:
        add_snapshots(recipe, learner.snapshots, taken, mean, validation[VALIDATION], recipe.metrics, stop)
    for name, found in ((SNAPSHOT, mean.newest), (ENSEMBLE, mean.scores)):
        scores |= {f"{VALIDATION}/{name}/{metric}": value for metric, value in found.items()}
    return scores


def add_snapshots(
    parts: Predicting,
    snapshots: Snapshots,
    taken: Sequence[int],
    mean: MeanPrediction,
    batches: EvalBatches,
    metrics: Metrics,
    stop: Stop = NEVER,
) -> None:
    """Take the predictions of snapshots for a split into their mean, of those that are not in it yet, and score it.

    Each predicts once in a run. If `stop` is set, the evaluation ends early and changes nothing.
    """
    new = [step for step in taken if step not in mean.members]
    for step in new:
        model = snapshots.member_of(step)
        unless_stopped = itertools.takewhile(lambda _: not stop.signal, batches)
        with closing(predict_batches(parts, model, unless_stopped)) as predicted:
            found = [(z.cpu(), None if log_p is None else log_p.cpu(), labels.cpu()) for z, log_p, labels in predicted]
        if stop.signal:
            return
        mean.add(step, found)
        if step == new[-1]:
            mean.newest, mean.scores = (_scored(parts, each, batches, metrics) for each in (found, mean.batches))


def _scored(
    parts: Predicting, predicted: Iterable[PredictedBatch], batches: EvalBatches, metrics: Metrics
) -> dict[str, float]:
    """Return the scores of predictions that are on the CPU."""
    return _sum_up(as_loss(parts.loss), predicted, batches, metrics, torch.device("cpu"), lambda outputs: None)[0]


def evaluate(recipe: Recipe, learner: Learner, batches: EvalBatches, stop: Stop = NEVER) -> dict[str, float]:
    """Return accuracy in [0, 1], loss, `nll` if the loss has probabilities, and the recipe's metrics that are finite.

    They are those of the averaged model over all examples. The loss is the recipe's without label smoothing. `nll` is
    the mean negative log-likelihood. With several processes each predicts its share of the examples, and all return the
    same. If `stop` is set, the evaluation ends early and its result is meaningless.

    Raises:
        ConfigError: The prediction method of a plugin returns no logits, and the loss needs them.
    """
    return _measure(recipe, learner.average.module, batches, recipe.metrics, stop, lambda outputs: None)[0]


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """A complete evaluation of a split.

    Attributes:
        scores: The scores by name.
        totals: The sums of the metrics, and those of `Metrics.more`, float64 on the CPU.
        outputs: The outputs (N, K) float32 on the CPU, from which accuracy is computed; None if they are not kept.
        are_log_p: True if the outputs are log-probabilities, False if the loss has none and they are logits.
        labels: The labels (N,) int64 on the CPU.
        ids: The positions (N,) int64 of the examples in their split.
    """

    scores: dict[str, float]
    totals: dict[Sums, Tensor]
    outputs: Tensor | None
    are_log_p: bool
    labels: Tensor
    ids: Tensor


def assess(parts: Predicting, model: nn.Module, batches: EvalBatches, metrics: Metrics, *, keep: bool) -> Assessment:
    """Return a complete evaluation of a model; `keep` keeps the outputs of all examples.

    With several processes all return the same.
    """
    kept: list[Tensor] = []
    collect: _Keep = (lambda outputs: kept.append(outputs.float().cpu())) if keep else lambda outputs: None
    scores, totals = _measure(parts, model, batches, metrics, NEVER, collect)
    return Assessment(
        scores=scores,
        totals=totals,
        outputs=_gathered(kept, batches, metrics.classes) if keep else None,
        are_log_p=as_loss(parts.loss).log_probabilities is not None,
        labels=batches.split.labels.cpu()[batches.index],
        ids=batches.index.clone(),
    )


def _gathered(kept: list[Tensor], batches: EvalBatches, classes: int) -> Tensor:
    """Return the outputs (N, K) of all processes, in the order of the examples."""
    own = torch.cat(kept) if kept else torch.zeros(0, classes)
    if batches.world.size == 1:
        return own
    whole = torch.zeros(len(batches), classes)
    whole[batches.world.slice(torch.arange(len(batches)))] = own
    return batches.world.sum(whole)


@torch.no_grad()
def _measure(
    parts: Predicting, model: nn.Module, batches: EvalBatches, metrics: Metrics, stop: Stop, keep: _Keep
) -> tuple[dict[str, float], dict[Sums, Tensor]]:
    """Return the scores of a split and the sums of the metrics; `keep` gets the outputs of each batch."""
    unless_stopped = itertools.takewhile(lambda _: not stop.signal, batches)
    with closing(predict_batches(parts, model, unless_stopped)) as predicted:
        return _sum_up(as_loss(parts.loss), predicted, batches, metrics, batches.device, keep)


def _sum_up(
    loss: Loss,
    predicted: Iterable[PredictedBatch],
    batches: EvalBatches,
    metrics: Metrics,
    device: torch.device,
    keep: _Keep,
) -> tuple[dict[str, float], dict[Sums, Tensor]]:
    """Return the scores of predictions, which are on a device, and the sums of the metrics."""
    totals = torch.zeros(4, device=device)
    tally = metrics.tally(device)
    for logits, log_p, labels in predicted:
        outputs = logits if log_p is None else log_p
        totals = totals + _totals(loss, logits, log_p, labels)
        tally.add(outputs, labels)
        keep(outputs)
    # In float64, on the CPU because MPS has none. One transfer for all sums.
    found = batches.world.sum(torch.cat([totals, *tally.flat]).cpu().double())
    correct, total, weight, nll = found[:4].tolist()
    sums = tally.in_shape(found[4:])
    scores = {"accuracy": correct / len(batches), "loss": total / weight if weight else float("nan")}
    if loss.log_probabilities is not None:
        scores["nll"] = nll / len(batches)
    return scores | metrics.scores(sums), sums


def predict_batches(
    parts: Predicting, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]
) -> Generator[tuple[Tensor, Tensor | None, Tensor], None, None]:
    """Yield logits (B, K), log-probabilities (B, K) and labels (B,) of preprocessed batches, in evaluation mode.

    The log-probabilities are None if the loss has none. Random numbers begin anew, as in each evaluation.
    """
    parts.reseed(-1)
    loss = as_loss(parts.loss)
    with mode(model, training=False):
        for images, labels in batches:
            with torch.no_grad(), parts.autocast():
                predicted = parts.predict(model, images)
            yield *completed_prediction(loss, predicted), labels


def _totals(loss: Loss, logits: Tensor, log_p: Tensor | None, labels: Tensor) -> Tensor:
    """Return the sums (4,) over a batch: correct predictions, losses, their weights, negative log-likelihood."""
    correct = ((logits if log_p is None else log_p).argmax(1) == labels).sum()
    nll = torch.zeros_like(correct) if log_p is None else F.nll_loss(log_p, labels, reduction="sum")
    # Float32 unless the outputs are more exact
    kind = torch.promote_types(logits.dtype, torch.float32)
    return torch.stack([each.to(kind) for each in (correct, *loss.totals(logits, labels), nll)])


def completed_prediction(loss: Loss, predicted: Prediction | Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the logits and the log-probabilities of a prediction, None if the loss has no probabilities."""
    found = predicted if isinstance(predicted, Prediction) else Prediction(None, predicted)
    log_p = None if found.log_p is None or loss.log_probabilities is None else at_least_float32(found.log_p)
    if found.logits is not None:
        logits = at_least_float32(found.logits)
        return logits, loss.log_probabilities(logits) if log_p is None and loss.log_probabilities else log_p
    if log_p is None or loss.log_probabilities is not log_softmax:
        raise ConfigError(
            "predict: returns no logits, and `loss` is computed from them; return Prediction(logits, log_p)"
        )
    # The softmax of log-probabilities are the probabilities.
    return log_p, log_p
