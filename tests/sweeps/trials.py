"""Helpers of the sweep tests: command lines with failing components, jobs of trials, leftover processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

from running import ROOT, command

from runner.door.compose import compose_parts, compose_run, hydra_opened
from runner.door.jobs import trial_job
from runner.door.options import find_conf
from runner.door.overrides import read_overrides
from runner.sweeps.launcher import LauncherSettings

HERE = Path(__file__).parent
PLUGIN = ("plugins=[faulty]", "--config-dir", str(HERE / "conf"))
SMALL = ("model=mlp", "model.hidden=[8]", "augment=[]", "probe=[]")
PATHS = os.pathsep.join([str(ROOT), str(HERE)])


def sweep(*arguments: str, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a sweep of small runs to its end."""
    return command("-m", *SMALL, *arguments, cwd=cwd, **{"PYTHONPATH": PATHS, **changes})


class BackgroundSweep:
    """A sweep of small runs that runs in the background."""

    def __init__(self, *arguments: str, cwd: Path, before=None) -> None:
        """Start it; its process calls `before` first."""
        self.mark = uuid.uuid4().hex
        environment = {**os.environ, "PYTHONPATH": PATHS, "RUNNER_TEST_MARK": self.mark}
        words = [sys.executable, "-m", "runner", "-m", *SMALL, *arguments]
        self.process = subprocess.Popen(
            words,
            cwd=cwd,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=before,
        )

    def until(self, happened, seconds: float = 60) -> None:
        """Wait for something to become true."""
        deadline = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < deadline, "it did not happen"
            assert self.process.poll() is None, self.process.communicate()[0]
            time.sleep(0.02)

    def end(self, number: int, seconds: float = 30) -> tuple[int, str]:
        """Send a signal; return exit code and output."""
        self.process.send_signal(number)
        output, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, output

    def left(self, seconds: float = 8.0) -> list[int]:
        """Return the pids of its processes that are still alive after a while."""
        return surviving_processes(self.mark, seconds)


def surviving_processes(mark: str, seconds: float = 8.0) -> list[int]:
    """Return the pids of the processes that have a mark in their environment and do not end."""
    deadline = time.monotonic() + seconds
    while (found := marked_processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def marked_processes(mark: str) -> list[int]:
    """Return the pids of processes that were started with a mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def trial_folders(cwd: Path) -> dict[str, Path]:
    """Return the trials of the only sweep below a folder, by name."""
    return {path.parent.name: path.parent for path in cwd.glob("outputs/sweeps/*/*/result.json")}


def trial(folder: Path, *overrides: str):
    """Return the job of a trial."""
    conf = find_conf(str(HERE / "conf"))
    given = read_overrides(conf, [*SMALL, "plugins=[faulty]", *overrides])
    with hydra_opened(conf):
        config = compose_run(conf, compose_parts(conf, given), given)
    return trial_job(config, [each.word for each in given], folder)


def launcher_settings(**changes) -> LauncherSettings:
    """Return the launcher's settings."""
    return LauncherSettings(**{"workers": 2, "threads": 1, "timeout": None, "retries": 0, "memory": None, **changes})
