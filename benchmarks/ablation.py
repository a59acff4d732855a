"""The cost of one feature: the same run with it and without it, in turns.

`python -m benchmarks.ablation [rounds]` measures the check for non-finite losses and gradients, for the MLP and the
small CNN on the CPU, and for ResNet-18 on a GPU, with default probes and logs.

The run is the whole loop, with data, probes and logs, in its own thread. Between turns of some milliseconds it waits
while the feature is switched on or off. Both variants use the same memory (its location alone can make a difference of
percents), and other load on the machine affects few turns of either. On the CPU only the CPU time of the thread counts,
on a GPU the wall clock.
"""

from __future__ import annotations

import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from threading import Semaphore, Thread

import torch
from torch import Tensor

from benchmarks.experiments import CNN, MLP, RESNET, experiment, words
from benchmarks.rounds import Pairs, report
from runner.assemble import Experiment
from runner.engine.fast_step import present_gradients
from runner.engine.logs.log import Log, open_logs
from runner.engine.train import train

Switch = Callable[[Experiment, bool], object]


class Run:
    """A run that trains for one turn on request, and waits in between."""

    def __init__(self, overrides: Sequence[str]) -> None:
        self.made = experiment([*words(overrides), "steps=100000000"])
        stream = self.made.batches.stream
        self.made.batches.stream = lambda start, stop: self.paced(stream(start, stop))  # type: ignore
        self.go, self.done = Semaphore(0), Semaphore(0)
        self.steps, self.seconds = 0, 0.0
        self.moments: list[float] | None = None  # start of each step of the last turn, and its end, if recorded
        Thread(target=self.train, daemon=True).start()

    def train(self) -> None:
        """Train. The log is flushed by `turn(0)` only, so no turn includes a flush."""
        made = self.made
        with tempfile.TemporaryDirectory() as folder, closing(open_logs(Path(folder), positions=None, step=0)) as log:
            self.log: Log = log
            log.flush_if_due = lambda: None  # type: ignore[method-assign]
            train(made.recipe, made.learner, made.batches, {}, log, lambda: None)

    def paced(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches, waiting at the end of each turn."""
        while True:
            self.go.acquire()
            start = self.clock()
            for _ in range(self.steps):
                if self.moments is not None:
                    self.moments.append(self.clock())
                yield next(batches)
            if not self.steps:
                self.log.flush()
            end = self.clock()
            self.seconds = end - start
            if self.moments is not None:
                self.moments.append(end)
            self.done.release()

    def clock(self) -> float:
        """Return the time in seconds: CPU time of this thread, or wall clock on a GPU."""
        if self.made.device.type != "cuda":
            return time.thread_time()
        torch.cuda.synchronize(self.made.device)
        return time.perf_counter()

    def turn(self, steps: int) -> float:
        """Train for `steps` steps (with 0, flush the log), and return the seconds."""
        self.steps = steps
        self.go.release()
        self.done.acquire()
        return self.seconds

    def each(self, steps: int) -> list[float]:
        """Train for `steps` steps and return the seconds of each."""
        self.moments = moments = []
        self.turn(steps)
        self.moments = None
        return [stop - start for start, stop in pairwise(moments)]


def _switched(overrides: Sequence[str], switch: Switch, *, steps: int, turns: int, rounds: int) -> Pairs:
    """Return the seconds per step (with, without) of each round, which has `turns` turns of each in alternation.

    The time without the feature is the median of its turns. The time with it is that median times the median ratio of
    neighboring turns, because the speed of a shared machine varies. Turns include no log flush, so the share of a
    step in the flush is added, measured over as many steps of each.
    """
    gc.collect()
    gc.freeze()  # as the command does before it trains
    run = Run(overrides)
    pairs = []
    for _ in range(1 + rounds):
        found: dict[bool, list[float]] = {True: [], False: []}
        for turn in range(turns):
            for on in (True, False) if turn % 2 else (False, True):
                switch(run.made, on)
                found[on].append(run.turn(steps))
        run.turn(0)
        flushed = {on: flush(run, switch, on, steps * turns) for on in (True, False)}
        without = statistics.median(found[False]) / steps
        ratio = statistics.median(one / other for one, other in zip(found[True], found[False], strict=True))
        pairs.append((without * ratio + flushed[True], without + flushed[False]))
    return pairs[1:]  # the first round is a warm-up


def flush(run: Run, switch: Switch, on: bool, steps: int) -> float:
    """Return the seconds per step of flushing the log of `steps` steps."""
    switch(run.made, on)
    run.turn(steps)
    return run.turn(0) / steps


_NETWORKS = {"mlp": (MLP, 50), "cnn": (CNN, 5), "resnet18": (RESNET, 10)}  # overrides, and steps per turn
_TURNS = 15


def _switch_gate(made: Experiment, on: bool) -> None:
    """Enable or disable the check of a run."""
    learner = made.learner
    if on:
        vars(learner).pop("step_optimizer", None)
    else:
        step, optimizer = learner.stepper.step, learner.optimizer
        learner.step_optimizer = lambda loss: step(present_gradients(optimizer))  # type: ignore[method-assign,assignment,return-value]


def _cost_of_gate(network: str, rounds: int = 15) -> Pairs:
    """Return the seconds per step (with the check, without it) of each round."""
    overrides, steps = _NETWORKS[network]
    return _switched(overrides, _switch_gate, steps=steps, turns=_TURNS, rounds=rounds)


def main(rounds: int = 15) -> None:
    """Print the medians and their ratio for each network that this machine supports."""
    torch.set_num_threads(1)
    for network in _NETWORKS:
        if network != "resnet18" or torch.cuda.is_available():
            report(
                f"check for non-finite numbers, {network}", _cost_of_gate(network, rounds), unit="us a step", scale=1e6
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
