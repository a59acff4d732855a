"""Early stopping: the best score so far, and how long ago it was."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from runner.engine.contracts import Judge
from runner.engine.monitor import Monitor


def let_run(score: float, step: int) -> bool:
    """Judge no run: each trains to its end."""
    return False


class Patience:
    """Keeps the best and the last scores by one monitored value and counts the validations since the best.

    A search gives it a judge, which may have the run end as `pruned`.
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
        """Take in the scores of a step and tell whether they are the best (of equals the first; NaN never is)."""
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
        """Whether as many validations as the limit have passed without a better score, or the run was judged."""
        return self.pruned or self.waited >= self.limit

    def state_dict(self) -> dict[str, Any]:
        """Return best and last scores, the validations since the best, and whether the run was judged."""
        return {"best": dict(self.best), "last": dict(self.last), "waited": self.waited, "pruned": self.pruned}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.best, self.last, self.waited = dict(state["best"]), dict(state["last"]), state["waited"]
        self.pruned = state.get("pruned", False)
