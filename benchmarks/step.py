"""Time of a training step with default logging and probes, compared with hand-written loops and other frameworks.

`python -m benchmarks.step [model=mlp 'model.hidden=[128,128]' ...]` takes overrides as `python -m runner` does and
compares with the hand-written loop. `python -m benchmarks --only step` includes all peers.

`python -m benchmarks.step --versus compile=true compile=false model=resnet model.depth=20` compares two settings on one
batch. The remaining words apply to both. Semicolons join several overrides into one word. The time until the first step
of each, compilation included, is printed first.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from benchmarks.contest import BY_HAND, BY_HAND_BF16, CHANNELS_LAST, OURS, PEERS, TUNED, UNPROBED, Outcome, run_contest
from benchmarks.experiments import CNN, MLP, RESNET, words
from benchmarks.rounds import Size, interleave, report


def mlp(turns: int, turn: int = 2000, threads: int = 1) -> Outcome:
    """Run the contest of all loops with the MLP 64-128-128-10, batch size 64, on the CPU.

    A turn is a multiple of 500 steps, so each turn includes every probe and every log flush.
    """
    return run_contest((OURS, BY_HAND, UNPROBED, TUNED, *PEERS), "mlp", words(MLP), Size(50, turn, turns, threads))


def cnn(turns: int, turn: int = 500, threads: int = 1) -> Outcome:
    """Run the contest with the hand-written loop on a small CNN, batch size 64 of 32x32, on the CPU."""
    return run_contest((OURS, BY_HAND, CHANNELS_LAST), "cnn", words(CNN), Size(20, turn, turns, threads, check=2))


def resnet18(turns: int, turn: int = 250, threads: int = 1) -> Outcome:
    """Run the contest with the hand-written loop on ResNet-18, batch size 512 of 32x32, bf16, on the GPU."""
    return run_contest((OURS, BY_HAND_BF16), "resnet18", words(RESNET), Size(50, turn, turns, threads, check=2))


def main(overrides: list[str], turns: int = 7) -> None:
    """Print the ratio to the hand-written loop, for the MLP or for the given overrides."""
    network, given = ("", overrides) if overrides else ("mlp", MLP)
    outcome = run_contest((OURS, BY_HAND), network, words(given), Size(50, 1000, turns))
    pairs = outcome.pairs(OURS, BY_HAND)
    if isinstance(pairs, str):
        sys.exit(pairs)
    report(f"step, {' '.join(given)}", pairs, unit="us", scale=1e6)


_ROUND = 0.5  # seconds per round
_PLAIN = ["augment=[]", "probe=[]", "average=none"]


def _stepper(overrides: list[str]) -> Callable[[int], float]:
    """Return a function that trains for `count` steps on one batch and returns the seconds per step."""
    import torch

    from benchmarks.experiments import experiment
    from runner.engine.train import update

    made = experiment(overrides)
    images, labels = next(made.batches.stream(0, 1))
    made.learner.set_lr()

    def steps(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            update(made.recipe, made.learner, images, labels)
        if images.is_cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / count

    return steps


def _compare_settings(first: str, second: str, *shared: str, rounds: int = 9) -> None:
    """Print the seconds until the first step, and the ratio of the others."""
    ways = [_stepper([*_PLAIN, *shared, *word.split(";")]) for word in (first, second)]
    begun = [way(1) for way in ways]
    print(f"first step: {first} {begun[0]:.2f} s, {second} {begun[1]:.2f} s")
    count = max(1, round(_ROUND / min(way(2) for way in ways)))
    pairs = interleave(lambda: ways[0](count), lambda: ways[1](count), rounds)
    report(f"{first} / {second}, {' '.join(shared)}", pairs, unit="ms a step", scale=1e3)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--versus"]:
        _compare_settings(*sys.argv[2:])
    else:
        main(sys.argv[1:])
