"""Seconds and memory of a sweep's start and of `task=compare`, by the number of finished trials.

`python -m benchmarks.growth [--trials 100,1000,3000,10000]`. A sweep over rates and seeds runs some real trials;
the folders of the others are copies of one, with their own config, overrides, identity and scores. Then the same
sweep command is given again, which finds every trial finished, and its trials are compared.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runner import plain_yaml
from runner.door.arguments import read_arguments
from runner.door.command import checked_command
from runner.hashes import content_of
from runner.tasks.job import Job

ROOT = Path(__file__).resolve().parent.parent
_RATES = 20
_TRIAL = ("model=mlp", "model.hidden=[8]", "augment=[]", "probe=[]", "steps=40", "figures=never", "device=cpu")
_FOLDER = Path("outputs/sweeps/growth")
# Bounds at 10,000 trials: seconds of the start and of the comparison, bytes of the comparison
BOUNDS = {"start": 10.0, "compare": 60.0, "memory": 2e9}


def words_of(trials: int) -> list[str]:
    """Return the words of a sweep of about so many trials, the first ones those of a smaller sweep."""
    rates = ",".join(f"{0.001 * 1.3**step:.7f}" for step in range(_RATES))
    seeds = f"range(0,{max(2, math.ceil(trials / _RATES))})"
    return ["-m", *_TRIAL, f"optim.lr={rates}", f"seed={seeds}", "sweep=growth", "keep=none"]


def fabricate(trials: int, folder: Path) -> int:
    """Fill a sweep's folder below `folder` with finished trials; return how many there are."""
    run(words_of(1), folder)
    here = Path.cwd()
    os.chdir(folder)
    try:
        command = checked_command(read_arguments(words_of(trials)))
        assert command.sweep is not None
        jobs = command.sweep.jobs
        like = Path(str(jobs[0].folder))
        draw = random.Random(0)
        for job in jobs:
            if not Path(str(job.folder)).exists():
                _copy(like, job, draw)
        return len(jobs)
    finally:
        os.chdir(here)


def _copy(like: Path, job: Job, draw: random.Random) -> None:
    """Make the folder of a finished trial from that of another one."""
    folder = Path(str(job.folder))
    shutil.copytree(like, folder)
    (folder / "config.yaml").write_bytes(plain_yaml.dump(job.config))
    (folder / "overrides.yaml").write_bytes(plain_yaml.dump(list(job.overrides)))
    environment = json.loads((folder / "environment.json").read_text())
    environment["config"] = content_of(job.config)
    environment["overrides"] = list(job.overrides)
    (folder / "environment.json").write_text(json.dumps(environment, indent=1))
    shift = draw.gauss(0, 0.02)
    path, metrics = folder / "result.json", folder / "metrics.jsonl"
    result = json.loads(path.read_text())
    for split in result["scores"].values():
        for scores in split.values():
            scores["accuracy"] = _shifted(scores["accuracy"], shift)
    path.write_text(json.dumps(result, indent=1))
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    for line in lines:
        for key in line:
            if key.endswith("accuracy"):
                line[key] = _shifted(line[key], shift)
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _shifted(value: float, by: float) -> float:
    """Return an accuracy moved by a difference."""
    return min(max(value + by, 0.0), 1.0)


def run(words: Sequence[str], folder: Path) -> dict[str, Any]:
    """Run a command of runner in a folder; return its seconds, its largest memory (bytes), and what it printed."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    log = folder / "growth.log"
    began = time.monotonic()
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "runner", *words],
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": paths},
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    text = log.read_text()
    if process.returncode:
        raise SystemExit(f"python -m runner {' '.join(words)[:200]}: exit {process.returncode}\n{text[-2000:]}")
    return {"seconds": time.monotonic() - began, "memory": usage.ru_maxrss * 1024, "text": text}


def measure(trials: int, folder: Path) -> dict[str, Any]:
    """Return the seconds and the memory of both commands on about so many finished trials."""
    count = fabricate(trials, folder)
    again = run(words_of(trials), folder)
    assert again["text"].count("already done") == count, again["text"][-2000:]
    compared = run(["task=compare", f"runs={_FOLDER}"], folder)
    return {"trials": count, "start": again, "compare": compared}


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print a row for each number of trials, and return 1 if a bound is missed at 10,000."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", default="100,1000,3000,10000", help="numbers of trials, ascending")
    given = parser.parse_args(words)
    missed = False
    with tempfile.TemporaryDirectory() as name:
        for trials in map(int, given.trials.split(",")):
            found = measure(trials, Path(name))
            start, compared = found["start"], found["compare"]
            print(
                f"{found['trials']:>6} trials: start {start['seconds']:.1f} s, {start['memory'] / 1e6:.0f} MB; "
                f"compare {compared['seconds']:.1f} s, {compared['memory'] / 1e6:.0f} MB",
                flush=True,
            )
            over = start["seconds"] > BOUNDS["start"] or compared["seconds"] > BOUNDS["compare"]
            missed |= over or compared["memory"] > BOUNDS["memory"]
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
