"""The log-probabilities of models on a split: those that runs saved where they are valid, else predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner.assemble.data import split_batches
from runner.assemble.load_data import Loaded, load, with_classes_of
from runner.assemble.threads import begin
from runner.engine.data_summary import summarize
from runner.ensembles.model import RawImages, ensemble_model
from runner.errors import ConfigError, DataError
from runner.printing import counted
from runner.tasks.ensembling.candidates import Candidate
from runner.tasks.predictions import SavedPredictions, read_predictions
from runner.tasks.report import print_progress
from runner.tasks.trained.read_run import are_alike

# Models in memory at the same time
_AT_ONCE = 16


@dataclass(frozen=True)
class Outputs:
    """The predictions of M models for N examples of a split.

    Attributes:
        log_p: (M, N, C) float64, with the classes in the order of the first model.
        labels: (N,) int64.
        ids: The positions (N,) int64 of the examples in their split.
    """

    log_p: NDArray[np.float64]
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]

    def part(self, index: NDArray[np.int64]) -> Outputs:
        """Return the predictions for some of the examples."""
        return Outputs(self.log_p[:, index], self.labels[index], self.ids[index])


class CommonData:
    """The data of models, which are read when they are needed first, and are those that the models were trained on."""

    def __init__(self, models: Sequence[Candidate]) -> None:
        self._models = models

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the classes in the order of the first model."""
        return self._models[0].facts.classes

    @cached_property
    def loaded(self) -> Loaded:
        """Return the data with labels in the order of `classes`; raises DataError if they have changed."""
        config = self._models[0].run.config
        begin(config["threads"])
        found = load(config)
        for model in self._models:
            if changes := model.run.data.changes(found.fingerprint):
                raise DataError(
                    f"{model.run.folder}: the data have changed since the training ({changes}); restore them"
                )
        if self._models[0].run.data.id is None:
            print_progress(self._models[0].run.data.unknown_line())
        return with_classes_of(found, self.classes)


def validation_outputs(models: Sequence[Candidate], data: CommonData) -> Outputs:
    """Return the predictions of models for the validation split; those that a run saved are not computed again."""
    saved = {number: read_predictions(model.run.folder, "val", model.about) for number, model in enumerate(models)}
    parts = {number: _in_order(found, models[number], data) for number, found in saved.items() if found is not None}
    first = next(iter(parts.values()), None)
    if first is not None and all(_same_examples(first, other) for other in parts.values()):
        missing = [number for number in saved if number not in parts]
    else:
        parts, missing = {}, list(saved)
    if missing:
        new = predicted([models[number] for number in missing], data, "val")
        if parts and not all(_same_examples(new, other) for other in parts.values()):
            new, parts, missing = predicted(models, data, "val"), {}, list(saved)
        parts |= {number: Outputs(new.log_p[[at]], new.labels, new.ids) for at, number in enumerate(missing)}
    log_p = np.concatenate([parts[number].log_p for number in range(len(models))])
    return Outputs(log_p, parts[0].labels, parts[0].ids)


def _in_order(saved: SavedPredictions, model: Candidate, data: CommonData) -> Outputs:
    """Return the predictions of one model, which has the same classes, in the order of the data."""
    own = model.facts.classes
    places = [own.index(name) for name in data.classes]
    new_place = np.argsort(places)
    log_p = saved.log_p.double().numpy()[:, places]
    return Outputs(log_p[None], new_place[saved.labels.numpy()], saved.ids.numpy())


def _same_examples(one: Outputs, other: Outputs) -> bool:
    """Return True if predictions are for the same examples."""
    return np.array_equal(one.labels, other.labels) and np.array_equal(one.ids, other.ids)


def predicted(models: Sequence[Candidate], data: CommonData, split: str, *, quiet: bool = False) -> Outputs:
    """Return the predictions of models for a split, computed now; members of one architecture in one pass."""
    if not quiet:
        print_progress(f"predicting {'validation' if split == 'val' else split} with {counted(len(models), 'model')}")
    starts = range(0, len(models), _AT_ONCE)
    parts = [_predicted_together(models[start : start + _AT_ONCE], data, split) for start in starts]
    return Outputs(np.concatenate([part.log_p for part in parts]), parts[0].labels, parts[0].ids)


def _predicted_together(models: Sequence[Candidate], data: CommonData, split: str) -> Outputs:
    """Return the predictions of models that are in memory at the same time."""
    loaded, predictors = data.loaded, [model.predictor() for model in models]
    for model, predictor in zip(models, predictors, strict=True):
        _check_probabilities(model, predictor.loss.log_probabilities)
    alike, equal = are_alike([model.run for model in models]), [1 / len(models)] * len(models)
    ensemble = ensemble_model(predictors, data.classes, equal, alike=alike)
    batches = split_batches(loaded.data, split, RawImages(), predictors[0].device)
    assert batches is not None
    found: list[Tensor] = []
    predictors[0].reseed(-1)
    with torch.no_grad():
        for images, _ in batches:
            found.append(ensemble.each(images).cpu())
    labels = batches.split.labels.cpu()[batches.index]
    return Outputs(torch.cat(found, 1).double().numpy(), labels.numpy(), batches.index.numpy())


def _check_probabilities(model: Candidate, log_probabilities: Any) -> None:
    """Raise ConfigError if the loss of a model has no probabilities."""
    if log_probabilities is None:
        loss = model.run.config["loss"]["name"]
        raise ConfigError(
            f"runs: {model.name} was trained with loss={loss}, which has no probabilities to average; "
            "expected cross_entropy, focal, poly or bce"
        )


def check_has_test(data: CommonData) -> None:
    """Raise DataError if the data have no test split that can be read."""
    found = data.loaded.data
    if found.test is None:
        reason = summarize(found).found.no_test or "the data have no test split"
        raise DataError(f"task.final_test: got true, but {reason}")
    found.check_test()
