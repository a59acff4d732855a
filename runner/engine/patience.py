"""Early stopping: the best score so far and the number of validations since then."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from runner.engine.contracts import ShouldPrune
from runner.engine.monitor import Monitor, with_new_tags


def never_prune(score: float, step: int) -> bool:
    """Return False: a run outside a search is never pruned."""
    return False


class Patience:
    """Early stopping by one monitored score.

    Args:
        monitor: The monitored score, or the tag of one that every validation has, such as `val/accuracy`.
        limit: The number of validations without a better score after which the run stops; None never stops it.
        should_prune: Called with each monitored score and its step; True ends the run as `pruned`.

    Attributes:
        best: The scores of the best validation, with its `step`; empty before the first.
        last: The scores of the last validation, with its `step`; empty before the first.
        waited: The number of validations since the best.
        pruned: True if `should_prune` ended the run.
    """

    def __init__(self, monitor: Monitor | str, *, limit: int | None, should_prune: ShouldPrune = never_prune) -> None:
        found = Monitor(monitor) if isinstance(monitor, str) else monitor
        self.monitor, self._rank = found.tag, found.rank
        self.limit = math.inf if limit is None else limit
        self.best: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.waited = 0
        self.should_prune = should_prune
        self.pruned = False

    def observe(self, scores: Mapping[str, float], step: int) -> bool:
        """Record the scores of a step and return True if they are the best so far.

        Of equal scores the first is the best. NaN is worse than any number.
        """
        self.last = {**scores, "step": step}
        self.pruned = self.should_prune(scores[self.monitor], step)
        if not self.best or self.rank(self.last) > self.rank(self.best):
            self.best, self.waited = self.last, 0
            return True
        self.waited += 1
        return False

    def rank(self, scores: Mapping[str, float]) -> float:
        """Return the monitored score as a number that is larger for better scores; NaN is the worst."""
        return self._rank(scores[self.monitor])

    @property
    def best_step(self) -> int:
        """The step of the best scores; 0 before the first validation."""
        return int(self.best.get("step", 0))

    @property
    def should_stop(self) -> bool:
        """True after `limit` validations without a better score, or if the run was pruned."""
        return self.pruned or self.waited >= self.limit

    def state_dict(self) -> dict[str, Any]:
        """Return the best and last scores, the number of validations since the best, and `pruned`."""
        return {"best": dict(self.best), "last": dict(self.last), "waited": self.waited, "pruned": self.pruned}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned, in this version or an older one."""
        self.best, self.last, self.waited = with_new_tags(state["best"]), with_new_tags(state["last"]), state["waited"]
        self.pruned = state.get("pruned", False)
