"""What the probes cost a step: update ratio, gradient norm and weight norm of every layer, each 50 steps.

`python -m benchmarks.probes [rounds] [probe ...]` has a run step with those probes, or the ones named, and without any,
by turns, for the MLP and the small CNN on the CPU, and for ResNet-18 where there is a GPU. A look is seldom and short
beside what a machine that others use does to 50 steps. So each step is timed: what a look costs is how much longer its
step and the next few take than the others of its turn do, less what that is without probes (a look at the log falls on
the same step); and its share of the log's flush.
"""

from __future__ import annotations

import gc
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmarks.experiments import CNN, MLP, RESNET
from benchmarks.rounds import Pairs, report
from benchmarks.switched import Run, Switch, flush
from runner.assemble import Experiment

NORMS = ("update_ratio", "grad_norm", "weight_norm")
EVERY = 50  # steps between two looks, by default


@dataclass(frozen=True)
class Way:
    """How the cost of a look is found: looks are as seldom as they must be to find the machine as a run's look does."""

    overrides: list[str]
    every: int  # steps of a turn, in the middle of which is a look
    turns: int  # with looks, and as many without, in a round
    flushed: int  # steps that a flush of the log brings, about as many as in a run


WAYS = {"mlp": Way(MLP, 50, 20, 1000), "cnn": Way(CNN, 10, 20, 10), "resnet18": Way(RESNET, 10, 20, 10)}
AFTER = 3  # steps that a look may slow down, its own first


def probes(network: str, rounds: int = 15, names: Sequence[str] = NORMS) -> Pairs:
    """Return the seconds of a step (with the probes, without any) for each round."""
    way = WAYS[network]
    gc.collect()
    gc.freeze()  # as the command does before it trains
    run = Run([*way.overrides, f"probe=[{','.join(names)}]", *(f"probe.{name}.every={way.every}" for name in names)])
    kept = run.made.recipe.probes

    def switch(made: Experiment, on: bool) -> None:
        object.__setattr__(made.recipe, "probes", kept if on else [])

    run.turn(way.every // 2)  # from now on a turn of `every` steps has its look in the middle
    return [one_round(run, way, switch) for _ in range(1 + rounds)][1:]  # the first warms up


def one_round(run: Run, way: Way, switch: Switch) -> tuple[float, float]:
    """Return the seconds of a step (with looks, without)."""
    extra: dict[bool, list[float]] = {True: [], False: []}
    flushes: dict[bool, list[float]] = {True: [], False: []}
    rests, look = [], way.every - way.every // 2 - 1
    for turn in range(way.turns):
        for on in (True, False) if turn % 2 else (False, True):
            switch(run.made, on)
            seconds = run.each(way.every)
            rests.append(statistics.median(seconds[:look] + seconds[look + AFTER :]))
            extra[on].append(sum(seconds[look : look + AFTER]) - AFTER * rests[-1])
    run.turn(0)
    for turn in range(4):
        for on in (True, False) if turn % 2 else (False, True):
            flushes[on].append(flush(run, switch, on, way.flushed) * way.every)
    rest = statistics.median(rests)
    with_looks, without = (statistics.median(extra[on]) + statistics.median(flushes[on]) for on in (True, False))
    return rest + with_looks / EVERY, rest + without / EVERY


def main(rounds: int = 15, *names: str) -> None:
    """Print the medians and their ratio for each network that this machine can take."""
    torch.set_num_threads(1)
    for network in WAYS:
        if network != "resnet18" or torch.cuda.is_available():
            pairs = probes(network, rounds, names or NORMS)
            report(f"probes, {network}", pairs, unit="us a step", scale=1e6)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *sys.argv[2:])
