"""`task.temperature` of `task=evaluate`: scores after temperature scaling, whose temperature comes from validation.

The scored examples never fit the temperature: where validation itself is scored, one half of it fits, and the other is
scored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from runner.assemble.predictor import Predictor
from runner.engine.batches import EvalBatches
from runner.engine.evaluation import Assessment, assess
from runner.engine.figures.classes import calibration_figure
from runner.engine.figures.picture import Picture
from runner.engine.metrics import Metrics, calibration, errors_by_confidence, risk_coverage
from runner.ensembles.calibration import (
    Array,
    Labels,
    PredictionScores,
    disjoint_halves,
    fit_temperature,
    prediction_scores,
    with_temperature,
)
from runner.ensembles.report import scores_change, temperature_in_words
from runner.errors import ConfigError, short_reason
from runner.printing import write_stdout
from runner.settings import NO_LIKELIHOOD
from runner.tasks.predictions import predictions_file
from runner.tasks.trained.saved_run import SavedRun
from runner.user_paths import full

_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """A temperature, and the scores of the examples that did not fit it before and after.

    Attributes:
        temperature: The temperature; 1 where no other is better.
        fitted_on: The examples of validation that it was fitted on, in words.
        scored_on: The examples that are scored, in words.
        before: The scores without it.
        after: The scores with it.
        log_p: The log-probabilities (N, K) with it.
        labels: The labels (N,).
    """

    temperature: float
    fitted_on: str
    scored_on: str
    before: PredictionScores
    after: PredictionScores
    log_p: Array
    labels: Labels


def check_temperature(predictor: Predictor) -> None:
    """Raise ConfigError if the predictions are no probabilities."""
    if predictor.loss.log_probabilities is None:
        raise ConfigError(f"task.temperature: got true, must be false here: {NO_LIKELIHOOD}")


def predict_validation(predictor: Predictor, batches: EvalBatches) -> tuple[Array, Labels]:
    """Return the log-probabilities (N, K) and the labels (N,) of validation."""
    metrics = Metrics(classes=len(predictor.facts.classes))
    return _arrays(assess(predictor, predictor.model, batches, metrics, keep=True))


def saved_validation(run: SavedRun) -> tuple[Array, Labels]:
    """Return the predictions for validation that the run has saved: where other data are scored, its own are not read.

    Raises ConfigError if it has none, or those of other weights, of another prediction method or of other data.
    """
    path = predictions_file(run.folder, "val")
    now = {"weights": str(run.path.relative_to(run.folder)), "predict": run.config["predict"]["name"]}
    now |= {"data": run.data.id} if run.data.id else {}
    try:
        with safe_open(full(path), "numpy") as file:
            about = json.loads(file.metadata()["about"])
            if any(about.get(key) != value for key, value in now.items()):
                raise ConfigError(_other_predictions(run, "are of other weights, of another predict or other data"))
            return file.get_tensor("log_p").astype(np.float64), file.get_tensor("labels").astype(np.int64)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(_other_predictions(run, f"cannot be read ({short_reason(error)})")) from error


def _other_predictions(run: SavedRun, reason: str) -> str:
    """Return the error for saved predictions that cannot fit a temperature."""
    words = f"task=evaluate run={run.folder} task.split=val predict={run.config['predict']['name']}"
    return f"task.temperature: the saved predictions for validation {reason}; save them first: {words}"


def _arrays(found: Assessment) -> tuple[Array, Labels]:
    """Return the log-probabilities (N, K) and the labels (N,) of an evaluation."""
    assert found.outputs is not None
    return found.outputs.double().numpy(), found.labels.numpy()


def fit_scaling(found: Assessment, validation: tuple[Array, Labels] | None, *, split: str, seed: int) -> Scaling:
    """Return the scores of an evaluation with a temperature.

    Args:
        found: The evaluation, with its outputs.
        validation: The predictions for validation; None if it is what was scored.
        split: The name of the scored split.
        seed: Seed of the halves of validation.
    """
    log_p, labels = _arrays(found)
    scored_on = f"{len(labels):,} {split} examples"
    if validation is None:
        first, second = disjoint_halves(labels, seed)
        fitted_on, scored_on = f"{len(first):,} examples, half of validation", f"the other {len(second):,}"
        validation = log_p[first], labels[first]
        log_p, labels = log_p[second], labels[second]
    else:
        fitted_on = f"{len(validation[1]):,} validation examples"
    temperature = fit_temperature(*validation)
    scaled = with_temperature(log_p, temperature)
    return Scaling(
        temperature=temperature,
        fitted_on=fitted_on,
        scored_on=scored_on,
        before=prediction_scores(log_p, labels),
        after=prediction_scores(scaled, labels),
        log_p=scaled,
        labels=labels,
    )


def show_scaling(found: Scaling) -> None:
    """Print a temperature, and the scores before and after."""
    write_stdout(
        f"temperature   {temperature_in_words(found.temperature)}, fitted on {found.fitted_on}; "
        f"scored on {found.scored_on}\n"
        f"              {scores_change(found.before, found.after)}\n"
    )


def scaling_record(found: Scaling, about: Mapping[str, Any]) -> bytes:
    """Return a temperature and the scores before and after as JSON; a score that is not finite is null."""
    scores = {
        name: {key: value if math.isfinite(value) else None for key, value in asdict(each).items()}
        for name, each in (("before", found.before), ("after", found.after))
    }
    record = {
        "schema": _SCHEMA,
        **about,
        "temperature": found.temperature,
        "fitted_on": found.fitted_on,
        "scored_on": found.scored_on,
        **scores,
    }
    return json.dumps(record, indent=1, allow_nan=False).encode() + b"\n"


def scaling_picture(found: Scaling, split: str) -> Picture:
    """Return the reliability diagram and the risk-coverage curve with the temperature."""
    log_p, labels = torch.tensor(found.log_p), torch.tensor(found.labels)
    risks = risk_coverage(errors_by_confidence(log_p, labels).double()).numpy()
    words = temperature_in_words(found.temperature)
    title = f"{split} at temperature {words}: ECE {found.after.ece:.4f}, {len(found.labels)} examples"
    return calibration_figure(calibration(log_p, labels).double().numpy(), risks, title=title)
