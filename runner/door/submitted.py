"""Hydra's submitit launchers as a `Launcher`: jobs are submitted once and followed, by the same command again too."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runner.door.hydra_config import launcher_values
from runner.door.hydra_launchers import HydraLauncher, HydraTask, run_batch
from runner.door.options import Conf
from runner.door.overrides import ParsedOverride
from runner.engine.interruption import blocked
from runner.errors import ConfigError, TrialsFailed
from runner.printing import write_stderr
from runner.sweeps import slurm
from runner.sweeps.job_records import JobRecords
from runner.sweeps.launch_folder import Launch
from runner.sweeps.launcher import Launcher, Numbered, Queued
from runner.sweeps.outcome import Ended, folder_of
from runner.sweeps.submitted_job import LOCAL, Submitted, mark_of, result_of
from runner.sweeps.trial import message_of
from runner.tasks.job import Job

# Runs of one array; Slurm's own limit is 1001 by default
_MOST = 1000
# Seconds between two questions to Slurm
_ASK = 5.0
# Seconds between two looks at the folders
_LOOK = 0.2


def make_hydra_launcher(conf: Conf, given: Sequence[ParsedOverride], folder: Path, batch: int | None) -> Launcher:
    """Return the launcher of Hydra that a command line chooses; raises ConfigError for settings without effect."""
    values = launcher_values(conf, given, folder)
    executor = str(values["_target_"]).rpartition(".")[2]
    if not str(values["_target_"]).startswith("hydra_plugins.hydra_submitit_launcher."):
        return HydraLauncher(conf, given, folder, batch)
    for name in ("nodes", "tasks_per_node"):
        if values.get(name, 1) != 1:
            raise ConfigError(f"hydra.launcher.{name}: got {values[name]}, must be 1: a trial runs in one process")
    return _SubmititLauncher(conf, given, folder, batch, in_slurm=executor == "SlurmLauncher")


class _SubmititLauncher(Queued):
    """Jobs of submitit: on this machine they end with the sweep; in Slurm they go on, for the next command to follow.

    Each run is followed by itself, so a search starts a new point as soon as one ended.
    """

    def __init__(
        self, conf: Conf, given: Sequence[ParsedOverride], folder: Path, batch: int | None, *, in_slurm: bool
    ) -> None:
        """Prepare for the runs of a sweep; at most `batch` of them wait or run together, all if it is None."""
        super().__init__()
        self._conf, self._given, self._folder, self._most = conf, given, folder, batch
        self._in_slurm, self._records = in_slurm, JobRecords(folder)
        self._active: list[Submitted] = []
        self._ended: set[str] = set()  # folders of runs
        self._launch: Launch | None = None
        self._known: dict[str, slurm.State] | None = None
        self._asked = -_ASK
        self._found = 0  # jobs of an earlier command

    def submit(self, job: Job) -> int:
        """Take a run. One that has a result is not run again, one whose job still waits or runs is followed."""
        number = super().submit(job)
        if self._queue and self._queue[-1][0] == number and (known := self._records.find("slurm", folder_of(job))):
            if self._known is None and (states := slurm.states()) is not None:
                self._known = states
            if self._known is None:
                raise TrialsFailed(f"squeue: does not answer; does job {known} still run {job.folder_name}?")
            if (state := self._known.get(known)) and state.lives:
                self._queue.pop()
                self._active.append(Submitted(number=number, job=job, id=known, state=state, before=""))
                self._found += 1
        return number

    def at_once(self) -> int:
        """Return how many runs may run at the same time: Slurm's cores are not known."""
        return self._most or (_MOST if self._in_slurm else super().at_once())

    def free(self) -> int:
        """Return how many more runs can be submitted now."""
        return max(0, (self._most or _MOST) - len(self._active) - len(self._queue) - len(self._done))

    def idle(self) -> bool:
        """Return True if nothing is left."""
        return super().idle() and not self._active

    def running(self) -> list[Job]:
        """Return the runs whose jobs run."""
        return [each.job for each in self._active if each.state.word in ("RUNNING", LOCAL)]

    def waiting(self) -> int:
        """Return how many runs have not begun."""
        return super().waiting() + len(self._active) - len(self.running())

    def stop_all(self) -> None:
        """Forget the runs that have not been submitted; end those on this machine, leave those in Slurm."""
        super().stop_all()
        if self._in_slurm:
            self._active = []
        elif self._launch:
            self._launch.stop()
            for each in self._active:
                each.stopped = True

    def close(self) -> None:
        """End the jobs on this machine."""
        if self._launch:
            self._launch.end()

    def finish(self) -> None:
        """Say which jobs go on after the sweep, and how to cancel them."""
        left = self._records.jobs("slurm", without=self._ended) if self._in_slurm else []
        known = (slurm.states() if left else None) or {}
        alive = [job for job in left if job in known and known[job].lives]
        if alive:
            running = sum(known[job].word == "RUNNING" for job in alive)
            write_stderr(
                f"{len(alive)} trials go on in Slurm ({running} running, {len(alive) - running} waiting); "
                f"cancel them with: {slurm.cancel_command(alive)}; or repeat the command to follow them\n"
            )

    def next_done(self, timeout: float | None = None) -> Ended | None:
        """Return a run that ended; submit the waiting ones first."""
        until = None if timeout is None else time.monotonic() + timeout
        if self._found:
            write_stderr(
                f"{self._found} trials of an earlier command still wait or run in Slurm: not submitted again\n"
            )
            self._found = 0
        self._submit_waiting()
        while not self._done and self._active:
            self._look()
            left = _LOOK if until is None else until - time.monotonic()
            if self._done or left <= 0:
                break
            time.sleep(min(left, _LOOK))
        if not self._done and not self._active and self._queue:
            # Other processes run all that is left
            time.sleep(_LOOK if until is None else max(0.0, until - time.monotonic()))
        if not self._done:
            return None
        ended = self._done.popleft()
        self._ended.add(str(folder_of(ended.job)))
        return ended

    def _submit_waiting(self) -> None:
        """Submit the runs that wait, as arrays."""
        while self._queue:
            room = _MOST if self._most is None else min(_MOST, self._most - len(self._active))
            if not (batch := self.take(room)):
                return
            self._submit(batch)

    def _submit(self, batch: list[Numbered]) -> None:
        """Submit some runs together, and record their jobs."""
        if not self._in_slurm and self._launch is None:
            self._launch = Launch.begin(self._folder)
        task = HydraTask({index: message_of(job) for index, (_, job) in enumerate(batch)}, self._launch)
        marks = [mark_of(job) for _, job in batch]
        # Submitting takes a moment, in which the terminal's signals must not end the programs of the scheduler
        with blocked(signal.SIGINT, signal.SIGHUP), _collected() as jobs:
            run_batch(self._conf, self._given, self._folder, batch, task)
            if self._in_slurm:
                self._records.add(
                    "slurm", [(each.job_id, folder_of(job)) for each, (_, job) in zip(jobs, batch, strict=False)]
                )
        if len(jobs) != len(batch):
            raise TrialsFailed(f"hydra/launcher: submitit submitted {len(jobs)} jobs for {len(batch)} trials")
        state = slurm.State("PENDING" if self._in_slurm else LOCAL)
        for (number, job), handle, mark in zip(batch, jobs, marks, strict=True):
            new = Submitted(number=number, job=job, id=handle.job_id, handle=handle, before=mark, state=state)
            self._active.append(new)
        self._asked = time.monotonic()

    def _look(self) -> None:
        """Find the runs that have a result, and those whose jobs have ended."""
        if self._in_slurm and time.monotonic() - self._asked >= _ASK:
            self._ask_slurm()
        active, self._active = self._active, []
        for each in active:
            if result := result_of(each):
                ended = Ended(number=each.number, job=each.job, result=result, ran=True, seconds=result.seconds)
                self._done.append(ended)
            else:
                self._active.append(each)

    def _ask_slurm(self) -> None:
        """Update the states of the jobs."""
        known, self._asked = slurm.states(), time.monotonic()
        if known is None:
            self.say_once("squeue does not answer; waiting for results in the folders of the trials")
            return
        for each in self._active:
            each.state = known.get(each.id) or slurm.past_state(each.id) or slurm.State("forgotten")


@contextmanager
def _collected() -> Iterator[list[Any]]:
    """Collect the jobs that the launcher submits in the body, and have it return instead of waiting for them.

    The launcher asks submitit for its executor, submits all runs with `map_array`, and waits for each in turn.
    """
    import submitit

    jobs: list[Any] = []
    module: Any = submitit
    executor = module.AutoExecutor

    def map_array(self: Any, *arguments: Any) -> list[Any]:
        jobs.extend(executor.map_array(self, *arguments))
        return []

    module.AutoExecutor = type("Collecting", (executor,), {"map_array": map_array})
    try:
        yield jobs
    finally:
        module.AutoExecutor = executor
