"""The processes of a pool: one that forks trials, or where there are GPUs one for each, in turn."""

from __future__ import annotations

import os

from runner.errors import TrialsFailed
from runner.sweeps.knobs import Knobs
from runner.sweeps.outcome import fate
from runner.sweeps.workers import Worker, of_gpu
from runner.tasks.job import Job

DEATHS = 3  # of fork servers, with no trial ended between, before the sweep gives up


class Crew:
    """Hires processes, puts others in their places, and gives up where they do not live."""

    def __init__(self, knobs: Knobs, like: Job) -> None:
        self._knobs, self._like = knobs, like.config
        self.workers: list[Worker] = []
        self.ready: set[Worker] = set()
        self._trials = self._deaths = 0
        self._last = 0  # exit code of the last that was lost

    def start(self, trials: int) -> None:
        """See that there is a process, for so many trials or more; what it has to import and read it does by itself."""
        self._trials = trials
        if not self.workers:
            self._hire(Worker(seats=self._knobs.on_cores, inline=False))

    def loaded(self, worker: Worker, gpus: int) -> None:
        """Take note that a process is ready; where it found GPUs theirs take its place."""
        self.ready.add(worker)
        if not gpus or worker.inline:
            return
        self._dismiss(worker)
        one = ":" in self._like["device"]  # a certain GPU
        for number in range(self._knobs.workers or (1 if one else gpus)):
            environment = {} if one else of_gpu(number, gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
            self._hire(Worker(seats=1, inline=True, environment=environment))

    def lives(self) -> None:
        """Take note that a trial ended: the processes do what they are there for."""
        self._deaths = 0

    def lost(self, worker: Worker) -> int:
        """Part with a process that is gone, and return its exit code."""
        self._deaths += not (worker.inline and worker in self.ready)
        self._last = self._dismiss(worker)
        return self._last

    def replace(self, worker: Worker) -> None:
        """Hire another in the place of one that was lost, a fork server with the next `start`.

        Raises TrialsFailed if too many were.
        """
        if self._deaths >= DEATHS:
            raise TrialsFailed(f"the process that trials come from ended {DEATHS} times ({fate(self._last)})")
        if worker.inline:
            self._hire(worker.successor())

    def close(self) -> None:
        """End every process, at once."""
        for worker in self.workers:
            worker.close()
        self.workers, self.ready = [], set()

    def _hire(self, worker: Worker) -> None:
        self.workers.append(worker)
        like = {key: self._like[key] for key in ("plugins", "data", "device")}
        worker.load(trials=0 if worker.inline else self._trials, **like)

    def _dismiss(self, worker: Worker) -> int:
        self.workers.remove(worker)
        self.ready.discard(worker)
        return worker.close()
