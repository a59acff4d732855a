"""What one thing costs a run of ours: the same run with it and without it, in turns.

The run is the whole loop, with data, probes and logs, in a thread of its own, and rests between turns of some
milliseconds while the thing is switched on or off. So both have the same memory, whose place alone can make a
difference of percents, and what else the machine does falls into few turns of either. On the CPU only the time of the
run's own thread counts, on a GPU the clock.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from threading import Semaphore, Thread

import torch
from torch import Tensor

from benchmarks.experiments import experiment, words
from benchmarks.rounds import Pairs
from runner.assemble import Experiment
from runner.engine.logs.log import Log, open_logs
from runner.engine.train import train

Switch = Callable[[Experiment, bool], object]


class Run:
    """A run that makes the steps of a turn when told to, and rests in between."""

    def __init__(self, overrides: Sequence[str]) -> None:
        self.made = experiment([*words(overrides), "steps=100000000"])
        stream = self.made.batches.stream
        self.made.batches.stream = lambda start, stop: self.paced(stream(start, stop))  # type: ignore
        self.go, self.done = Semaphore(0), Semaphore(0)
        self.steps, self.seconds = 0, 0.0
        self.moments: list[float] | None = None  # of the start of each step of the last turn, and of its end, if asked
        Thread(target=self.train, daemon=True).start()

    def train(self) -> None:
        """Train; the log is flushed when told to only (`turn` with no steps), so that no turn has to."""
        made = self.made
        with tempfile.TemporaryDirectory() as folder, closing(open_logs(Path(folder), positions=None, step=0)) as log:
            self.log: Log = log
            log.keep_up = lambda: None  # type: ignore[method-assign]
            train(made.recipe, made.learner, made.batches, {}, log, lambda: None)

    def paced(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches, resting where a turn ends."""
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
        """Return the seconds that count."""
        if self.made.device.type != "cuda":
            return time.thread_time()
        torch.cuda.synchronize(self.made.device)
        return time.perf_counter()

    def turn(self, steps: int) -> float:
        """Have so many steps made, or with 0 the log flushed, and return the seconds."""
        self.steps = steps
        self.go.release()
        self.done.acquire()
        return self.seconds

    def each(self, steps: int) -> list[float]:
        """Have so many steps made and return the seconds of each."""
        self.moments = moments = []
        self.turn(steps)
        self.moments = None
        return [stop - start for start, stop in pairwise(moments)]


def switched(overrides: Sequence[str], switch: Switch, *, steps: int, turns: int, rounds: int) -> Pairs:
    """Return the seconds of a step (with, without) for each round of so many turns of each, by turns.

    Without: the median of the turns. With: the same times the median of how each turn compares with its neighbour, for
    a machine that others use is now slower, now faster. A step's share of the log's flush, which no turn has, is added:
    that of as many steps of each, one after the other.
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
    return pairs[1:]  # the first warms up


def flush(run: Run, switch: Switch, on: bool, steps: int) -> float:
    """Return the seconds that the flush of so many steps takes, for each of them."""
    switch(run.made, on)
    run.turn(steps)
    return run.turn(0) / steps
