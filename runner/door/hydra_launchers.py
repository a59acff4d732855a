"""Hydra's launchers (basic, joblib, submitit) as a `Launcher`, and the flags that Hydra answers itself."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from omegaconf import DictConfig

from runner import user_paths
from runner.door.compose import quote, resolve
from runner.door.hydra_compose import hydra_error
from runner.door.hydra_config import opened_launcher, words_of
from runner.door.options import Conf, find_conf
from runner.door.overrides import ParsedOverride
from runner.door.task_context import start
from runner.door.weights_identity import with_digests_of
from runner.engine.interruption import Interrupted, handled, ignore
from runner.errors import ConfigError, RunnerError, TrialsFailed, describe
from runner.hashes import hash8
from runner.status import Status
from runner.streams import guard
from runner.sweeps.channel import Message
from runner.sweeps.launch_folder import Launch
from runner.sweeps.launcher import Numbered, Queued
from runner.sweeps.outcome import Ended, finalize_result, folder_of, lost_ending, saved_result
from runner.sweeps.own_process import run_apart
from runner.sweeps.trial import job_of, message_of
from runner.tasks.job import Job


@dataclass(frozen=True)
class HydraTask:
    """The task function of Hydra: compose the run's overrides again, and run the planned job in a process of its own.

    A launcher of Hydra's sends this object to its processes, so its fields are plain values.
    """

    jobs: dict[int, Message]  # by number
    launch: Launch | None  # None: the run goes on when the sweep has ended
    start_folder: str | None = field(default_factory=user_paths.start_folder)  # from which relative paths count

    def __call__(self, config: DictConfig) -> None:
        """Run a job. A failure does not raise, because some launchers would then end the runs of later batches."""
        # The processes of some launchers know no door
        guard()
        number = int(HydraConfig.get().job.num)
        if self.launch is not None:
            if not self.launch.wanted():
                return
            self.launch.note(number)
            if os.getpid() != self.launch.pid:
                # The terminal sends Ctrl-C to this process too, but the sweep decides what ends
                ignore(signal.SIGINT)

        def start_planned(job: Job) -> int:
            # The plan has found what identifies the weights
            here = with_digests_of(resolve(config), job.config)
            planned, composed = hash8(job.config), hash8(here)
            if composed != planned:
                raise ConfigError(f"config: got {composed} here, must be {planned} as planned; do config files differ?")
            return start(job)

        # Hydra's basic launcher goes on in this process
        with user_paths.anchored(self.start_folder), user_paths.returning():
            run_apart(job_of(self.jobs[number]), start_planned, self.launch.wanted if self.launch else _always)
        if self.launch is not None and self.launch.orphaned():
            # Nobody else ends this process, which may be one of a pool
            os._exit(1)


def _always() -> bool:
    return True


class HydraLauncher(Queued):
    """A launcher of Hydra: runs are collected in a batch, which starts together and ends together.

    Each run has a process of its own, so it fails alone. Runs that a batch lost, because the process of the launcher
    itself ended, run again one by one; the one that is lost again failed.
    """

    def __init__(self, conf: Conf, given: Sequence[ParsedOverride], folder: Path, batch: int | None) -> None:
        """Prepare for the runs of a sweep; at most `batch` of them start together, all if it is None."""
        super().__init__()
        self._conf, self._given, self._folder, self._most = conf, given, folder, batch
        self._suspects: deque[Numbered] = deque()

    def free(self) -> int:
        """Return how many more runs the next batch takes."""
        return 0 if self._done or self._most is None else self._most - len(self._queue) - len(self._suspects)

    def idle(self) -> bool:
        """Return True if nothing is left."""
        return super().idle() and not self._suspects

    def waiting(self) -> int:
        """Return how many runs have not begun."""
        return super().waiting() + len(self._suspects)

    def stop_all(self) -> None:
        """Forget the runs that have not begun."""
        super().stop_all()
        self._suspects.clear()

    def next_done(self, timeout: float | None = None) -> Ended | None:
        """Return a run that ended; run the next batch if there is none. Raises Interrupted if a signal ended it."""
        if not self._done and (self._queue or self._suspects):
            if batch := self._next_batch():
                self._run(batch)
            elif not self._done:
                time.sleep(1.0 if timeout is None else timeout)
        return self._done.popleft() if self._done else None

    def _next_batch(self) -> list[Numbered]:
        """Take the runs of the next batch."""
        if self._suspects:
            return [self._suspects.popleft()]
        return self.take(self._most)

    def _run(self, batch: list[Numbered]) -> None:
        """Run a batch to its end, and record how its runs ended."""
        launch, received, failure = Launch.begin(self._folder), list[int](), None

        def stop(number: int, frame: FrameType | None) -> None:
            received.append(number)
            launch.stop()
            if len(received) > 1:
                raise Interrupted(number)

        try:
            with handled(stop):
                task = HydraTask({index: message_of(job) for index, (_, job) in enumerate(batch)}, launch)
                run_batch(self._conf, self._given, self._folder, batch, task)
        except TrialsFailed as error:
            failure = error
        except KeyboardInterrupt as error:
            received.append(getattr(error, "exit_code", 130) - 128)
        begun = launch.begun()
        launch.end()
        self._settle(batch, begun, failure, stopped=bool(received))
        if received:
            raise Interrupted(received[0])

    def _settle(self, batch: list[Numbered], begun: set[int], failure: TrialsFailed | None, *, stopped: bool) -> None:
        """Record the runs of a batch that ended, and decide about the others; raises TrialsFailed if none began."""
        lost, fresh = list[Numbered](), list[Numbered]()
        for index, (number, job) in enumerate(batch):
            if index not in begun:
                fresh.append((number, job))
            elif ended := _ended_by_folder(number, job):
                self._done.append(ended)
            else:
                lost.append((number, job))
        if stopped:
            return
        if len(fresh) == len(batch):
            raise failure or TrialsFailed("the launcher ended the sweep: it began no run, and gave no error")
        self._queue.extendleft(reversed(fresh))
        if len(lost) > 1:
            self._suspects.extend(lost)
        elif lost:
            why = f" ({failure})" if failure else ""
            [(number, job)] = lost
            result = finalize_result(job, lost_ending(f"its process was killed and left no result{why}"), 0.0)
            self._done.append(Ended(number=number, job=job, result=result, ran=True))


def run_batch(
    conf: Conf, given: Sequence[ParsedOverride], folder: Path, batch: Sequence[Numbered], task: HydraTask
) -> None:
    """Have the chosen launcher run a batch; raises TrialsFailed in one line for any error of the launcher."""
    words = [
        [*words_of(conf, job), f"hydra.sweep.subdir={quote(user_paths.relative(folder_of(job), folder))}"]
        for _, job in batch
    ]
    try:
        with opened_launcher(conf, given, folder, task) as launcher:
            for each in launcher.launch(words, initial_job_idx=0):
                # An error outside the run; those of the run are in its folder
                if each.status is JobStatus.FAILED:
                    _raise_error_of(each)
    except (RunnerError, KeyboardInterrupt):
        raise
    except (Exception, SystemExit) as error:
        raise TrialsFailed(f"the launcher ended the sweep: {describe(error)}") from error


def _raise_error_of(failed: JobReturn) -> None:
    """Raise the error of a failed run of Hydra's, as reading its return value does."""
    # Hydra prints the overrides of the run, too
    with redirect_stderr(io.StringIO()):
        _ = failed.return_value


def _ended_by_folder(number: int, job: Job) -> Ended | None:
    """Return how a run ended, from its folder; None if the folder has no result."""
    result = saved_result(job)
    if result is None or result.status is Status.RUNNING:
        return None
    return Ended(number=number, job=job, result=result, ran=True, seconds=result.seconds)


def through_hydra(words: Sequence[str], conf: Conf | None = None) -> int:
    """Have Hydra answer `--info`; raises ConfigError if Hydra rejects it."""
    conf = conf or find_conf()
    flags = [f"--config-dir={folder}" for folder in conf.folders[1:]] + [f"--config-name={conf.primary}"]
    main = hydra.main(version_base="1.3", config_path=str(conf.folders[0]), config_name="config")(lambda config: None)
    with _command_line([*flags, *words]):
        try:
            main()
        except HydraException as error:
            raise hydra_error(error) from error
        except SystemExit as error:
            return int(error.code or 0)
    return 0


@contextmanager
def _command_line(words: list[str]) -> Iterator[None]:
    """Give Hydra another command line, and make it raise its errors instead of printing them."""
    argv, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = [argv[0], *words], "1"
    try:
        yield
    finally:
        sys.argv = argv
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full
