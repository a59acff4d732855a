"""Early stopping: the best score so far, and the validations since then."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from runner.engine.contracts import Judge
from runner.engine.monitor import Monitor


def let_run(score: float, step: int) -> bool:
    """Prune no run: the judge of runs outside a search."""
    return False


class Patience:
    """Keep the best and the last scores by one monitored value, and count the validations since the best.

    A search passes a judge, which may end the run as `pruned`.
    """

    def __init__(self, monitor: str, *, limit: int | None, judge: Judge = let_run) -> None:
        self.monitor = monitor
        self._rank = Monitor(monitor).rank
        self.limit = math.inf if limit is None else limit
        self.best: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.waited = 0
        self.judge = judge
        self.pruned = False

    def observe(self, scores: Mapping[str, float], step: int) -> bool:
        """Record the scores of a step and return whether they are the best (of equals the first; NaN never is)."""
        self.last = {**scores, "step": step}
        self.pruned = self.judge(scores[self.monitor], step)
        if not self.best or self.rank(self.last) > self.rank(self.best):
            self.best, self.waited = self.last, 0
            return True
        self.waited += 1
        return False

    def rank(self, scores: Mapping[str, float]) -> float:
        """Return the monitored value with larger as better, NaN as the worst."""
        return self._rank(scores[self.monitor])

    @property
    def best_step(self) -> int:
        """The step with the best scores, 0 before the first validation."""
        return int(self.best.get("step", 0))

    @property
    def spent(self) -> bool:
        """True after `limit` validations without a better score, or if the judge ended the run."""
        return self.pruned or self.waited >= self.limit

    def state_dict(self) -> dict[str, Any]:
        """Return the best and last scores, the validations since the best, and whether the run was pruned."""
        return {"best": dict(self.best), "last": dict(self.last), "waited": self.waited, "pruned": self.pruned}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.best, self.last, self.waited = dict(state["best"]), dict(state["last"]), state["waited"]
        self.pruned = state.get("pruned", False)
