"""The next point of a study: one that somebody enqueued, else one of the sampler."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from runner.printing import write_stderr
from runner.search.compatible import enqueued_problem
from runner.search.exclusions import MOST_DRAWN
from runner.search.records import NON_ADAPTIVE, Search, StudyTrial
from runner.search.refined_trials import attributes_of, progress_of
from runner.search.samplers import adaptive_sampler, distinct_points, distribution, first_allowed
from runner.search.space import Point
from runner.search.stored_trials import LEFT_OUT
from runner.search.tally import Tally, sampler_words

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

# Proposals of an adaptive sampler in a row that may be excluded
_MOST_EXCLUDED = 20


class Proposals:
    """Adds points to a study. Of the processes that share it, only the one that holds the storage's lock calls this."""

    def __init__(
        self, search: Search, study: Study, storage: BaseStorage, marks: Mapping[str, str], tally: Tally
    ) -> None:
        """Prepare for a study; `marks` are the attributes of a trial that say whose point it is."""
        self._search, self._study, self._storage, self._marks = search, study, storage, dict(marks)
        self._tally, sampler = tally, search.sampler
        self._sampler = sampler_words(search)
        listed = sampler["name"] in NON_ADAPTIVE
        self._points = self._allowed() if listed else None

    def _allowed(self) -> Iterator[tuple[int, Point]]:
        """Yield the points of a non-adaptive sampler that are not excluded, with their numbers among all."""
        excluded = 0
        for index, point in enumerate(distinct_points(self._search.space, self._search.sampler)):
            excluded = excluded + 1 if self._search.excludes(point) else 0
            if not excluded:
                yield index, point
            elif excluded > MOST_DRAWN:
                return

    def enqueue_initial(self) -> None:
        """Store the first points of the search as waiting trials, unless an earlier command did."""
        known = [each.system_attrs.get("fixed_params") for each in self._trials()]
        # A refining search has them in its first round
        for point in () if self._search.refine else self._search.initial:
            if point not in known:
                self._study.enqueue_trial(point)

    def next(self) -> StudyTrial | None:
        """Return a new point, None if the sampler has no more."""
        trials = self._trials()
        if self._search.refine:
            _, wanted = progress_of(self._search, trials)
            return self.store(wanted[0].point, attributes_of(wanted[0])) if wanted else None
        waiting = next((each for each in self._tally.unfinished(trials) if each.state.name == "WAITING"), None)
        if waiting is not None:
            self.mark(waiting.number)
            return self._asked(waiting.number)
        if self._points is None:
            return self._proposed(len(trials))
        known = self._tally.last_index(trials)
        indexed = next((each for each in self._points if each[0] > known), None)
        return None if indexed is None else self.store(indexed[1], {"index": indexed[0], "sampler": self._sampler})

    def store(self, point: Point, attributes: Mapping[str, Any]) -> StudyTrial:
        """Store a point as a running trial, in one record."""
        from optuna.trial import TrialState, create_trial

        axes = {axis.name: axis for axis in self._search.space.axes}
        trial = create_trial(
            state=TrialState.RUNNING,
            params=point,
            distributions={name: distribution(axes[name]) for name in point},
            user_attrs={**self._marks, **attributes},
        )
        identity = self._storage.create_new_trial(self._study_id(), template_trial=trial)
        return StudyTrial(identity, self._storage.get_trial(identity).number, point, tuple(attributes.get("seeds", ())))

    def mark(self, number: int) -> int:
        """Store whose point a trial is, and return its number in the storage."""
        identity = self._storage.get_trial_id_from_study_id_trial_number(self._study_id(), number)
        for name, value in self._marks.items():
            self._storage.set_trial_user_attr(identity, name, value)
        return identity

    def completed(self, each: FrozenTrial) -> StudyTrial:
        """Return a running trial with the values that it does not have yet."""
        from optuna.trial import Trial

        identity = self.mark(each.number)
        self._study.sampler = adaptive_sampler(self._search.space, self._search.sampler, each.number)
        return self._sampled(identity, Trial(self._study, identity))

    def _asked(self, number: int) -> StudyTrial | None:
        """Return the trial of this number, which waits, with a value for each axis that applies, else the next one."""
        from optuna.trial import TrialState

        self._study.sampler = adaptive_sampler(self._search.space, self._search.sampler, number)
        trial = self._study.ask()
        identity = self.mark(trial.number)
        found = self._storage.get_trial(identity)
        if problem := enqueued_problem(found, self._search.space):
            write_stderr(f"point {found.number} was enqueued but cannot be run: {problem}\n")
            self._study.tell(trial, state=TrialState.FAIL)
            return self.next()
        return self._unless_excluded(self._sampled(identity, trial)) or self.next()

    def _proposed(self, number: int) -> StudyTrial | None:
        """Return a point of the adaptive sampler, a random one after too many that are excluded."""
        for _ in range(_MOST_EXCLUDED):
            self._study.sampler = adaptive_sampler(self._search.space, self._search.sampler, number)
            trial = self._study.ask()
            if found := self._unless_excluded(self._sampled(self.mark(trial.number), trial)):
                return found
            number = trial.number + 1
        return self.store(first_allowed(self._search.space, self._search.exclusions, number), {})

    def _unless_excluded(self, asked: StudyTrial) -> StudyTrial | None:
        """Return a trial, None if its point is excluded: then it ends here, and another one takes its place."""
        if not self._search.excludes(asked.point):
            return asked
        self.leave_out(asked.number)
        return None

    def leave_out(self, number: int) -> None:
        """End a running trial whose point is excluded."""
        from optuna.trial import TrialState

        identity = self._storage.get_trial_id_from_study_id_trial_number(self._study_id(), number)
        self._storage.set_trial_user_attr(identity, LEFT_OUT, True)
        self._study.tell(number, state=TrialState.FAIL)

    def _sampled(self, identity: int, trial: Trial) -> StudyTrial:
        """Return a trial with a value for each axis that applies, by the sampler unless it has one."""
        space = self._search.space
        with warnings.catch_warnings():
            # Optuna warns about trials that a sampler cannot use
            warnings.simplefilter("ignore")
            point: Point = {}
            for axis in space.axes:
                if space.applies(axis, point):
                    point[axis.name] = trial._suggest(axis.name, distribution(axis))
        return StudyTrial(identity, trial.number, point)

    def _study_id(self) -> int:
        """Return the number of the study in its storage."""
        return self._storage.get_study_id_from_name(self._search.study_name)

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)
