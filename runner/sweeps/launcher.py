"""The launcher protocol, the settings of runner's launcher, and the loop that runs known jobs."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from typing import Any, Protocol, get_type_hints

from runner.engine.interruption import Interrupted, collected
from runner.engine.saving.locking import holder
from runner.engine.world import cores
from runner.errors import unknown
from runner.printing import write_stderr
from runner.schema import NonNegativeInt, Positive, PositiveInt, check
from runner.sweeps.display import Display
from runner.sweeps.failures import raise_if_disk_full
from runner.sweeps.outcome import Ended, begin, finished_result, folder_of
from runner.sweeps.places import Places
from runner.sweeps.run_sizes import Size, estimated
from runner.sweeps.stop_rules import Stopper
from runner.tasks.job import Job

# A run with its number from `Launcher.submit`
Numbered = tuple[int, Job]
# Seconds between two checks of time limits and logs
PAUSE = 0.25


class Launcher(Protocol):
    """Runs checked configs: in runner's pool (`Pool`), by Hydra (`HydraLauncher`) or in this process (`InProcess`)."""

    def sizes(self, configs: Sequence[Mapping[str, Any]], trials: int) -> list[Size | None]:
        """Return the estimated sizes of runs on the disk before the first of so many trials, None for unknown ones."""

    def at_once(self) -> int:
        """Return how many runs may run at the same time."""

    def free(self) -> int:
        """Return how many more runs a search may submit now."""

    def submit(self, job: Job) -> int:
        """Take a run and return its number. A run that has a result in its folder is not run again."""

    def next_done(self, timeout: float | None = None) -> Ended | None:
        """Return a run that ended; None if there is none within the time (seconds), or none is left.

        Raises Interrupted if a signal ended the runs of a launcher that runs them in this process.
        """

    def stop_all(self) -> None:
        """Let the runs save themselves and end; forget those that have not begun."""

    def idle(self) -> bool:
        """Return True if no run waits, runs, or remains to be returned."""

    def loaded(self) -> bool:
        """Return True if runs can begin."""

    def running(self) -> Sequence[Job]:
        """Return the runs that can be watched now."""

    def waiting(self) -> int:
        """Return how many runs have not begun."""

    def close(self) -> None:
        """End all processes immediately."""

    def finish(self) -> None:
        """Say which runs go on after the sweep, and how to end them."""


class Queued:
    """The part that launchers share which run the waiting runs while `next_done` is called, and nothing in between."""

    def __init__(self) -> None:
        self._queue: deque[tuple[int, Job]] = deque()
        self._done: deque[Ended] = deque()
        self._numbers = itertools.count()
        self._said: set[str] = set()

    def sizes(self, configs: Sequence[Mapping[str, Any]], trials: int) -> list[Size | None]:
        """Return the sizes of runs."""
        return estimated(configs)

    def at_once(self) -> int:
        """Return how many runs may run at the same time: not more than there are cores."""
        return cores()

    def submit(self, job: Job) -> int:
        """Take a run; one that has a result in its folder is not run again."""
        number = next(self._numbers)
        if result := finished_result(job):
            self._done.append(Ended(number=number, job=job, result=result, ran=False))
        else:
            self._queue.append((number, job))
        return number

    def take(self, most: int | None) -> list[Numbered]:
        """Take runs that wait, but leave those that another process runs, such as one of a killed sweep.

        Those whose folders cannot be written have failed.
        """
        taken: list[Numbered] = []
        most = len(self._queue) if most is None else most
        for _ in range(len(self._queue) if most > 0 else 0):
            number, job = self._queue.popleft()
            if len(taken) < most and not (by := holder(folder_of(job))):
                if failed := begin(job):
                    self._done.append(Ended(number=number, job=job, result=failed, ran=True))
                else:
                    taken.append((number, job))
                continue
            self._queue.append((number, job))
            if len(taken) < most:
                self.say_once(f"waiting for {job.folder_name}, which {by} runs")
        return taken

    def say_once(self, line: str) -> None:
        """Print a line, unless it was printed before."""
        if line not in self._said:
            self._said.add(line)
            write_stderr(f"{line}\n")

    def stop_all(self) -> None:
        """Forget the runs that have not begun."""
        self._queue.clear()

    def idle(self) -> bool:
        """Return True if nothing is left."""
        return not self._queue and not self._done

    def loaded(self) -> bool:
        """Return True: there is nothing to wait for."""
        return True

    def running(self) -> list[Job]:
        """Return nothing: while runs compute, nobody asks."""
        return []

    def waiting(self) -> int:
        """Return how many runs have not begun."""
        return len(self._queue)

    def close(self) -> None:
        """Do nothing: no process lives between two calls."""

    def finish(self) -> None:
        """Do nothing: no run goes on."""


@dataclass(frozen=True, kw_only=True)
class LauncherSettings:
    """The checked `hydra.launcher.*` of runner's launcher; conf/hydra/launcher/runner.yaml holds the defaults."""

    workers: PositiveInt | None  # runs at the same time; null: one per core, or one per GPU
    threads: PositiveInt | None  # of each run; null: those of its config, 1 for auto
    timeout: Positive | None  # seconds that a run may take
    retries: NonNegativeInt  # attempts after a failed one
    memory: Positive | None  # gigabytes that a run may take

    def threads_of(self, job: Job) -> int:
        """Return the number of CPU threads of a run."""
        asked = self.threads or job.config["threads"]
        return 1 if asked == "auto" else int(asked)

    def on_cores(self, like: Job) -> int:
        """Return how many runs like this one compute at the same time on CPU cores."""
        return self.workers or max(1, cores() // self.threads_of(like))


def check_launcher_settings(values: Mapping[str, Any]) -> LauncherSettings:
    """Return the settings of runner's launcher; raises ConfigError for an unknown key or a wrong value."""
    kinds = get_type_hints(LauncherSettings, include_extras=True)
    for name in values:
        if name not in kinds:
            raise unknown(f"hydra.launcher.{name}", "key", name, kinds)
    named = [each.name for each in fields(LauncherSettings)]
    return LauncherSettings(**{name: check(f"hydra.launcher.{name}", values[name], kinds[name]) for name in named})


def run_all(
    jobs: Sequence[Job],
    launcher: Launcher,
    display: Display,
    ended: list[Ended] | None = None,
    stopper: Stopper | None = None,
) -> tuple[list[Ended], int]:
    """Run known jobs; the first signal lets the runs save themselves, a second one ends them immediately.

    Args:
        jobs: The runs.
        launcher: Runs them.
        display: Shows them.
        ended: Gets each run that ended, also if an error of the launcher ends the sweep.
        stopper: Says when no further run begins.

    Returns:
        How each job ended, in the given order (without those that did not begin), and the number of the signal that
        ended the sweep, 0 if none did.

    """
    ended = [] if ended is None else ended
    with closing(launcher), closing(display):
        # While data are looked at, a signal ends the command as everywhere
        settled = Places().settled(jobs)
        known, waiting = _split(settled) if stopper else (settled, deque[Job]())
        with collected() as signals:
            for job in known:
                launcher.submit(job)
            while len(signals) < 2:
                may_begin = not signals and len(ended) >= len(known)
                while waiting and may_begin and launcher.free() > 0 and not (stopper and stopper.reason()):
                    launcher.submit(waiting.popleft())
                if launcher.idle():
                    break
                if one := next_done(launcher, display, signals, more=len(waiting)):
                    ended.append(one)
                    if stopper:
                        stopper.run_ended(one.score, failed=not one.has_result)
    return sorted(ended, key=lambda each: each.number), signals[0] if signals else 0


def _split(jobs: Sequence[Job]) -> tuple[list[Job], deque[Job]]:
    """Return the jobs that have a result, which a rule that ends the sweep counts first, and the others."""
    known = [finished_result(job) is not None for job in jobs]
    return list(itertools.compress(jobs, known)), deque(itertools.compress(jobs, (not each for each in known)))


def next_done(launcher: Launcher, display: Display, signals: list[int], *, more: int = 0) -> Ended | None:
    """Return a run that ended, if one does within `PAUSE`; update the display, and stop all runs after a signal.

    `more` is the number of runs that the launcher will get later.
    """
    ended = None
    if signals:
        # One that came before the launcher began
        launcher.stop_all()
    try:
        if ended := launcher.next_done(PAUSE):
            display.trial_ended(ended)
            raise_if_disk_full(ended.result)
    except Interrupted as error:
        signals.append(error.exit_code - 128)
    display.refresh(launcher.running(), launcher.waiting() + more, loaded=launcher.loaded())
    if signals:
        launcher.stop_all()
    return ended
