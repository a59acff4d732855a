"""Numbers that a log derives from those it is given: the moving average of the loss, the best validation so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

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
        self._state = dict(state or {})

    def state_dict(self) -> dict[str, float]:
        """Return what `Derived` takes to go on."""
        return dict(self._state)

    def update(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return what follows from the values of a step, by tag."""
        found = {AVERAGE: self._average(values[LOSS])} if LOSS in values else {}
        if BEST.keys().isdisjoint(values):
            return found
        for tag, (name, better) in BEST.items():
            if tag in values and not math.isnan(values[tag]):
                self._state[name] = better(self._state.get(name, values[tag]), values[tag])
                found[name] = self._state[name]
        return found | {name: values[tag] for tag, name in LAST.items() if tag in values}

    def _average(self, loss: float) -> float:
        if math.isfinite(loss):
            count = self._state["count"] = self._state.get("count", 0.0) + 1
            mean = self._state.get(AVERAGE, 0.0)
            self._state[AVERAGE] = mean + (loss - mean) / min(count, 10 + count / 20, 200)
        return self._state.get(AVERAGE, math.nan)
