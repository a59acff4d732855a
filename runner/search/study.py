"""The study of a search: the next point, the results, and the points that a killed process left."""

from __future__ import annotations

import itertools
import math
import statistics
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.errors import ConfigError, one_line
from runner.search.pruning import make_pruner
from runner.search.records import RankedPoint, RunResult, Search, StudyTrial, point_state
from runner.search.samplers import NON_ADAPTIVE, adaptive_sampler, distinct_points, distribution
from runner.search.space import Point
from runner.search.storage import JOURNAL, open_storage
from runner.user_paths import real

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


class Study:
    """The trials of a search. Only one process at a time runs the trials of a folder.

    A point is stored before it is tried. If a process is killed, the next one therefore begins with the points that it
    left: running trials continue, and failed ones are tried again.
    """

    def __init__(self, search: Search, folder: Path) -> None:
        import optuna

        self._search, self._folder = search, str(real(folder))
        self._storage = open_storage(search.storage, folder)
        self._study = optuna.create_study(
            study_name=search.study_name,
            storage=self._storage,
            sampler=optuna.samplers.RandomSampler(),
            pruner=make_pruner(search.pruner),
            direction=search.monitor.direction,
            load_if_exists=True,
        )
        self._check_compatible()
        self._unfinished_trials = deque(self._unfinished())
        known = [each.user_attrs["index"] for each in self._trials() if "index" in each.user_attrs]
        points = distinct_points(search.space, search.sampler) if search.sampler["name"] in NON_ADAPTIVE else None
        self._points = None if points is None else enumerate(points)
        if self._points and known:
            next(itertools.islice(self._points, max(known), None), None)

    def ask(self) -> StudyTrial | None:
        """Return the next point, None after the last one."""
        if self._unfinished_trials:
            return self._unfinished_trials.popleft()
        if self._count_tried() >= self._search.max_points:
            return None
        if self._points is None:
            return self._sample()
        indexed = next(self._points, None)
        return None if indexed is None else self._store(indexed[1], {"index": indexed[0]})

    def tell(self, asked: StudyTrial, runs: Sequence[RunResult]) -> str:
        """Store the results of a point and return its state: complete, pruned or fail."""
        from optuna.trial import TrialState

        state, reason = point_state(runs)
        scores = [each.score for each in runs if not math.isnan(each.score)]
        about = {"folders": [each.folder for each in runs], "scores": scores, "status": runs[-1].status}
        about["data"] = [each.data for each in runs]
        self._storage.set_trial_user_attr(asked.trial, "runs", {**about, "reason": reason})
        value = statistics.fmean(scores) if state == "complete" else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._study.tell(asked.number, value, state=TrialState[state.upper()])
        return state

    def rows(self) -> list[RankedPoint]:
        """Return the points, the best first and points without a score last."""
        retried = self._retried()
        rows = [self._row(each) for each in self._trials() if self._is_counted(each) and each.number not in retried]
        order, rank = {"complete": 0, "pruned": 1}, self._search.monitor.rank
        return sorted(
            rows,
            key=lambda row: (order.get(row.state, 2), -rank(math.nan if row.value is None else row.value), row.number),
        )

    def finished(self) -> list[tuple[Point, list[str | None]]]:
        """Return the points with a result, each with the fingerprints of the data that its runs read."""
        done = [each for each in self._trials() if each.state.name in ("COMPLETE", "PRUNED")]
        return [(self._point(each), each.user_attrs.get("runs", {}).get("data", [None])) for each in done]

    def renew(self, is_lost: Callable[[Sequence[str]], bool]) -> int:
        """Try the finished points of this folder again that lost their evidence; return how many.

        Args:
            is_lost: Returns True if one of the runs with these folders has no result.

        """
        done = (each for each in self._trials() if each.state.name in ("COMPLETE", "PRUNED"))
        retried = self._retried()
        lost = [
            each
            for each in done
            if self._is_ours(each)
            and each.number not in retried
            and is_lost(each.user_attrs.get("runs", {}).get("folders", []))
        ]
        self._unfinished_trials += [self._store(self._point(each), {"again": each.number}) for each in lost]
        return len(lost)

    def _is_ours(self, each: FrozenTrial) -> bool:
        """Return True if a trial was started in this folder."""
        return each.user_attrs.get("sweep", self._folder if self._search.storage is None else None) == self._folder

    def pruning_channel(self, asked: StudyTrial) -> dict[str, Any] | None:
        """Return the settings with which a run reports to this study, None if the search does not prune."""
        if not self._search.prunes:
            return None
        url = self._search.storage or str(Path(self._folder) / JOURNAL)
        study = self._search.study_name
        return {"storage": url, "study": study, "trial": asked.trial, "pruner": self._search.pruner}

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _row(self, each: FrozenTrial) -> RankedPoint:
        attributes = each.user_attrs.get("runs", {})
        return RankedPoint(
            number=each.number,
            words=self._search.space.words(self._point(each)),
            state=each.state.name.lower() if attributes.get("status") != "diverged" else "diverged",
            value=each.value if each.state.name == "COMPLETE" else None,
            scores=attributes.get("scores", []),
            folders=attributes.get("folders", []),
            reason=None if (reason := attributes.get("reason")) is None else one_line(str(reason)),
        )

    def _point(self, each: FrozenTrial) -> Point:
        """Return a trial's point in the order of the axes."""
        names = [axis.name for axis in self._search.space.axes]
        return {name: each.params[name] for name in names if name in each.params}

    def _is_counted(self, each: FrozenTrial) -> bool:
        """Return True if a trial counts as a point: it ended with a result, or has a value for each axis."""
        return each.state.name in ("COMPLETE", "PRUNED") or self._search.space.is_complete(each.params)

    def _retried(self) -> set[int]:
        return {each.user_attrs["again"] for each in self._trials() if "again" in each.user_attrs}

    def _count_tried(self) -> int:
        return sum(map(self._is_counted, self._trials())) - len(self._retried())

    def _check_compatible(self) -> None:
        """Raise ConfigError if the study of this name has another direction or space."""
        from optuna.distributions import check_distribution_compatibility

        name = self._search.study_name
        if self._study.direction.name.lower() != self._search.monitor.direction:
            raise ConfigError(
                f"hydra.sweeper.study_name: '{name}' exists with direction {self._study.direction.name.lower()}; "
                "choose another name"
            )
        ours = {axis.name: distribution(axis) for axis in self._search.space.axes}
        for each in self._trials():
            for axis, theirs in each.distributions.items():
                try:
                    check_distribution_compatibility(theirs, ours.get(axis, theirs))
                except ValueError as error:
                    raise ConfigError(
                        f"hydra.sweeper.study_name: '{name}' exists with other values of {axis}; choose another name"
                    ) from error

    def _unfinished(self) -> list[StudyTrial]:
        """Return the points that an earlier process left in this folder: running trials, failed ones as new trials."""
        from optuna.trial import TrialState

        retried, left = self._retried(), []
        for each in self._trials():
            if (
                not self._is_ours(each)
                or (each.state.is_finished() and each.state != TrialState.FAIL)
                or each.number in retried
            ):
                continue
            if not self._search.space.is_complete(each.params):
                # The process was killed between two values of the point
                if each.state == TrialState.RUNNING:
                    self._study.tell(each.number, state=TrialState.FAIL)
            elif each.state == TrialState.RUNNING:
                left.append(StudyTrial(self._trial_id(each.number), each.number, self._point(each)))
            else:
                left.append(self._store(self._point(each), {"again": each.number}))
        return left

    def _store(self, point: Point, attributes: dict[str, Any]) -> StudyTrial:
        """Store a point as a running trial, in one record."""
        from optuna.trial import TrialState, create_trial

        axes = {axis.name: axis for axis in self._search.space.axes}
        trial = create_trial(
            state=TrialState.RUNNING,
            params=point,
            distributions={name: distribution(axes[name]) for name in point},
            user_attrs={"sweep": self._folder, **attributes},
        )
        identity = self._storage.create_new_trial(self._study_id(), template_trial=trial)
        return StudyTrial(identity, self._storage.get_trial(identity).number, point)

    def _sample(self) -> StudyTrial:
        """Return a point that the adaptive sampler chooses."""
        self._study.sampler = adaptive_sampler(self._search.space, self._search.sampler, len(self._trials()))
        with warnings.catch_warnings():
            # Optuna warns about trials that a sampler cannot use
            warnings.simplefilter("ignore")
            trial = self._study.ask()
            trial.set_user_attr("sweep", self._folder)
            point: Point = {}
            for axis in self._search.space.axes:
                if self._search.space.applies(axis, point):
                    point[axis.name] = trial._suggest(axis.name, distribution(axis))
        return StudyTrial(self._trial_id(trial.number), trial.number, point)

    def _study_id(self) -> int:
        """Return the number of the study in its storage."""
        return self._storage.get_study_id_from_name(self._study.study_name)

    def _trial_id(self, number: int) -> int:
        """Return the number in the storage of a trial of the study."""
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id(), number)
