"""Runs in child processes that get signals at any moment.

`python tests/interrupting.py [trials]` interrupts so many, goes on with each, and prints what was wrong and how long
the slowest took to stop.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import kills
from running import ROOT, events, metrics, result

from runner.engine.saving import checkpoint
from runner.tasks import start

TERM, INT = signal.SIGTERM, signal.SIGINT
HINT = "interrupted; resume with: python -m runner resume="
MOMENT = 0.002  # seconds between two looks
STEPS = 400
LONG = ("model=cnn", "model.channels=[8,16]", f"steps={STEPS}", "validate_every=11steps", "checkpoint_every=7steps")
LONG = (*LONG, "log_every=5", "figures=never", "name=run", "augment=[crop]", "regularizer=[dropout]")


class Child:
    """`python -m runner` in a folder, in a process group of its own."""

    def __init__(self, cwd: Path, *words: str, **changes: str) -> None:
        strict = "error,ignore::ResourceWarning"  # a signal may come while Python itself reads a module's file
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": strict, "OMP_NUM_THREADS": "1"}
        self._before = children_cpu_seconds()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "runner", *words],
            cwd=cwd,
            env=environment | changes,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=in_own_process_group,
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error: object) -> None:
        """End whatever a failed test has left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def wait_for(self, ready: Callable[[], object]) -> None:
        """Wait until something is true of the process."""
        until = time.monotonic() + 200
        while not ready():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < until
            time.sleep(MOMENT)

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send it a signal, or all that it has started too."""
        self._spent, self._signalled = self.spent(), time.monotonic()
        (os.killpg if group else os.kill)(self.process.pid, number)

    def spent(self) -> float:
        """Return the seconds of computing that the process has had."""
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> tuple[int, list[str], StopTimes]:
        """Wait; return the exit code as a shell has it, the lines on stderr, and how long it took from the signal.

        Fails if anything that it started is still there.
        """
        _, printed = self.process.communicate(timeout=200)
        took = StopTimes(time.monotonic() - self._signalled, children_cpu_seconds() - self._before - self._spent)
        assert not group_is_alive(self.process.pid)
        code = self.process.returncode
        return (code if code >= 0 else 128 - code), printed.splitlines(), took


@dataclass(frozen=True)
class StopTimes:
    """How long a process took to end: wall clock, and CPU time, which other load does not change."""

    seconds: float
    computing: float


def children_cpu_seconds() -> float:
    """Return the seconds of computing of all children that have ended, theirs included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def in_own_process_group() -> None:
    """Give the child its own process group and default SIGINT, which shells make background jobs ignore."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def group_is_alive(group: int, patience: float = 20.0) -> bool:
    """Return True if a process of a group is still alive shortly after its first one ended."""
    until = time.monotonic() + patience  # a fork server and a resource tracker end once they see that their parent has
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.02)
    return True


def last_logged_step(folder: Path) -> int:
    """Return the last step that a run has logged."""
    try:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return json.loads(lines[-1])["step"] if lines else 0
    except (FileNotFoundError, ValueError):
        return 0


@dataclass(frozen=True)
class Reference:
    """A run without an interruption, and the CPU seconds before its folder existed."""

    folder: Path
    start: float


def whole(cwd: Path) -> Reference:
    """Make the run without an interruption."""
    folder = cwd / "outputs" / "run"
    with Child(cwd, *LONG) as child:
        child.wait_for((folder / "config.yaml").exists)
        spent = child.spent()
        _, printed = child.process.communicate(timeout=300)
        assert child.process.returncode == 0, printed
    return Reference(folder, spent)


def interrupted(one: Reference, cwd: Path, number: int, share: float, *, group: bool = False) -> StopTimes:
    """Send a signal to a run at a share of its steps, or before them (negative: of its start); go on with it.

    Fails unless it stopped saved, printed so, and ended as if nothing had been; returns how long it took to stop.
    """
    folder = cwd / "outputs" / "run"
    with Child(cwd, *LONG) as child:
        if share < 0:  # while Python, torch and the data are loaded
            child.wait_for(lambda: child.spent() >= -share * one.start)
        else:
            child.wait_for(lambda: last_logged_step(folder) >= share * STEPS)
        child.signal(number, group=group)
        code, printed, took = child.end()
    assert code == 128 + number, printed
    assert not any("Traceback" in line for line in printed), printed
    if not (folder / "config.yaml").exists():
        assert not (folder / "checkpoints").exists()
        return took
    assert printed[-1] == f"{HINT}outputs/run", printed
    found, saved = result(folder), checkpoint.load(folder)
    assert (found["status"], found["exit"]) == ("interrupted", code), found
    assert found["steps"] == (saved.step if saved else 0), found
    assert start(kills.job(f"resume={folder}")) == 0
    assert differences(one.folder, folder) == ""
    return took


def differences(one: Path, other: Path) -> str:
    """Return what differs between the ends of two runs; an interruption may leave other checkpoints behind it."""
    looks = {
        "state": newest_checkpoint,
        "metrics.jsonl": metrics,
        "event files": events,
        "times": kills.timed,
        "rows": logged_steps,
    }
    looks["scores"] = lambda folder: [result(folder)[key] for key in ("status", "exit", "steps", "epochs", "scores")]
    for name, look in looks.items():
        if (wanted := look(one)) != (found := look(other)):
            return f"{name} differ: {wanted!s:.300} / {found!s:.300}"
    return ""


def newest_checkpoint(folder: Path) -> object:
    """Return all of the newest checkpoint, as something that compares bit for bit."""
    snapshot = checkpoint.load(folder)
    assert snapshot is not None
    assert not snapshot.notes
    return kills.as_bytes({"weights": snapshot.weights, "state": snapshot.state})


def logged_steps(folder: Path) -> list[int]:
    """Return the step of each line of metrics.jsonl."""
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def trial(one: Reference, cwd: Path, index: int) -> StopTimes:
    """Interrupt a run at a moment that follows from a number: half by SIGTERM, a quarter as it starts."""
    draw = random.Random(index)
    share = draw.uniform(-1.0, 0) if index % 4 == 0 else draw.uniform(0, 0.97)
    return interrupted(one, cwd, (TERM, INT)[index % 2], share, group=index % 3 == 0)


def silently(work: Callable[..., StopTimes], *arguments: object) -> StopTimes:
    """Call a function without its output."""
    with Path(os.devnull).open("w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
        return work(*arguments)


def main(count: int = 20) -> int:
    """Make trials, print what was wrong, and return 1 if anything was."""
    took, wrong = [], 0
    with tempfile.TemporaryDirectory() as name:
        one = whole(Path(name))
        for index in range(count):
            cwd = Path(name) / str(index)
            cwd.mkdir()
            try:
                took.append(silently(trial, one, cwd, index))
            except AssertionError as error:
                wrong += 1
                print(f"trial {index}: {error}")
    print(f"{count - wrong} of {count} stopped, saved, and ended as if nothing had been")
    print(f"slowest: {max(t.seconds for t in took):.2f} s, {max(t.computing for t in took):.2f} s of computing")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
