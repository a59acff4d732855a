"""States of jobs in Slurm, by `squeue`, and by `sacct` for jobs that `squeue` has forgotten."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from runner.status import Ending, Status

# States of a job that runs, or may run (again)
_LIVES = {
    "PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED",
    "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "SPECIAL_EXIT", "RESV_DEL_HOLD",
}  # fmt: skip
_TIME_LIMIT = "hydra.launcher.timeout_min"
# How Slurm ended a job: status, exit code, and the words for it
_ENDINGS = {
    "TIMEOUT": (Status.TIMEOUT, 143, f"took longer than its job may ({_TIME_LIMIT})"),
    "DEADLINE": (Status.TIMEOUT, 143, "its job reached Slurm's deadline"),
    "CANCELLED": (Status.INTERRUPTED, 143, "its job was cancelled (scancel)"),
    "PREEMPTED": (Status.INTERRUPTED, 143, "its job was preempted"),
    "OUT_OF_MEMORY": (Status.FAILED, 137, "its job ran out of memory (hydra.launcher.mem_gb)"),
    "NODE_FAIL": (Status.FAILED, 137, "the node of its job failed"),
    "BOOT_FAIL": (Status.FAILED, 137, "the node of its job did not start"),
}
# Seconds that a command of Slurm may take
_PATIENCE = 60.0


@dataclass(frozen=True)
class State:
    """The state of a job, in Slurm's words."""

    word: str
    reason: str = ""

    @property
    def lives(self) -> bool:
        """True if the job runs, or may run (again)."""
        return self.word in _LIVES

    def ending(self, job: str) -> Ending | None:
        """Return how Slurm ended the job; None if it ended by itself."""
        if self.word not in _ENDINGS:
            return None
        status, code, words = _ENDINGS[self.word]
        return Ending(status, code, f"{words}: Slurm job {job}")

    def __str__(self) -> str:
        return f"{self.word}, {self.reason}" if self.reason not in ("", "None") else self.word


def states() -> dict[str, State] | None:
    """Return the states of this user's jobs by id (`12`, of an array `12_3`), None if Slurm does not answer."""
    lines = _lines(["squeue", "-h", "-r", "-t", "all", "-u", str(os.getuid()), "-o", "%i|%T|%r"])
    if lines is None:
        return None
    parts = [line.split("|", 2) for line in lines if line.count("|") >= 2]
    return {job.strip(): State(word.strip(), reason.strip()) for job, word, reason in parts}


def past_state(job: str) -> State | None:
    """Return the state of a job that `squeue` has forgotten, None if Slurm keeps no accounts of it."""
    lines = _lines(["sacct", "-n", "-X", "-P", "-j", job, "-o", "State"])
    # "CANCELLED by 1000"
    return State(lines[-1].split(" ")[0]) if lines else None


def cancel_command(jobs: Iterable[str]) -> str:
    """Return the command that cancels jobs. An array is cancelled as a whole: its other jobs have ended."""
    numbers = sorted({int(job.split("_")[0]) for job in jobs})
    return " ".join(["scancel", *map(str, numbers)])


def _lines(command: list[str]) -> list[str] | None:
    """Return the lines that a command of Slurm prints, None if it fails."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE, check=False,
            # The terminal sends Ctrl-C to all processes of a session
            start_new_session=True,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return [line for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else None
