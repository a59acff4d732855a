"""Numbers derived from logged ones: the average of the loss, the gradient noise scale, the best validation scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from runner.engine.monitor import Monitor

_LOSS = "train/loss"
_AVERAGE = "train/loss_average"
# Squared norm of the true gradient, trace of the covariance of an example's gradient, and the ratio of their averages
SQUARED_GRADIENT, NOISE = "gradient_noise/squared_gradient", "gradient_noise/trace"
_NOISE_SCALE = "gradient_noise/batch_size"
_NOISE_STATE = ("noise_count", SQUARED_GRADIENT, NOISE)
# Measurements of the two averages
_NOISE_WINDOW = 50
# The scores of every validation
_ALWAYS = tuple(Monitor(f"val/{metric}") for metric in ("accuracy", "loss", "nll"))


class Derived:
    """Compute the moving average of the training loss, the gradient noise scale, and the best validation scores.

    The moving average is exponential. Its window is about a twentieth of the steps so far, and 10 to 200 steps. It
    starts as the plain mean, so that the first values do not get extra weight. It becomes smoother later, when the
    loss falls slowly. The gradient noise scale is a ratio of two such averages, left out where it is not positive.

    Args:
        state: What `state_dict` returned; None for a new run.
        scores: Other scores whose best values are wanted, with their directions.
    """

    def __init__(self, state: Mapping[str, float] | None = None, scores: Iterable[Monitor] = ()) -> None:
        self._names = {each: f"_best/{each.split}_{each.metric}" for each in (*_ALWAYS, *scores)}
        self._tags = {each.tag for each in self._names}
        self._best = dict(state or {})
        self._count, self._mean = self._best.pop("count", 0.0), self._best.pop(_AVERAGE, math.nan)
        self._noise = {name: self._best.pop(name) for name in _NOISE_STATE if name in self._best}

    def state_dict(self) -> dict[str, float]:
        """Return the state that a resumed run needs."""
        return self._best | self._noise | ({"count": self._count, _AVERAGE: self._mean} if self._count else {})

    def extend(self, values: dict[str, Any]) -> None:
        """Add the derived numbers to the values of a step."""
        if _LOSS in values:
            values[_AVERAGE] = self._average(values[_LOSS])
        if NOISE in values:
            values.update(self._noise_scale(values))
        if not self._tags.isdisjoint(values):
            values.update(self._best_scores(values))

    def _average(self, loss: float) -> float:
        if math.isfinite(loss):
            self._count += 1
            mean = self._mean if self._count > 1 else 0.0
            self._mean = mean + (loss - mean) / min(self._count, 10 + self._count / 20, 200)
        return self._mean

    def _noise_scale(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the ratio of the averages of noise and squared gradient, nothing if one of them is not positive."""
        if not all(math.isfinite(values[tag]) for tag in (SQUARED_GRADIENT, NOISE)):
            return {}
        count = self._noise.get("noise_count", 0.0) + 1
        for tag in (SQUARED_GRADIENT, NOISE):
            mean = self._noise.get(tag, 0.0)
            self._noise[tag] = mean + (values[tag] - mean) / min(count, _NOISE_WINDOW)
        self._noise["noise_count"] = count
        gradient, noise = self._noise[SQUARED_GRADIENT], self._noise[NOISE]
        return {_NOISE_SCALE: noise / gradient} if gradient > 0 and noise > 0 else {}

    def _best_scores(self, values: Mapping[str, float]) -> dict[str, float]:
        scores = {}
        for score, name in self._names.items():
            value = values.get(score.tag, math.nan)
            if not math.isnan(value):
                best = self._best.get(name)
                if best is None or score.better(value, best):
                    self._best[name] = value
                scores[name] = self._best[name]
        return scores
