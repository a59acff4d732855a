"""What it costs that no step is made of a loss or a gradient that is not finite.

`python -m benchmarks.finite [rounds]` holds steps of the same run with the gate and without it against each other, for
the MLP and the small CNN on the CPU, and for ResNet-18 where there is a GPU. A turn is a few milliseconds, so that what
else the machine does falls into few of them; on the CPU only the time of this thread counts, on a GPU the clock.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from itertools import cycle

import torch

from benchmarks.experiments import CNN, MLP, RESNET, experiment, words
from benchmarks.rounds import Pairs, report
from runner.engine.direct import gradients
from runner.engine.train import update

BATCHES = 16
TURNS = 30  # of each, in a round
NETWORKS = {"mlp": (MLP, 50), "cnn": (CNN, 3), "resnet18": (RESNET, 10)}  # overrides, and steps of a turn


def stepping(overrides: list[str], *, gated: bool) -> Callable[[int], float]:
    """Return a function that makes so many steps and returns the seconds that one takes."""
    made = experiment(overrides)
    learner, recipe = made.learner, made.recipe
    batches = cycle(list(made.batches.stream(0, BATCHES)))
    if not gated:
        if hasattr(learner.optimizer, "found_inf"):
            del learner.optimizer.found_inf
        learner.take_step = lambda loss: learner._move(gradients(learner.optimizer))  # type: ignore[method-assign]
    clock = time.perf_counter if made.device.type == "cuda" else time.thread_time

    def steps(count: int) -> float:
        start = clock()
        for _ in range(count):
            learner.set_lr()
            update(recipe, learner, *next(batches))
        if made.device.type == "cuda":
            torch.cuda.synchronize(made.device)
        return (clock() - start) / count

    return steps


def finite(network: str, rounds: int = 15) -> Pairs:
    """Return the seconds of a step (with the gate, without it) for each round: the medians of its turns.

    Both begin from the same weights and see the same batches; the losses go down, so nothing is shut.
    """
    overrides, count = NETWORKS[network]
    ways = [stepping(words(overrides), gated=gated) for gated in (True, False)]
    for way in ways:
        way(5 * count)
    return [balanced(ways[0], ways[1], count) for _ in range(rounds)]


def balanced(one: Callable[[int], float], other: Callable[[int], float], count: int) -> tuple[float, float]:
    """Return the medians of both over turns in which now the one comes first, now the other."""
    found: tuple[list[float], list[float]] = ([], [])
    for turn in range(TURNS):
        for which in (0, 1) if turn % 2 else (1, 0):
            found[which].append((one, other)[which](count))
    return statistics.median(found[0]), statistics.median(found[1])


def main(rounds: int = 15) -> None:
    """Print the medians and their ratio for each network that this machine can take."""
    torch.set_num_threads(1)
    for network in NETWORKS:
        if network != "resnet18" or torch.cuda.is_available():
            report(f"gate, {network}", finite(network, rounds), unit="us a step", scale=1e6)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
