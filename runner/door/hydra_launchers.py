"""Hydra's launchers (basic, joblib, submitit) as a `Launcher`, and the flags that Hydra answers itself."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from runner import user_paths
from runner.door.compose import choice_words, hydra_error, hydra_opened, picks_option, quote, resolve
from runner.door.folders import SUBDIR, SWEEP
from runner.door.options import Conf, find_conf
from runner.door.overrides import ParsedOverride, parse_override
from runner.door.task_context import start
from runner.engine.interruption import Interrupted, raising
from runner.errors import ConfigError, RunnerError, TrialsFailed, describe
from runner.hashes import hash8
from runner.status import Status
from runner.streams import guard
from runner.sweeps.channel import Message
from runner.sweeps.launcher import Queued
from runner.sweeps.outcome import (
    Ended,
    begin,
    finalize_result,
    folder_of,
    lost_ending,
    saved_result,
)
from runner.sweeps.trial import job_of, message_of, run_here
from runner.tasks.job import Job


@dataclass(frozen=True)
class _HydraTask:
    """The task function of Hydra: compose the run's overrides again in its process, and run the planned job.

    A launcher of Hydra's sends this object to its processes, so its fields are plain values.
    """

    jobs: dict[int, Message]  # by number
    start_folder: str | None  # from which relative paths count

    def __call__(self, config: DictConfig) -> None:
        """Run a job. A failure does not raise, because some launchers would then end the runs of later batches."""
        # The processes of some launchers know no door
        guard()
        job = job_of(self.jobs[int(HydraConfig.get().job.num)])

        def start_planned(job: Job) -> int:
            planned, composed = hash8(job.config), hash8(resolve(config))
            if composed != planned:
                raise ConfigError(f"config: got {composed} here, must be {planned} as planned; do config files differ?")
            return start(job)

        # Hydra's basic launcher goes on in this process
        with user_paths.anchored(self.start_folder), user_paths.returning():
            ending, _ = run_here(job, start_planned, run=job.folder_name)
        # A signal ends the sweep, too
        if ending.status is Status.INTERRUPTED:
            raise KeyboardInterrupt if ending.exit_code == 130 else SystemExit(ending.exit_code)


class HydraLauncher(Queued):
    """A launcher of Hydra: runs are collected in a batch, which starts together and ends together."""

    def __init__(self, conf: Conf, given: Sequence[ParsedOverride], folder: Path, batch: int | None) -> None:
        """Prepare for the runs of a sweep; at most `batch` of them start together, all if it is None."""
        super().__init__()
        self._conf, self._given, self._folder, self._most = conf, given, folder, batch

    def free(self) -> int:
        """Return how many more runs the next batch takes."""
        return 0 if self._done or self._most is None else self._most - len(self._queue)

    def next_done(self, timeout: float | None = None) -> Ended | None:
        """Return a run that ended; run the next batch if there is none. Raises Interrupted if a signal ended it."""
        if not self._done and self._queue:
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._most or len(self._queue)))]
            batch = self._writable(batch)
            try:
                self._launch(batch)
            except Interrupted:
                self._done += [left for number, job in batch if (left := _ended_by_folder(number, job))]
                raise
            self._done += [_ended_by_folder(number, job) or _ended_without_result(number, job) for number, job in batch]
        return self._done.popleft() if self._done else None

    def _writable(self, batch: Sequence[tuple[int, Job]]) -> list[tuple[int, Job]]:
        """Return the runs whose folders can be written; the others have failed."""
        failed = {number: result for number, job in batch if (result := begin(job))}
        self._done += [Ended(number=n, job=job, result=failed[n], ran=True) for n, job in batch if n in failed]
        return [(number, job) for number, job in batch if number not in failed]

    def _launch(self, batch: Sequence[tuple[int, Job]]) -> None:
        """Run a batch to its end."""
        if not batch:
            return
        task = _HydraTask({index: message_of(job) for index, (_, job) in enumerate(batch)}, user_paths.start_folder())
        words = [
            [
                *_words_of(self._conf, job),
                f"hydra.sweep.subdir={quote(user_paths.relative(folder_of(job), self._folder))}",
            ]
            for _, job in batch
        ]
        try:
            with _opened_launcher(self._conf, self._given, self._folder, task) as launcher, raising():
                for each in launcher.launch(words, initial_job_idx=0):
                    # An error outside the run; those of the run are in its folder
                    if each.status is JobStatus.FAILED:
                        _raise_error_of(each)
        except RunnerError:
            raise
        except SystemExit as error:
            raise Interrupted(int(error.code or 0) - 128) from error
        except KeyboardInterrupt as error:
            raise error if isinstance(error, Interrupted) else Interrupted(2) from error
        except Exception as error:
            raise TrialsFailed(f"the launcher ended the sweep: {describe(error)}") from error


def _raise_error_of(failed: JobReturn) -> None:
    """Raise the error of a failed run of Hydra's, as reading its return value does."""
    # Hydra prints the overrides of the run, too
    with redirect_stderr(io.StringIO()):
        _ = failed.return_value


class _NoCallbacks:
    """The callbacks of Hydra for a sweep without any: a launcher calls `on_job_start`, for example.

    Hydra's class is in a private module. Launchers only call its methods, which all begin with `on_`.
    """

    def __getattr__(self, name: str) -> Callable[..., None]:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return _ignore


def _ignore(*args: Any, **kwargs: Any) -> None:
    """Do nothing."""


def _words_of(conf: Conf, job: Job) -> list[str]:
    """Return the overrides with which Hydra composes a run.

    Values are set by `++`, which also adds a key to an open mapping. A choice of `null` is left out.
    """
    found = []
    for each in map(parse_override, job.overrides):
        if not picks_option(conf, each):
            found.append(f"++{each.word}")
        elif each.value is not None:
            found.append(each.word)
    return found


def _ended_by_folder(number: int, job: Job) -> Ended | None:
    """Return how a run ended, from its folder; None if the folder has no result."""
    result = saved_result(job)
    if result is None or result.status is Status.RUNNING:
        return None
    return Ended(number=number, job=job, result=result, ran=True, seconds=result.seconds)


def _ended_without_result(number: int, job: Job) -> Ended:
    """Return the ending of a run whose process left no result."""
    result = finalize_result(job, lost_ending("its process ended and left no result"), 0.0)
    return Ended(number=number, job=job, result=result, ran=True)


@contextmanager
def _opened_launcher(conf: Conf, given: Sequence[ParsedOverride], folder: Path, task: _HydraTask) -> Iterator[Launcher]:
    """Yield the launcher that a command line chooses, instantiated by Hydra."""
    with hydra_opened(conf):
        config = _sweep_config(conf, given, folder)
        callbacks: Any = _NoCallbacks()
        context = HydraContext(GlobalHydra.instance().config_loader(), callbacks)
        yield Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)


def _sweep_config(conf: Conf, given: Sequence[ParsedOverride], folder: Path) -> DictConfig:
    """Return Hydra's config of a sweep, from the choices and the values under `hydra`."""
    # Some launchers store the config, and the storage of a study may have a password
    left_out = (SWEEP, SUBDIR, "hydra.mode", "hydra.sweeper.storage")
    fixed = [each for each in given if not each.swept and each.key not in left_out]
    words = [*choice_words(conf, fixed), f"hydra.sweep.dir={quote(user_paths.full(folder))}"]
    global_hydra = GlobalHydra.instance().hydra
    assert global_hydra is not None
    return global_hydra.compose_config(conf.primary, words, RunMode.MULTIRUN, with_log_configuration=False)


def through_hydra(words: Sequence[str], conf: Conf | None = None) -> int:
    """Have Hydra answer `--info` or shell completion; raises ConfigError if Hydra rejects it."""
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
