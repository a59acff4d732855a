"""Quality of hyperparameter search: the best validation loss of each sampler after 10, 20 and 40 points.

`python benchmarks/search.py [--points 40] [--repetitions 5] [--samplers tpe,qmc,gp] [--workers 2]` prints a Markdown
table, with random search for comparison. It searches four knobs of an MLP on digits, three epochs per run. Each
repetition has another seed of the sampler; all runs have the same seed. It takes about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_SPACE = (
    "optim.lr=tag(log,interval(1e-4,1))",
    "optim.weight_decay=tag(log,interval(1e-6,1e-1))",
    "optim.momentum=interval(0.5,0.99)",
    "data.batch_size=tag(log,int(interval(16,256)))",
)
_RUN = (
    "model=mlp",
    "model.hidden=[32]",
    "norm=none",
    "init.head=null",
    "augment=[]",
    "probe=[]",
    "epochs=3",
    "monitor=val/loss",
    "device=cpu",
)


def main() -> None:
    """Run the searches and print the table."""
    asked = arguments()
    samplers = ["random", *asked.samplers.split(",")]
    marks = sorted({max(1, asked.points // 4), max(1, asked.points // 2), asked.points})
    found: dict[str, list[list[float]]] = {name: [] for name in samplers}
    began = time.time()
    with tempfile.TemporaryDirectory() as place:
        for seed in range(asked.repetitions):
            for name in samplers:  # in turns
                losses = search(Path(place), name, seed, asked)
                found[name].append([min(losses[:mark]) for mark in marks])
                print(f"  {name} {seed}: best {found[name][-1][-1]:.4f}", file=sys.stderr, flush=True)
    print(f"{asked.repetitions} searches each, {asked.workers} workers, {platform.processor() or platform.machine()},")
    print(
        f"{time.time() - began:.0f} s in all. Best val/loss: median (smallest to largest); "
        "better: seeds that beat random search"
    )
    print()
    print("| sampler | " + " | ".join(f"{mark} points" for mark in marks) + " | better |")
    print("|---" * (len(marks) + 2) + "|")
    for name, rows in found.items():
        cells = [spread([row[index] for row in rows]) for index in range(len(marks))]
        wins = sum(ours[-1] < theirs[-1] for ours, theirs in zip(rows, found["random"], strict=True))
        print(f"| {name} | " + " | ".join(cells) + f" | {'' if name == 'random' else f'{wins} of {len(rows)}'} |")


def arguments() -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=40)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--samplers", default="tpe,qmc")
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()


def search(place: Path, sampler: str, seed: int, asked: argparse.Namespace) -> list[float]:
    """Return the loss of each point in the order of sampling; infinite if it has none."""
    knobs = [f"hydra/sweeper/sampler={sampler}", f"hydra.sweeper.sampler.seed={seed}"]
    knobs += [f"hydra.sweeper.n_trials={asked.points}", f"hydra.launcher.workers={asked.workers}"]
    words = ["-m", "hydra/sweeper=optuna", *knobs, *_SPACE, *_RUN, f"sweep={sampler}-{seed}"]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "runner", *words], cwd=place, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    with (place / "outputs/sweeps" / f"{sampler}-{seed}" / "ranking.csv").open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["trial"]))
    return [float(row["val/loss"] or "inf") for row in rows]


def spread(values: list[float]) -> str:
    """Return median and range as text."""
    return f"{statistics.median(values):.4f} ({min(values):.4f} to {max(values):.4f})"


if __name__ == "__main__":
    main()
