"""The study of a search: the next point, the results, and the points that a killed process left."""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.printing import write_stderr
from runner.search.compatible import check_compatible
from runner.search.owners import Heartbeat, has_ended, owner_of, sign_of_life
from runner.search.proposals import Proposals
from runner.search.pruning import make_pruner
from runner.search.records import RankedPoint, RunResult, Search, StudyTrial, point_state
from runner.search.refine import Progress
from runner.search.refined_trials import progress_of, ranked_points
from runner.search.space import Point
from runner.search.storage import JOURNAL, close_storage, open_storage, storage_errors, stored_url
from runner.search.storage_lock import locked
from runner.search.stored_trials import asked_seeds, attribute, kept_attributes, retried
from runner.search.tally import Tally
from runner.user_paths import real

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

# Seconds between two looks for points that other sweeps left
_PAUSE = 2.0


class Study:
    """The trials of a search. Only one process at a time runs the trials of a folder; several may share a storage.

    A point is stored before it is tried, while no other process can store one. If a process is killed, the next one
    therefore begins with the points that it left: running trials continue, and failed ones are tried again. Of a shared
    study each sweep runs its own points, and those of sweeps that have ended.
    """

    def __init__(self, search: Search, folder: Path) -> None:
        import optuna

        self._search, self._folder, self._url = search, str(real(folder)), search.storage
        if search.storage:
            # Before processes are started that report to the study
            stored_url(search.storage)
        # A study in the sweep's folder has no other owner
        self._owner = owner_of(folder) if search.storage else ""
        with self._alone():
            self._storage = open_storage(search.storage, folder, keep_connections=True)
            self._study = optuna.create_study(
                study_name=search.study_name,
                storage=self._storage,
                sampler=optuna.samplers.RandomSampler(),
                pruner=make_pruner(search.pruner),
                directions=search.directions,
                load_if_exists=True,
            )
            if self._owner:
                # Else another sweep could take the points that this one is about to go on with
                sign_of_life(self._storage, self._study_id(), self._owner)
            check_compatible(self._study, search, self._trials())
            marks = {"sweep": self._folder, **({"owner": self._owner} if self._owner else {})}
            self._tally = Tally(search)
            self._proposals = Proposals(search, self._study, self._storage, marks, self._tally)
            self._proposals.enqueue_initial()
            self._failed_before = {each.number for each in self._trials() if each.state.name == "FAIL"}
            self._unfinished_trials = deque(self._unfinished())
        self._next_look = -math.inf
        self._new_points = self._count_left()

    @property
    def to_come(self) -> int:
        """How many points are left, at most, as of the last look at the study."""
        return len(self._unfinished_trials) + self._new_points

    def ask(self) -> StudyTrial | None:
        """Return the next point, None after the last one."""
        if self._unfinished_trials:
            return self._unfinished_trials.popleft()
        if time.monotonic() < self._next_look:
            return None
        with self._alone():
            asked = self._proposals.next() if self._tally.tried(self._trials()) < self._search.max_points else None
            asked = asked or self._left_by_others()
            self._new_points = self._count_left() if asked else 0
        if asked is None and self._url:
            self._next_look = time.monotonic() + _PAUSE
        return asked

    def tell(self, asked: StudyTrial, runs: Sequence[RunResult], others: Sequence[float] = ()) -> str:
        """Store a point's results, `others` of further objectives; return its state: complete, pruned or fail."""
        from optuna.trial import TrialState

        state, reason = point_state(runs, others)
        scores = [each.score for each in runs if not math.isnan(each.score)]
        about = {"folders": [each.folder for each in runs], "scores": scores, "status": runs[-1].status}
        about["data"] = [each.data for each in runs]
        value = [statistics.fmean(scores), *others] if state == "complete" else None
        with storage_errors(self._url), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = self._storage.get_trial(asked.trial)
            if found.state != TrialState.RUNNING or not self._is_ours(found):
                # This process was halted for so long that it counted as ended
                write_stderr(f"point {asked.number}: another sweep runs it; this result of it is not counted\n")
                return state
            self._storage.set_trial_user_attr(asked.trial, "runs", {**about, "reason": reason})
            self._study.tell(asked.number, value, state=TrialState[state.upper()])
        return state

    def rows(self) -> list[RankedPoint]:
        """Return the points, the best first and points without a score last."""
        with storage_errors(self._url):
            return ranked_points(self._trials(), self._search)

    def progress(self) -> Progress:
        """Return how far a refining search is."""
        return progress_of(self._search, self._trials())[0]

    def finished(self) -> list[tuple[Point, list[str | None]]]:
        """Return the points with a result, each with the fingerprints of the data that its runs read."""
        done = [each for each in self._trials() if each.state.name in ("COMPLETE", "PRUNED")]
        return [(self._point(each), attribute(each, "runs", dict, {}).get("data", [None])) for each in done]

    def renew(self, is_lost: Callable[[Sequence[str]], bool]) -> int:
        """Try the finished points of this folder again that lost their evidence; return how many.

        Args:
            is_lost: Returns True if one of the runs with these folders has no result.

        """
        with self._alone():
            trials = self._trials()
            done_again = retried(trials)
            lost = [
                each
                for each in trials
                if each.state.name in ("COMPLETE", "PRUNED")
                and self._is_ours(each)
                and each.number not in done_again
                and is_lost(attribute(each, "runs", dict, {}).get("folders", []))
            ]
            again = (self._proposals.store(self._point(each), kept_attributes(each)) for each in lost)
            self._unfinished_trials += again
        return len(lost)

    def pruning_channel(self, asked: StudyTrial) -> dict[str, Any] | None:
        """Return the settings with which a run reports to this study, None if the search does not prune."""
        if not self._search.prunes:
            return None
        url = stored_url(self._url) if self._url else str(Path(self._folder) / JOURNAL)
        study = self._search.study_name
        return {"storage": url, "study": study, "trial": asked.trial, "pruner": self._search.pruner}

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Show the other sweeps of a shared study that this one runs."""
        if not self._url:
            yield
            return
        # A storage of its own, since connections belong to one thread
        with storage_errors(self._url):
            beat = Heartbeat(open_storage(self._url, Path()), self._study_id(), self._owner)
        with closing(beat):
            yield

    def close(self) -> None:
        """Close the connections to the storage."""
        close_storage(self._storage)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from changing a shared study meanwhile."""
        with storage_errors(self._url), locked(self._url):
            yield

    def _study_id(self) -> int:
        """Return the number of the study in its storage."""
        return self._storage.get_study_id_from_name(self._search.study_name)

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _point(self, each: FrozenTrial) -> Point:
        return self._search.space.ordered(each.params)

    def _count_left(self) -> int:
        """Return how many new points will be tried, at most."""
        left = self._search.most_points - self._tally.tried(self._trials())
        return 0 if left < 0 or left == math.inf else int(left)

    def _is_ours(self, each: FrozenTrial) -> bool:
        """Return True if a point is of this sweep; older versions stored its folder only."""
        if not self._url:
            return True
        owner = attribute(each, "owner", str, None)
        return bool(owner == self._owner) if owner else attribute(each, "sweep", str, None) == self._folder

    def _was_left(self, each: FrozenTrial) -> bool:
        """Return True if a point is of another sweep, which has ended."""
        owner, folder = attribute(each, "owner", str, None), attribute(each, "sweep", str, "")
        return bool(owner) and not self._is_ours(each) and has_ended(owner, folder, self._study.user_attrs)

    def _unfinished(self) -> list[StudyTrial]:
        """Return the points that an earlier process left in this folder: running trials, failed ones as new trials."""
        trials = self._trials()
        done_again = retried(trials)
        open_ones = [each for each in trials if each.state.name in ("RUNNING", "FAIL") and self._is_ours(each)]
        left = [self._taken(each) for each in open_ones if each.number not in done_again]
        return [each for each in left if each is not None]

    def _left_by_others(self) -> StudyTrial | None:
        """Return a point of a sweep that has ended: one that ran then, or one that had failed when this sweep began."""
        if not self._url:
            return None
        trials = self._trials()
        failed = sorted(self._failed_before - self._tally.retried(trials))
        running = (each for each in self._tally.unfinished(trials) if each.state.name == "RUNNING")
        for each in (*(trials[number] for number in failed), *running):
            if self._was_left(each) and (taken := self._taken(each)):
                return taken
        return None

    def _taken(self, each: FrozenTrial) -> StudyTrial | None:
        """Return a running or failed trial as one to run now, None if it has no point."""
        from optuna.trial import TrialState

        running = each.state == TrialState.RUNNING
        if running and each.system_attrs.get("fixed_params") and not self._search.space.is_complete(each.params):
            # An enqueued point whose process was killed before its other values were sampled
            return self._proposals.completed(each)
        if not self._search.space.is_complete(each.params):
            # The process was killed between two values of the point
            if running:
                self._study.tell(each.number, state=TrialState.FAIL)
            return None
        if self._search.excludes(self._point(each)):
            # The process was killed before it could leave the point out, or the command excludes it now
            if running:
                self._proposals.leave_out(each.number)
            return None
        if not running:
            return self._proposals.store(self._point(each), kept_attributes(each))
        identity = self._proposals.mark(each.number)
        return StudyTrial(identity, each.number, self._point(each), asked_seeds(each))
