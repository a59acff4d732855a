"""Runs in real processes, and signals to them at any moment."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from running import ROOT

MOMENT = 0.002  # seconds between two looks


class Child:
    """`python -m runner` in a folder, in a process group of its own."""

    def __init__(self, cwd: Path, *words: str, **changes: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "runner", *words],
            cwd=cwd,
            env=environment | changes,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=own_group,
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error: object) -> None:
        """End whatever a failed test has left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def signal_when(self, ready: Callable[[], object], number: int, *, group: bool = False) -> None:
        """Send a signal once something is true of the process, or to all that it has started too."""
        until = time.monotonic() + 100
        while not ready():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < until
            time.sleep(MOMENT)
        self.signalled = time.monotonic()
        (os.killpg if group else os.kill)(self.process.pid, number)

    def end(self) -> tuple[int, list[str], float]:
        """Wait; return the exit code as a shell has it, the lines on stderr, and the seconds since the signal.

        Fails if anything that it started is still there.
        """
        _, said = self.process.communicate(timeout=100)
        seconds = time.monotonic() - self.signalled
        code = self.process.returncode
        assert not group_is_alive(self.process.pid)
        return (code if code >= 0 else 128 - code), said.splitlines(), seconds


def own_group() -> None:
    """Make the child a group, which hears SIGINT: shells have their jobs in the background ignore it."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def group_is_alive(group: int, patience: float = 10.0) -> bool:
    """Tell whether a process of a group is left, a moment after its first one ended."""
    until = time.monotonic() + patience  # a fork server and a resource tracker end once they see that their parent has
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.02)
    return True


def logged(folder: Path) -> int:
    """Return the last step that a run has written down."""
    try:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return json.loads(lines[-1])["step"] if lines else 0
    except (FileNotFoundError, ValueError):
        return 0
