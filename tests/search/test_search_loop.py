"""The loop of a search: its title counts the runs to come, and an interrupted run is no failed one."""

from collections import Counter

import pytest
from test_study import NUMBERS, search

from runner.engine.saving.folder import Result
from runner.search.study import Study
from runner.status import Status
from runner.sweeps.outcome import Ended
from runner.sweeps.search_loop import SearchLoop
from runner.tasks.job import Job


class Recorder:
    """A display that keeps what its title would count."""

    def __init__(self) -> None:
        self.ended, self.totals, self.waiting = Counter(), [], []

    def trial_ended(self, one):
        self.ended[one.result.status] += 1

    def refresh(self, running, waiting, *, loaded):
        self.totals.append(self.ended.total() + len(running) + waiting)
        self.waiting.append(waiting)

    def close(self):
        pass


class TwoAtATime:
    """A launcher that runs two runs at the same time; each ends when it is asked for."""

    def __init__(self, endings) -> None:
        self.jobs, self.endings = [], iter(endings)

    def free(self):
        return 2 - len(self.jobs)

    def submit(self, job):
        self.jobs.append(job)
        return 0

    def next_done(self, timeout=None):
        job = self.jobs.pop(0)
        result = Result(status=Status(next(self.endings, "done")), exit=0, scores={"val": {"best": {"loss": 1.0}}})
        return Ended(number=0, job=job, result=result, ran=True)

    def running(self):
        return list(self.jobs)

    def waiting(self):
        return 0

    def idle(self):
        return not self.jobs

    def loaded(self):
        return True

    def stop_all(self):
        pass

    def close(self):
        pass


class SameData:
    """Data that never change."""

    def settled(self, jobs):
        return list(jobs)


def run_search(asked, folder, endings=()):
    """Run a search; return what its display counted, and its loop."""

    def job(point, seed):
        name = f"{point.number}-{seed}"
        return Job(config={"monitor": "val/loss"}, overrides=(), folder_name=name, folder=str(folder / name))

    study, recorder = Study(asked, folder), Recorder()
    loop = SearchLoop(asked, study, job, SameData())
    assert loop.run(TwoAtATime(endings), recorder) == 0
    return recorder, loop, study


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_the_title_of_a_search_counts_the_runs_to_come(tmp_path, sampler):
    first, _, _ = run_search(search(NUMBERS, sampler, 3, seeds=(0, 1)), tmp_path)
    assert set(first.totals) == {6}
    assert first.waiting[0] == 6 - 1 - 1 and first.waiting[-1] == 0
    more, _, _ = run_search(search(NUMBERS, sampler, 5, seeds=(0, 1)), tmp_path)
    assert set(more.totals) == {4}


def test_an_interrupted_run_of_a_search_is_continued_and_not_counted_as_failed(tmp_path):
    asked = search(NUMBERS, "random", 3)
    _, loop, study = run_search(asked, tmp_path, ["done", "interrupted"])
    assert (loop.points, loop.failed, len(loop.interrupted)) == (2, 0, 1)
    assert sorted(row.state for row in study.rows()) == ["complete", "complete", "running"]
    _, again, study = run_search(asked, tmp_path)
    assert (again.points, len(again.interrupted)) == (1, 0)
    assert [row.state for row in study.rows()] == ["complete"] * 3
