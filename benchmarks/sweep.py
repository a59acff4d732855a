"""Trials per minute of a sweep, against one process per trial and against Hydra's basic launcher; the cost of a trial.

`python -m benchmarks.sweep [--quick]`. A trial is a 560-step MLP on digits. All run the same command line, so they log,
validate and save the same; what differs is what starts them. The fixed cost is that of trials that do nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.rounds import Pairs, report
from runner.registry import register

ROOT = Path(__file__).parent.parent
TRIAL = ("model=mlp", "model.hidden=[128,128]", "augment=[]", "probe=[]", "norm=none", "steps=560", "figures=never")
BASIC = "hydra/launcher=basic"


@register("task", name="idle")
def idle() -> int:
    """Do nothing: what is left is what a trial costs before its first step and after its last."""
    return 0


def swept(trials: int, *words: str, trial: Sequence[str] = TRIAL) -> float:
    """Return the seconds of a sweep of so many trials, from the command to its end."""
    return seconds("-m", *trial, f"seed=range({trials})", *words)


def by_themselves(trials: int, *words: str) -> float:
    """Return the seconds of the same trials, each by a command of its own, one after the other."""
    return sum(seconds(*TRIAL, "test=never", f"seed={seed}", *words) for seed in range(trials))


def against_processes(rounds: int, trials: int, few: int) -> Pairs:
    """Return the seconds per trial of each round: ours, one process each (of which a few are timed)."""
    return [(swept(trials) / trials, by_themselves(few) / few) for _ in range(rounds)]


def against_basic(rounds: int, trials: int) -> Pairs:
    """Return the seconds per trial of each round: ours, Hydra's basic launcher in one process."""
    return [(swept(trials) / trials, swept(trials, BASIC) / trials) for _ in range(rounds)]


def fixed_cost(rounds: int, few: int, many: int, *words: str) -> list[float]:
    """Return the milliseconds that each trial more costs a sweep whose trials do nothing, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "task").mkdir()
        (Path(folder) / "task" / "idle.yaml").write_text("name: idle\n")
        plugin = ("plugins=[benchmarks.sweep]", f"--config-dir={folder}", "hydra.launcher.workers=1", *words)
        trial = ("task=idle", "model=mlp")

        def once(trials: int) -> float:
            return swept(trials, *plugin, trial=trial)

        return [(once(many) - once(few)) / (many - few) * 1000 for _ in range(rounds)]


def seconds(*words: str) -> float:
    """Return how long a command takes in an empty folder; raises CalledProcessError if it fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = [sys.executable, "-m", "runner", *words]
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, timeout=3600)
        return time.perf_counter() - began


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, few trials")
    quick = parser.parse_args().quick
    rounds, trials, few = (1, 8, 1) if quick else (5, 32, 2)
    report("a trial, against one process each", against_processes(rounds, trials, few), unit="ms", scale=1000)
    report("a trial, against Hydra's basic launcher", against_basic(rounds, trials), unit="ms", scale=1000)
    costs = fixed_cost(rounds, 20, 60 if quick else 220)
    print(f"fixed cost of a trial: {min(costs):.1f} to {max(costs):.1f} ms (n={len(costs)}), target 10")


if __name__ == "__main__":
    main()
