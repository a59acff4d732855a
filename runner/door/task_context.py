"""The functions that a task gets by parameter name: `vary` makes checked configs, `launch` runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.registry import MAIN
from runner.tasks.job import Config, Job, LaunchedRun

# The module whose `start` runs a trial's task in the trial's process
ENTRY = __name__


def start(job: Job) -> int:
    """Run the task of a trial in this process, including all runs that it launches, one after the other."""
    return start_task(job, settings=lambda: None)


def start_task(job: Job, *, settings: Callable[[], Any]) -> int:
    """Run a job's task and return its exit code.

    Args:
        job: The run as asked for.
        settings: Gives the `LauncherSettings` of the runs that the task launches, None to run them in this process.
            A call, since most tasks launch nothing.

    """
    from runner import tasks

    return tasks.start(job, vary=_Vary(job.folders, job.recipe), launch=_Launch(job, settings))


@dataclass(frozen=True)
class _Vary:
    """The `vary` of a task; see `runner.tasks.job.Vary`."""

    folders: tuple[Path, ...]
    recipe: str | None = None

    def __call__(self, config: Config, overrides: Sequence[str] | Mapping[str, Any]) -> Config:
        """Return a checked config with overrides applied."""
        from runner.door.options import find_conf
        from runner.door.variants import vary

        return vary(find_conf(more=self.folders[1:]), config, overrides, self.recipe)


@dataclass(frozen=True)
class _Launch:
    """The `launch` of a task; see `runner.tasks.job.Launch`."""

    job: Job
    settings: Callable[[], Any]

    def __call__(self, variants: Sequence[Config], folder: Path) -> list[Any]:
        """Run checked configs and return their results."""
        from runner.door.jobs import variant_jobs
        from runner.engine.saving.storage import make_folders
        from runner.printing import write_stderr
        from runner.sweeps.disk_use import check_space

        jobs = variant_jobs(variants, folder, self.job)
        different = list({job.folder: job for job in jobs}.values())
        with closing(self._launcher(different)) as launcher:
            check_space(different, launcher, folder, write_stderr)
            # Here, because this process holds the lock of the folder above
            make_folders(folder)
            return self._run_all(jobs, different, launcher)

    def _run_all(self, jobs: Sequence[Job], different: Sequence[Job], launcher: Any) -> list[Any]:
        """Run different jobs, and return the results of all."""
        from runner.engine.interruption import Interrupted
        from runner.printing import standard_error
        from runner.sweeps.display import make_display, show_reasons
        from runner.sweeps.failures import raise_if_failed
        from runner.sweeps.launcher import run_all
        from runner.sweeps.outcome import folder_of
        from runner.sweeps.swept import swept_keys

        display = make_display(len(different), standard_error(), swept=swept_keys(different))
        ended, signal = run_all(different, launcher, display)
        if signal:
            raise Interrupted(signal)
        show_reasons([each for each in ended if not each.has_result])
        raise_if_failed(ended, len(different), "runs")
        # A run on other data than the one in its folder ended in another folder
        results = {
            job.folder: LaunchedRun(**vars(each.result), folder=folder_of(each.job))
            for job, each in zip(different, ended, strict=True)
        }
        return [results[job.folder] for job in jobs]

    def _launcher(self, jobs: Sequence[Job]) -> Any:
        from runner.sweeps.in_process import InProcess
        from runner.sweeps.pool import Pool

        # Another process cannot import what a notebook defines
        several = len(jobs) > 1 and MAIN not in self.job.config["plugins"]
        settings = self.settings() if several else None
        return Pool(settings, like=jobs[0], entry=ENTRY) if settings else InProcess(start)
