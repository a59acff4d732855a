"""Cost of probes per step: update ratio, gradient norm and weight norm of every layer, every 50 steps.

`python -m benchmarks.probes [rounds] [probe ...]` trains with those probes (or the ones named) and without any, in
turns, for the MLP and the small CNN on the CPU, and for ResNet-18 on a GPU. A probe runs rarely and costs little
compared with the noise of a shared machine over 50 steps. So each step is timed: the cost of a probe is the extra time
of its step and the next few compared with the others of the turn, minus the same without probes (the log is checked in
the same step), plus its share of the log flush.
"""

from __future__ import annotations

import gc
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmarks.ablation import Run, Switch, flush
from benchmarks.experiments import CNN, MLP, RESNET
from benchmarks.rounds import Pairs, report
from runner.assemble import Experiment

_NORMS = ("update_ratio", "grad_norm", "weight_norm")
_EVERY = 50  # default interval of a probe in steps


@dataclass(frozen=True)
class _Timing:
    """How a probe is timed: rare enough that it finds the CPU caches as cold as in a run."""

    overrides: list[str]
    every: int  # steps per turn; the probe runs in the middle
    turns: int  # turns with probes, and as many without, per round
    flushed: int  # steps per log flush, about as many as in a run


_TIMINGS = {"mlp": _Timing(MLP, 50, 20, 1000), "cnn": _Timing(CNN, 10, 20, 10), "resnet18": _Timing(RESNET, 10, 20, 10)}
_AFTER = 3  # steps that a probe may slow down, its own included


def probes(network: str, rounds: int = 15, names: Sequence[str] = _NORMS) -> Pairs:
    """Return the seconds per step (with the probes, without) of each round."""
    timing = _TIMINGS[network]
    gc.collect()
    gc.freeze()  # as the command does before it trains
    run = Run(
        [*timing.overrides, f"probe=[{','.join(names)}]", *(f"probe.{name}.every={timing.every}" for name in names)]
    )
    kept = run.made.recipe.probes

    def switch(made: Experiment, on: bool) -> None:
        object.__setattr__(made.recipe, "probes", kept if on else [])

    run.turn(timing.every // 2)  # from now on the probe runs in the middle of each turn
    return [_one_round(run, timing, switch) for _ in range(1 + rounds)][1:]  # the first round is a warm-up


def _one_round(run: Run, timing: _Timing, switch: Switch) -> tuple[float, float]:
    """Return the seconds per step (with probes, without)."""
    extra: dict[bool, list[float]] = {True: [], False: []}
    flushes: dict[bool, list[float]] = {True: [], False: []}
    others, start = [], timing.every - timing.every // 2 - 1
    for turn in range(timing.turns):
        for on in (True, False) if turn % 2 else (False, True):
            switch(run.made, on)
            seconds = run.each(timing.every)
            others.append(statistics.median(seconds[:start] + seconds[start + _AFTER :]))
            extra[on].append(sum(seconds[start : start + _AFTER]) - _AFTER * others[-1])
    run.turn(0)
    for turn in range(4):
        for on in (True, False) if turn % 2 else (False, True):
            flushes[on].append(flush(run, switch, on, timing.flushed) * timing.every)
    step = statistics.median(others)
    with_probes, without = (statistics.median(extra[on]) + statistics.median(flushes[on]) for on in (True, False))
    return step + with_probes / _EVERY, step + without / _EVERY


def main(rounds: int = 15, *names: str) -> None:
    """Print the medians and their ratio for each network that this machine supports."""
    torch.set_num_threads(1)
    for network in _TIMINGS:
        if network != "resnet18" or torch.cuda.is_available():
            pairs = probes(network, rounds, names or _NORMS)
            report(f"probes, {network}", pairs, unit="us a step", scale=1e6)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *sys.argv[2:])
