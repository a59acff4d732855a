"""The launcher for Ray: trials are tasks of a cluster; results are what they leave in their folders."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from runner.door.options import Conf
from runner.door.ray_cluster import Cluster
from runner.door.ray_task import run_words, words_for
from runner.errors import describe
from runner.status import Ending, Status
from runner.sweeps.launch_folder import Launch
from runner.sweeps.launcher import PAUSE, Numbered, Queued, RaySettings
from runner.sweeps.outcome import Ended, finalize_result, lost_ending, saved_result
from runner.tasks.job import Job

# Most tasks that Ray holds at the same time; more wait here
_MOST = 1000


class RayLauncher(Queued):
    """Runs trials as tasks of Ray, each in a process of its own on the node that Ray picks.

    Each task is followed by itself, so a search starts a new point as soon as one ended. A task that is lost with its
    node runs again elsewhere, and its trial goes on from its checkpoint.
    """

    def __init__(self, conf: Conf, settings: RaySettings, folder: Path) -> None:
        """Connect to the cluster, or start one; raises ConfigError if there is none."""
        super().__init__()
        self._conf, self._settings, self._folder = conf, settings, folder
        self._cluster: Cluster | None = Cluster(settings)
        self._launch: Launch | None = None
        # task -> the run with its number
        self._active: dict[Any, Numbered] = {}
        self._stopping = False

    def at_once(self) -> int:
        """Return how many runs may run at the same time."""
        slots = self._cluster.slots() if self._cluster else 0
        return min(self._settings.workers or slots, slots) or 1

    def free(self) -> int:
        """Return how many more runs can begin now."""
        return max(0, self.at_once() - len(self._active) - len(self._queue) - len(self._done))

    def idle(self) -> bool:
        """Return True if nothing is left."""
        return super().idle() and not self._active

    def running(self) -> list[Job]:
        """Return the runs that have begun."""
        begun = self._begun()
        return [job for number, job in self._active.values() if number in begun]

    def waiting(self) -> int:
        """Return how many runs have not begun."""
        return super().waiting() + len(self._active) - len(self.running())

    def stop_all(self) -> None:
        """Forget the runs that have not begun; the others save themselves and end."""
        super().stop_all()
        if self._launch and not self._stopping:
            self._stopping = True
            self._launch.stop()
            begun = self._begun()
            for task in [task for task, (number, _) in self._active.items() if number not in begun]:
                del self._active[task]

    def next_done(self, timeout: float | None = None) -> Ended | None:
        """Return a run that ended; give the waiting ones to Ray first."""
        until = None if timeout is None else time.monotonic() + timeout
        self._submit_waiting()
        while not self._done and (self._active or self._queue):
            left = PAUSE if until is None else min(PAUSE, until - time.monotonic())
            if left <= 0:
                break
            if self._active and self._cluster:
                ended, _ = self._cluster.ray.wait(list(self._active), num_returns=1, timeout=left)
                for task in ended:
                    self._settle(task)
            else:
                # Other processes run all that is left
                time.sleep(left)
            self._submit_waiting()
        return self._done.popleft() if self._done else None

    def close(self) -> None:
        """End the tasks, and the cluster if it is this command's own."""
        if self._cluster:
            self._cluster.close()
            self._cluster = None
        if self._launch:
            self._launch.end()
            self._launch = None

    def _begun(self) -> set[int]:
        return self._launch.begun() if self._launch and self._active else set()

    def _submit_waiting(self) -> None:
        """Give waiting runs to Ray, as many as it may hold."""
        room = (self._settings.workers or _MOST) - len(self._active)
        if not self._queue or room <= 0 or self._cluster is None:
            return
        batch = self.take(room)
        if batch and not self._cluster.slots():
            self.say_once("hydra.launcher.resources: no node of the cluster has as much now; the trials wait for one")
        self._launch = self._launch or (Launch.begin(self._folder) if batch else None)
        asked = self._settings
        for number, job in batch:
            assert self._launch is not None
            # The process of a task stays, with torch and the data loaded, also on a GPU
            task = self._cluster.ray.remote(
                num_cpus=asked.num_cpus, num_gpus=asked.num_gpus, max_retries=asked.max_retries, max_calls=0
            )(run_words)
            words = words_for(self._conf, job, number, self._launch, asked, has_gpu=asked.num_gpus > 0)
            self._active[task.options(name=job.folder_name).remote(words)] = (number, job)

    def _settle(self, task: Any) -> None:
        """Record how the run of a task ended."""
        assert self._cluster is not None
        number, job = self._active.pop(task)
        try:
            wrong = self._cluster.ray.get(task)
        except Exception as error:
            # Of Ray: the error of a trial is in its folder
            wrong = f"its task of Ray was lost: {describe(error)}"
        result = saved_result(job)
        if wrong or result is None or result.status is Status.RUNNING:
            ending = (
                Ending(Status.INTERRUPTED, 143, "stopped")
                if self._stopping
                else lost_ending(wrong or "its task of Ray ended and left no result")
            )
            result = finalize_result(job, ending, 0.0)
        self._done.append(Ended(number=number, job=job, result=result, ran=True, seconds=result.seconds))
