"""Two runs of ours that differ in one thing, side by side in one process: what that one thing costs.

Each run is the whole loop, with data, probes and logs, in a thread of its own; one rests while the other makes its turn
of some milliseconds, so that what else the machine does falls into few turns of either. On the CPU only the time of the
run's own thread counts, on a GPU the clock.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from threading import Semaphore, Thread

import torch
from torch import Tensor

from benchmarks.experiments import experiment, words
from benchmarks.rounds import Pairs
from runner.assemble import Experiment
from runner.engine.logs.log import Log, open_logs
from runner.engine.train import train

Way = tuple[Sequence[str], Callable[[Experiment], object]]  # overrides, and what to change in the experiment


class Lane:
    """A run that makes the steps of a turn when told to, and rests in between."""

    def __init__(self, overrides: Sequence[str], change: Callable[[Experiment], object]) -> None:
        self.made = experiment([*words(overrides), "steps=100000000"])
        change(self.made)
        stream = self.made.batches.stream
        self.made.batches.stream = lambda start, stop: self.paced(stream(start, stop))  # type: ignore
        self.go, self.done = Semaphore(0), Semaphore(0)
        self.steps, self.seconds = 0, 0.0
        Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        """Train; the log is flushed at the end of a round only (`turn` with no steps), so that no turn has to."""
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
                yield next(batches)
            if not self.steps:
                self.log.flush()
            self.seconds = self.clock() - start
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


def side_by_side(one: Way, other: Way, *, steps: int, turns: int, rounds: int) -> Pairs:
    """Return the seconds of a step (one, other) for each round: the median of its turns, and its share of the flush.

    A turn has so many `steps`, a round so many `turns` of each, after some to warm up. Both begin from the same weights
    and see the same batches. Each round has runs of its own, now the one made first, now the other: where their tensors
    lie makes a difference of percents.
    """
    gc.collect()
    gc.freeze()  # as the command does before it trains
    pairs = []
    for number in range(rounds):
        order = (0, 1) if number % 2 else (1, 0)
        lanes = {which: Lane(*(one, other)[which]) for which in order}
        for which in order:
            lanes[which].turn(-(-turns // 6) * steps)
            lanes[which].turn(0)
        pairs.append(balanced(lanes[0], lanes[1], steps, turns))
    return pairs


def balanced(one: Lane, other: Lane, steps: int, turns: int) -> tuple[float, float]:
    """Return the seconds of a step of both over turns in which now the one comes first, now the other."""
    found: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns):
        for which in (0, 1) if turn % 2 else (1, 0):
            found[which].append((one, other)[which].turn(steps))
    flushed = [lane.turn(0) / turns for lane in (one, other)]
    first, second = ((statistics.median(found[which]) + flushed[which]) / steps for which in (0, 1))
    return first, second
