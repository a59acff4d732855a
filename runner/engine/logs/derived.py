"""Numbers derived from logged ones: the moving average of the loss, and the best validation scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from runner.engine.monitor import Monitor

_LOSS = "train/loss"
_AVERAGE = "train/loss_average"
# The scores of every validation
_ALWAYS = tuple(Monitor(f"val/{metric}") for metric in ("accuracy", "loss", "nll"))


class Derived:
    """Compute the moving average of the training loss, and the best validation scores.

    The moving average is exponential. Its window is about a twentieth of the steps so far, and 10 to 200 steps. It
    starts as the plain mean, so that the first values do not get extra weight. It becomes smoother later, when the
    loss falls slowly.

    Args:
        state: What `state_dict` returned; None for a new run.
        scores: Other scores whose best values are wanted, with their directions.
    """

    def __init__(self, state: Mapping[str, float] | None = None, scores: Iterable[Monitor] = ()) -> None:
        self._names = {each: f"_best/{each.split}_{each.metric}" for each in (*_ALWAYS, *scores)}
        self._tags = {each.tag for each in self._names}
        self._best = dict(state or {})
        self._count, self._mean = self._best.pop("count", 0.0), self._best.pop(_AVERAGE, math.nan)

    def state_dict(self) -> dict[str, float]:
        """Return the state that a resumed run needs."""
        return self._best | ({"count": self._count, _AVERAGE: self._mean} if self._count else {})

    def extend(self, values: dict[str, Any]) -> None:
        """Add the derived numbers to the values of a step."""
        if _LOSS in values:
            values[_AVERAGE] = self._average(values[_LOSS])
        if not self._tags.isdisjoint(values):
            values.update(self._best_scores(values))

    def _average(self, loss: float) -> float:
        if math.isfinite(loss):
            self._count += 1
            mean = self._mean if self._count > 1 else 0.0
            self._mean = mean + (loss - mean) / min(self._count, 10 + self._count / 20, 200)
        return self._mean

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
