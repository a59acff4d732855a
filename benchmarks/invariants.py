"""Cost of the invariants of the first steps: whole runs of 500 steps with them and without, in turns.

`python -m benchmarks.invariants [rounds]` trains an MLP and a small ResNet on the digits in this process, from the
config to the result, in pairs whose order alternates. It counts the CPU seconds of the process, which other processes
of a busy machine change little. The checks take the same time in a run of any length, so pairs of short runs, of which
there are four times as many, show it more precisely.
"""

from __future__ import annotations

import gc
import io
import statistics
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch

from benchmarks.rounds import Pairs, report, spread
from runner.door.compose import compose_parts, compose_run, hydra_opened
from runner.door.jobs import single_job
from runner.door.options import find_conf
from runner.door.overrides import read_overrides
from runner.tasks import start

STEPS = 500
SHORT = 6
_WORDS = ("figures=never", "predictions=never", "test=never", "threads=1", "device=cpu")
NETWORKS = {"mlp": ("model=mlp",), "small resnet": ("model=resnet", "model.width=8")}


def seconds(folder: Path, *words: str) -> float:
    """Return the CPU seconds of one run."""
    conf = find_conf()
    given = read_overrides(conf, [*_WORDS, *words, f"hydra.run.dir={folder}"])
    with hydra_opened(conf):
        job = single_job(compose_run(conf, compose_parts(conf, given), given), given)
    gc.collect()
    begun = time.process_time()
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        code = start(job)
    assert code == 0
    return time.process_time() - begun


def runs(network: str, rounds: int, steps: int, folder: Path) -> Pairs:
    """Return the seconds of each pair of runs (with the invariants, without); the first pair is a warm-up."""
    pairs, words = [], (*NETWORKS[network], f"steps={steps}")
    for number in range(1 + rounds):
        found = {}
        for value in ("auto", "never") if number % 2 else ("never", "auto"):
            found[value] = seconds(folder / f"{number}{value}", *words, f"invariants={value}")
        pairs.append((found["auto"], found["never"]))
    return pairs[1:]


def main(rounds: int = 7) -> None:
    """Print the medians and the ratio for each network."""
    torch.set_num_threads(1)
    for network in NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            pairs = runs(network, rounds, STEPS, Path(folder))
        report(f"{STEPS} steps of a {network} with the invariants, and without", pairs, unit="ms", scale=1e3)
        with tempfile.TemporaryDirectory() as folder:
            short = runs(network, 4 * rounds, SHORT, Path(folder))
        extra = spread([1e3 * (ours - other) for ours, other in short])
        share = extra.median / statistics.median(1e3 * other for _, other in pairs)
        print(
            f"extra time of a run: {extra.median:.1f} ms (quartiles {extra.quartile1:.1f} to {extra.quartile3:.1f}, "
            f"n={extra.n}), which is {share:.2%} of {STEPS} steps"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
