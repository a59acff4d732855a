"""Run one trial in its process: write its output to its log, and always write a result."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from runner.engine import interruption, processes
from runner.engine.saving.folder import Result
from runner.engine.saving.storage import convert_os_errors
from runner.errors import Locked, StorageError
from runner.printing import standard_error, standard_output
from runner.status import Ending, ending, ending_of_code, print_error
from runner.streams import redirect
from runner.sweeps.channel import Message
from runner.sweeps.outcome import LOG, finalize_result, folder_of
from runner.sweeps.owning import own_folder
from runner.tasks.job import Job
from runner.user_paths import full

# Runs the task of a job and returns its exit code
Start = Callable[[Job], int]


def load_start(message: Message) -> Start:
    """Return the function that runs the task of a job: `start` of the module that the sweep named."""
    start: Start = importlib.import_module(message["entry"]).start
    return start


def run_trial(message: Message, start: Start) -> int:
    """Run the trial in a message and return its exit code; no exception of the trial escapes."""
    job = job_of(message["job"])
    try:
        with own_folder(job) as held, held.lend():
            _redirect_output(folder_of(job))
            if message["memory"]:
                _limit_memory(message["memory"])
            ended, _ = run_here(job, start)
            _flush()
            return ended.exit_code
    except Locked as error:
        # The sweep tells the user
        return error.exit_code
    except StorageError as error:
        finalize_result(job, ending(error), 0.0)
        return error.exit_code


def run_here(job: Job, start: Start) -> tuple[Ending, Result]:
    """Run a job in this process; no exception of its task escapes.

    Args:
        job: The run.
        start: Runs its task.

    Returns:
        How the process of the run ended, and its result, which is also in its folder.

    """
    began = time.monotonic()
    try:
        ended = ending_of_code(start(job))
    except BaseException as error:
        ended = print_error(error)
    return ended, finalize_result(job, ended, time.monotonic() - began)


def isolate(parent: int) -> None:
    """Give this forked process the signal handlers of a new one and a process group, and end it with its parent."""
    interruption.forget_children()
    interruption.take_defaults(*interruption.STOPPING)
    interruption.ignore_repeats()
    os.setpgid(0, 0)
    processes.end_with_parent(parent)
    processes.adopt_orphans()


def job_of(job: Message) -> Job:
    """Return the job that plain values describe."""
    return Job(**{**job, "overrides": tuple(job["overrides"]), "folders": tuple(map(Path, job["folders"]))})


def message_of(job: Job) -> Message:
    """Return a job as plain values."""
    return {
        "config": job.config,
        "overrides": job.overrides,
        "folder_name": job.folder_name,
        "folder": job.folder,
        "hash8": job.hash8,
        "group_hash": job.group_hash,
        "notes": job.notes,
        "is_trial": job.is_trial,
        "search": job.search,
        "recipe": job.recipe,
        "allow_unused": job.allow_unused,
        "folders": [str(folder) for folder in job.folders],
    }


def _redirect_output(folder: Path) -> None:
    """Append all output of this process, native code's too, to the trial's log."""
    _flush()
    with convert_os_errors(folder / LOG):
        log = os.open(full(folder / LOG), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
    redirect(log)
    os.close(log)


def _flush() -> None:
    """Write out what this process has printed."""
    for stream in (standard_output(), standard_error()):
        stream.flush()


def _limit_memory(gigabytes: float) -> None:
    """Limit the memory of this process to this many gigabytes in addition to what it has mapped now."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    limit = pages * resource.getpagesize() + int(gigabytes * 1e9)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
