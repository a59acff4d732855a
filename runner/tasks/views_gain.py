"""The gain of several views or passes over the plain prediction: the views of `task=evaluate` as an ensemble."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from runner.assemble.predictor import Predictor
from runner.engine.losses import Prediction
from runner.engine.views import MeanOverViews, mean_prediction
from runner.ensembles.report import EnsembleReport
from runner.ensembles.statistics import statistics
from runner.printing import size_in_words
from runner.tasks.report import print_progress

# Bytes of the log-probabilities of all views that are kept
_MOST_BYTES = 1_000_000_000
_PLAIN = "plain prediction"


class _ViewRecorder:
    """A prediction method that predicts as another, and keeps the log-probabilities of each view.

    The plain prediction follows the views, so that their random numbers stay those of the method.

    Args:
        method: The other method; its loss has probabilities.
        examples: The number of examples that will be predicted.
    """

    def __init__(self, method: MeanOverViews, examples: int) -> None:
        self.method, self.examples, self.bytes = method, examples, 0
        self._kept: list[Tensor] = []

    def __call__(self, model: nn.Module, images: Tensor) -> Prediction:
        """Return the mean prediction."""
        views = self.method.logits(model, images)
        self.bytes = 4 * (len(views) + 1) * self.examples * views[0].shape[1]
        convert = self.method.loss.log_probabilities
        if convert is not None and self.bytes <= _MOST_BYTES:
            self._kept.append(torch.stack([convert(logits).float().cpu() for logits in (*views, model(images))]))
        return mean_prediction(views, self.method.loss)

    def report(self, labels: Tensor, *, name: str, split: str, seed: int) -> EnsembleReport | None:
        """Return the report on the views as members, compared with the plain prediction.

        Return None, after a line, if they were too large to keep.
        """
        word = self.method.view
        words = f"{word}es" if word.endswith("s") else f"{word}s"
        if not self._kept:
            size = size_in_words(self.bytes)
            print_progress(f"gain over the {_PLAIN}: not measured, the predictions of all {words} have {size}")
            return None
        log_p = torch.cat(self._kept, 1).double().numpy()
        views = len(log_p) - 1
        weights = np.append(np.full(views, 1 / views), 0.0)
        return EnsembleReport(
            title=f"predict={name}",
            split={"val": "validation"}.get(split, split),
            names=(*(f"{word} {number}" for number in range(1, views + 1)), _PLAIN),
            statistics=statistics(log_p, labels.numpy(), weights, "probabilities", best=views, seed=seed),
            how="probabilities",
            cost=views,
            member=word,
            members=words,
            best=_PLAIN,
            expected="",
        )


def view_recorder(predictor: Predictor, examples: int) -> _ViewRecorder | None:
    """Return what keeps the views of the prediction method; None if it has no views, or no probabilities."""
    method = predictor.predict
    if not isinstance(method, MeanOverViews) or method.loss.log_probabilities is None:
        return None
    return _ViewRecorder(method, examples)
