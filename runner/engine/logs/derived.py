"""Numbers that a log derives from those it is given: the moving average of the loss, the best validation so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

LOSS = "train/loss"
AVERAGE = "train/loss_average"
BEST: dict[str, tuple[str, Callable[[float, float], float]]] = {
    "val/accuracy": ("_best/val_accuracy", max),
    "val/loss": ("_best/val_loss", min),
}  # `_` sorts first: TensorBoard's HPARAMS page shows the first five tags, in order of name
LAST = {"val/accuracy": "_last/val_accuracy", "val/loss": "_last/val_loss"}  # as they are, for the same page


class Derived:
    """Keeps what the next derived number depends on; a resumed run goes on from `state_dict`.

    The moving average is exponential, over about the last twentieth of the run so far (10 to 200 steps): the plain mean
    at the start, so that no first value weighs on it, and smoother as the loss goes down more slowly.
    """

    def __init__(self, state: Mapping[str, float] | None = None) -> None:
        self._best = dict(state or {})
        self._count, self._mean = self._best.pop("count", 0.0), self._best.pop(AVERAGE, math.nan)

    def state_dict(self) -> dict[str, float]:
        """Return what `Derived` takes to go on."""
        return self._best | ({"count": self._count, AVERAGE: self._mean} if self._count else {})

    def extend(self, values: dict[str, Any]) -> None:
        """Add to the values of a step what follows from them."""
        if LOSS in values:
            values[AVERAGE] = self._average(values[LOSS])
        if not BEST.keys().isdisjoint(values):
            values.update(self._scores(values))

    def _average(self, loss: float) -> float:
        if math.isfinite(loss):
            self._count += 1
            mean = self._mean if self._count > 1 else 0.0
            self._mean = mean + (loss - mean) / min(self._count, 10 + self._count / 20, 200)
        return self._mean

    def _scores(self, values: Mapping[str, float]) -> dict[str, float]:
        found = {}
        for tag, (name, better) in BEST.items():
            if tag in values and not math.isnan(values[tag]):
                found[name] = self._best[name] = better(self._best.get(name, values[tag]), values[tag])
        return found | {name: values[tag] for tag, name in LAST.items() if tag in values}
