"""What it costs that no step is made of a loss or a gradient that is not finite.

`python -m benchmarks.finite [rounds]` holds two runs against each other that differ in nothing but the gate, for the
MLP and the small CNN on the CPU, and for ResNet-18 where there is a GPU: the whole loop, with data, probes and logs as
they are by default. A turn is some milliseconds, so that what else the machine does falls into few of them; on the CPU
only the time of the run's own thread counts, on a GPU the clock.
"""

from __future__ import annotations

import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Semaphore, Thread

import torch
from torch import Tensor

from benchmarks.experiments import CNN, MLP, RESNET, experiment, words
from benchmarks.rounds import Pairs, report
from runner.engine.direct import gradients
from runner.engine.logs.log import open_logs
from runner.engine.train import train

TURNS = 30  # of each, in a round
NETWORKS = {"mlp": (MLP, 50), "cnn": (CNN, 3), "resnet18": (RESNET, 10)}  # overrides, and steps of a turn


class Lane:
    """A run in a thread of its own, which makes the steps of a turn when told to, and rests in between."""

    def __init__(self, overrides: list[str], *, gated: bool) -> None:
        made = experiment(overrides)
        learner = made.learner
        if not gated:
            if hasattr(learner.optimizer, "found_inf"):
                del learner.optimizer.found_inf
            learner.take_step = lambda loss: learner._move(gradients(learner.optimizer))  # type: ignore[method-assign]
        self.made, self.steps, self.device = made, 1, made.device
        self.go, self.done = Semaphore(0), Semaphore(0)
        stream = made.batches.stream
        made.batches.stream = lambda start, stop: self.paced(stream(start, stop))  # type: ignore
        self.seconds = 0.0
        Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        """Train."""
        made = self.made
        with tempfile.TemporaryDirectory() as folder, closing(open_logs(Path(folder), positions=None, step=0)) as log:
            train(made.recipe, made.learner, made.batches, {}, log, lambda: None)

    def paced(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches, resting where a turn ends."""
        while True:
            self.go.acquire()
            start = self.clock()
            for _ in range(self.steps):
                yield next(batches)
            self.seconds = self.clock() - start
            self.done.release()

    def clock(self) -> float:
        """Return the seconds that count."""
        if self.device.type != "cuda":
            return time.thread_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def turn(self, steps: int) -> float:
        """Have so many steps made, and return the seconds that one took."""
        self.steps = steps
        self.go.release()
        self.done.acquire()
        return self.seconds / steps


def finite(network: str, rounds: int = 15) -> Pairs:
    """Return the seconds of a step (with the gate, without it) for each round: the medians of its turns.

    Both begin from the same weights and see the same batches; the losses go down, so nothing is shut. Each round has
    runs of its own, now the one made first, now the other: where their tensors lie makes a difference of percents.
    """
    overrides, count = NETWORKS[network]
    pairs = []
    for number in range(rounds):
        order = (True, False) if number % 2 else (False, True)
        lanes = {gated: Lane([*words(overrides), "steps=100000000"], gated=gated) for gated in order}
        for gated in order:
            lanes[gated].turn(5 * count)
        pairs.append(balanced(lanes[True], lanes[False], count))
    return pairs


def balanced(one: Lane, other: Lane, count: int) -> tuple[float, float]:
    """Return the medians of both over turns in which now the one comes first, now the other."""
    found: tuple[list[float], list[float]] = ([], [])
    for turn in range(TURNS):
        for which in (0, 1) if turn % 2 else (1, 0):
            found[which].append((one, other)[which].turn(count))
    return statistics.median(found[0]), statistics.median(found[1])


def main(rounds: int = 15) -> None:
    """Print the medians and their ratio for each network that this machine can take."""
    torch.set_num_threads(1)
    gc.freeze()  # as the command does before it trains
    for network in NETWORKS:
        if network != "resnet18" or torch.cuda.is_available():
            report(f"gate, {network}", finite(network, rounds), unit="us a step", scale=1e6)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
