"""Runs for tests: jobs as the front door makes them, and real child processes that can be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import warmed

from runner import tasks
from runner.door.compose import compose_parts, compose_run, hydra_opened
from runner.door.jobs import single_job
from runner.door.options import find_conf
from runner.door.overrides import read_overrides
from runner.tasks.job import Job

ROOT = Path(__file__).parent.parent
RAISED = 99
MLP = ("model=mlp", "model.hidden=[16]", "log_every=5")


def job(*overrides: str) -> Job:
    """Return the job of a command line."""
    conf = find_conf()
    given = read_overrides(conf, list(overrides))
    with hydra_opened(conf):
        return single_job(compose_run(conf, compose_parts(conf, given), given), given)


def run_in_child(work) -> int:
    """Run a function in a forked child; return its exit code, or minus the signal's number.

    What it prints is thrown away, unless it raises: then that fails the test here.
    """
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            code = RAISED
            try:
                for stream in (1, 2):
                    os.dup2(output.fileno(), stream)
                sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
                code = work() or 0
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == RAISED:
            output.seek(0)
            raise AssertionError(output.read().decode())
    return code


def killed_in_step(step: int, work):
    """Return the job with a SIGKILL inside the update that would complete step `step`."""

    def run():
        from runner.engine.learner import Learner

        step_optimizer = Learner.step_optimizer

        def fatal(learner, loss):
            if learner.step + 1 == step:
                os.kill(os.getpid(), signal.SIGKILL)
            step_optimizer(learner, loss)

        Learner.step_optimizer = fatal
        return work()

    return run


def command(*arguments: str, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m runner` in a folder of its own, from this clone, in a forked process if that makes no difference.

    What tests the process itself asks for `process`.
    """
    environment = _environment(changes)
    if not warmed.can_fork(environment):
        return process(*arguments, cwd=cwd, **changes)
    return warmed.command(*arguments, cwd=cwd, environment=environment)


def process(*arguments: str, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m runner` in a folder of its own, from this clone, in a process that begins with Python."""
    return subprocess.run(
        [sys.executable, "-m", "runner", *arguments],
        cwd=cwd,
        env=_environment(changes),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _environment(changes: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **changes}


def result(folder: Path) -> dict:
    """Return the content of a run's result.json."""
    return json.loads((folder / "result.json").read_text())


def metrics(folder: Path) -> list[tuple[int, str, str]]:
    """Return (step, tag, digits) of metrics.jsonl in order, without times."""
    rows = [json.loads(line, parse_float=str) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        (row["step"], tag, str(value))
        for row in rows
        for tag, value in row.items()
        if tag != "step" and not tag.startswith("time/")
    ]


def events(folder: Path) -> list[tuple[int, str, bytes]]:
    """Return (step, tag, bytes) of every value in the event files, in order of the files' names."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in map(Event.FromString, RawEventFileLoader(str(path)).Load()):
            values = [value for value in event.summary.value if not value.tag.startswith(("time/", "_hparams_"))]
            found += [(event.step, value.tag, value.SerializeToString(deterministic=True)) for value in values]
    return found


def checkpoint_checksums(folder: Path) -> dict[str, str]:
    """Return the checksum of each file of the newest checkpoint, as its manifest has them."""
    newest = max((folder / "checkpoints").glob("*.json"))
    manifest = json.loads(newest.read_text())
    return {file["name"]: file["sha256"] for file in manifest["files"]}


def starter(folder, *words):
    """Return a function that runs the task of some words in a folder; of a key, the last word counts."""
    given = {word.partition("=")[0]: word for word in (*words, f"hydra.run.dir={folder}")}
    return lambda: tasks.start(job(*given.values()))
