"""Quality of hyperparameter search: the validation loss of what each sampler chose, at equal numbers of trainings.

`python benchmarks/search.py [--points 40] [--repetitions 5] [--samplers tpe,qmc,refine] [--workers 2]` prints a
Markdown table, with random search for comparison. It searches four knobs of an MLP on digits, three epochs per run.
Each repetition has another seed of the sampler. `refine` uses some of its trainings for further seeds of its best
points and for fresh seeds. What a sampler chose is trained again with three fresh seeds, the same for all: the loss
that it was chosen by is too good. It takes about fifteen minutes on two cores.
"""

from __future__ import annotations

import argparse
import csv
import json
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
    fresh: dict[str, list[float]] = {name: [] for name in samplers}
    found: dict[str, list[list[float]]] = {name: [] for name in samplers}
    began = time.time()
    with tempfile.TemporaryDirectory() as place:
        for seed in range(asked.repetitions):
            for name in samplers:  # in turns
                losses = search(Path(place), name, seed, asked)
                found[name].append([min(losses[:mark]) for mark in marks])
                fresh[name].append(fresh_loss(Path(place), name, seed, asked))
                words = f"best {found[name][-1][-1]:.4f}, fresh seeds {fresh[name][-1]:.4f}"
                print(f"  {name} {seed}: {words}", file=sys.stderr, flush=True)
    print(f"{asked.repetitions} searches each, {asked.workers} workers, {platform.processor() or platform.machine()},")
    print(
        f"{time.time() - began:.0f} s in all. Best val/loss: median (smallest to largest); "
        "better: repetitions whose loss on fresh seeds beats that of random search"
    )
    print()
    print("| sampler | " + " | ".join(f"{mark} points" for mark in marks) + " | fresh seeds | better |")
    print("|---" * (len(marks) + 3) + "|")
    for name, rows in found.items():
        cells = [spread([row[index] for row in rows]) for index in range(len(marks))]
        cells.append(spread(fresh[name]))
        wins = sum(ours < theirs for ours, theirs in zip(fresh[name], fresh["random"], strict=True))
        print(f"| {name} | " + " | ".join(cells) + f" | {'' if name == 'random' else f'{wins} of {len(rows)}'} |")


def arguments() -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=40)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--samplers", default="tpe,qmc,refine")
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()


def search(place: Path, sampler: str, seed: int, asked: argparse.Namespace) -> list[float]:
    """Return the loss of each point in the order of sampling; infinite if it has none."""
    knobs = ["hydra/sweeper=optuna", f"hydra/sweeper/sampler={sampler}", f"hydra.sweeper.sampler.seed={seed}"]
    if sampler == "refine":
        knobs = ["hydra/sweeper=refine", f"hydra.sweeper.sampler_seed={1000 * seed}"]
    knobs.append(f"hydra.sweeper.n_trials={asked.points}")
    run_command(place, ["-m", *knobs, *_SPACE, *_RUN, f"sweep={sampler}-{seed}"], asked)
    rows = sorted(ranking(place, sampler, seed), key=lambda row: int(row["trial"]))
    # Points that were tried with several seeds have their mean
    losses = [float(row["val/loss"] or "inf") for row in rows]
    return losses or [float("inf")]


def ranking(place: Path, sampler: str, seed: int) -> list[dict[str, str]]:
    """Return the points of a search, the chosen one first."""
    with (place / "outputs/sweeps" / f"{sampler}-{seed}" / "ranking.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def fresh_loss(place: Path, sampler: str, seed: int, asked: argparse.Namespace) -> float:
    """Return the mean loss of the point that a search chose, with seeds that no search uses."""
    chosen = ranking(place, sampler, seed)[0]
    words = [f"{key}={chosen[key]}" for key in (word.partition("=")[0] for word in _SPACE)]
    name = f"fresh-{sampler}-{seed}"
    run_command(place, ["-m", *words, *_RUN, "seed=100,101,102", f"sweep={name}"], asked)
    results = (place / "outputs/sweeps" / name).glob("*/result.json")
    return statistics.fmean(json.loads(path.read_text())["scores"]["val"]["best"]["loss"] for path in results)


def run_command(place: Path, words: list[str], asked: argparse.Namespace) -> None:
    """Run a command; end with what it printed if it fails."""
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", "runner", *words, f"hydra.launcher.workers={asked.workers}"]
    done = subprocess.run(program, cwd=place, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


def spread(values: list[float]) -> str:
    """Return median and range as text."""
    return f"{statistics.median(values):.4f} ({min(values):.4f} to {max(values):.4f})"


if __name__ == "__main__":
    main()
