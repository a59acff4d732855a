"""Counts over the trials of a study, whose cost does not grow with the trials that have ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from runner.search.records import Search
from runner.search.stored_trials import attribute, is_counted, retried

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


class Tally:
    """Counts the trials of a study. Optuna never changes a finished trial, so each is looked at once."""

    def __init__(self, search: Search) -> None:
        self._space = search.space
        self._sampler = sampler_words(search)
        # Of the finished trials at the beginning of the study
        self._finished = self._counted = 0
        self._index = -1
        self._retried: set[int] = set()

    def tried(self, trials: Sequence[FrozenTrial]) -> int:
        """Return how many points have been tried or are being tried."""
        later = self.unfinished(trials)
        return self._counted + self._count(later) - len(self._retried | retried(later))

    def retried(self, trials: Sequence[FrozenTrial]) -> set[int]:
        """Return the numbers of the trials in whose place there is another one."""
        return self._retried | retried(self.unfinished(trials))

    def last_index(self, trials: Sequence[FrozenTrial]) -> int:
        """Return the index of the last point that this sampler has proposed, -1 if there is none."""
        return max([self._index, *map(self._index_of, self.unfinished(trials))])

    def unfinished(self, trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
        """Return the trials from the first unfinished one on."""
        start = self._finished
        while self._finished < len(trials) and trials[self._finished].state.is_finished():
            self._index = max(self._index, self._index_of(trials[self._finished]))
            self._finished += 1
        ended = trials[start : self._finished]
        self._counted += self._count(ended)
        self._retried |= retried(ended)
        return trials[self._finished :]

    def _count(self, trials: Sequence[FrozenTrial]) -> int:
        return sum(is_counted(each, self._space) for each in trials)

    def _index_of(self, trial: FrozenTrial) -> int:
        """Return the index of a trial among the points of this sampler, -1 if it has none."""
        if attribute(trial, "sampler", str, self._sampler) != self._sampler:
            return -1
        return int(attribute(trial, "index", int, -1))


def sampler_words(search: Search) -> str:
    """Return the name of a sampler with its seed, as trials store it."""
    return f"{search.sampler['name']} {search.sampler['seed']}"
