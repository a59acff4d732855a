"""The model of an ensemble: raw images in, combined log-probabilities out.

It takes the place of a single model in a `Predictor`, so that evaluation, predictions, export and `runner.load` need to
know nothing about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.assemble.predictor import DataFacts, Predictor
from runner.engine.combining import combine_log_p
from runner.engine.evaluation import completed_prediction
from runner.engine.losses import Prediction, as_loss
from runner.engine.saving.ensemble_file import Combine
from runner.ensembles.stacked import Stacked
from runner.errors import CheckpointError


class MemberModel(nn.Module):
    """One model of an ensemble: raw images (B, C, H, W) -> log-probabilities (B, K) float32.

    Args:
        predictor: The model with its own preprocessing, prediction method, loss and precision.
        classes: The names of the classes in the order of the ensemble.
    """

    order: Tensor

    def __init__(self, predictor: Predictor, classes: Sequence[str]) -> None:
        super().__init__()
        self.preprocess, self.model = predictor.preprocess, predictor.model
        self.predict, self.loss, self.autocast = predictor.predict, predictor.loss, predictor.autocast
        places = {name: place for place, name in enumerate(predictor.facts.classes)}
        order = torch.tensor([places[name] for name in classes], device=predictor.device)
        self.register_buffer("order", order, persistent=False)
        self.is_ordered = predictor.facts.classes == tuple(classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the log-probabilities (B, K) that the run itself has for raw images."""
        found = self.predict_with(self.model, self.preprocess(images))
        return found if self.is_ordered else found.index_select(1, self.order)

    def predict_with(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Return the log-probabilities (B, K), in the member's own order, that its method has with a model."""
        with self.autocast():
            predicted = self.predict(model, inputs)
        _, log_p = completed_prediction(self.loss, predicted)
        assert log_p is not None
        return log_p.float()


class EnsembleModel(nn.Module):
    """Members whose predictions are averaged: raw images (B, C, H, W) -> log-probabilities (B, K) float32.

    Args:
        members: The members.
        weights: Their shares, which sum to 1.
        combine: `probabilities` averages these, `logits` their logarithms, as far as a softmax tells them apart.
        temperature: The combined log-probabilities are divided by it, and made a distribution again.
        alike: True if all members have the same architecture, prediction method, precision and order of classes.
    """

    def __init__(
        self,
        members: Sequence[MemberModel],
        weights: Sequence[float],
        combine: Combine,
        temperature: float,
        *,
        alike: bool = False,
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.weights, self.combine, self.temperature = tuple(weights), combine, temperature
        self.each = Stacked(members, alike=alike)

    def forward(self, images: Tensor) -> Tensor:
        """Return the combined log-probabilities (B, K) for raw images."""
        found = combine_log_p(self.each(images), self.weights, self.combine)
        return found if self.temperature == 1 else F.log_softmax(found / self.temperature, 1)

    def float(self) -> Self:
        """Turn the weights into float32, and compute without mixed precision."""
        for member in self.members:
            member.autocast = nullcontext  # type: ignore[assignment]
        return super().float()


def combined_predictor(
    predictors: Sequence[Predictor],
    weights: Sequence[float],
    combine: Combine,
    temperature: float,
    facts: DataFacts,
    *,
    alike: bool = False,
) -> Predictor:
    """Return the predictor of an ensemble; that of one member without a temperature is the member's own.

    Args:
        predictors: Those of the members.
        weights: Their shares, which sum to 1.
        combine: What of their predictions is averaged.
        temperature: The number by which the combined log-probabilities are divided.
        facts: What the ensemble knows of its data.
        alike: True if the configs of all members have the same architecture, prediction method and precision.

    Raises:
        CheckpointError: The members do not fit each other, or one has no probabilities.
    """
    for number, each in enumerate(predictors, 1):
        if reason := _mismatch_of(each, facts):
            raise CheckpointError(f"member {number} of {len(predictors)}: {reason}")
    first = predictors[0]
    if len(predictors) == 1 and temperature == 1 and first.facts.classes == facts.classes:
        return first
    return replace(
        first,
        facts=facts,
        model=ensemble_model(predictors, facts.classes, weights, combine, temperature, alike=alike),
        preprocess=RawImages(),
        loss=as_loss(F.cross_entropy),
        predict=_predict,
        autocast=nullcontext,
    )


def ensemble_model(
    predictors: Sequence[Predictor],
    classes: Sequence[str],
    weights: Sequence[float],
    combine: Combine = "probabilities",
    temperature: float = 1.0,
    *,
    alike: bool,
) -> EnsembleModel:
    """Return the model of an ensemble, with the classes in a given order; see `combined_predictor`."""
    members = [MemberModel(each, classes) for each in predictors]
    alike = alike and len({each.facts.classes for each in predictors}) == 1
    return EnsembleModel(members, weights, combine, temperature, alike=alike).eval()


def _mismatch_of(predictor: Predictor, facts: DataFacts) -> str:
    """Return why a model cannot be a member of an ensemble that knows some facts of its data, empty if it can."""
    own = predictor.facts
    if own.shape != facts.shape:
        here, there = ("x".join(map(str, shape)) for shape in (own.shape, facts.shape))
        return f"its examples have shape {here}; expected {there}"
    if set(own.classes) != set(facts.classes):
        return f"it has the classes {', '.join(own.classes[:4])} ...; expected those of the ensemble"
    if predictor.loss.log_probabilities is None:
        return "its loss has no probabilities, which an ensemble averages"
    return ""


def _predict(model: nn.Module, images: Tensor) -> Prediction:
    """Return the prediction of an ensemble, whose loss is the negative log-likelihood."""
    return Prediction(None, model(images))


class RawImages(nn.Module):
    """The preprocessing of an ensemble, which leaves raw images as they are: each member has its own."""

    def fit(self, train: object) -> None:
        """Compute nothing."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the images."""
        return images
