"""Step time of the loop, with default logging and probes, against loops written by hand and by others.

`python -m benchmarks.step [model=mlp 'model.hidden=[128,128]' ...]` takes overrides as `python -m runner` does and
compares with the loop by hand; `python -m benchmarks --only step` takes all peers.
"""

from __future__ import annotations

import sys

from benchmarks.contest import BY_HAND, BY_HAND_BF16, CHANNELS_LAST, OURS, PEERS, TUNED, UNPROBED, Outcome, hold
from benchmarks.experiments import CNN, MLP, RESNET, words
from benchmarks.rounds import report
from benchmarks.size import Size


def mlp(turns: int, turn: int = 2000, threads: int = 1) -> Outcome:
    """Hold the contest of all loops on 64-128-128-10, 64 images a step, on the CPU.

    A turn is some multiple of 500 steps, so that every probe and every write of the logs falls into each.
    """
    return hold((OURS, BY_HAND, UNPROBED, TUNED, *PEERS), "mlp", words(MLP), Size(50, turn, turns, threads))


def cnn(turns: int, turn: int = 500, threads: int = 1) -> Outcome:
    """Hold the contest with the loop by hand on a small convolutional net, 64 images of 32x32 a step, on the CPU."""
    return hold((OURS, BY_HAND, CHANNELS_LAST), "cnn", words(CNN), Size(20, turn, turns, threads, check=2))


def resnet18(turns: int, turn: int = 250, threads: int = 1) -> Outcome:
    """Hold the contest with the loop by hand on ResNet-18, 512 images of 32x32 a step, bf16, on the GPU."""
    return hold((OURS, BY_HAND_BF16), "resnet18", words(RESNET), Size(50, turn, turns, threads, check=2))


def main(overrides: list[str], turns: int = 7) -> None:
    """Print the ratio to the loop by hand for the MLP, or the overrides given."""
    network, given = ("", overrides) if overrides else ("mlp", MLP)
    outcome = hold((OURS, BY_HAND), network, words(given), Size(50, 1000, turns))
    pairs = outcome.pairs(OURS, BY_HAND)
    if isinstance(pairs, str):
        sys.exit(pairs)
    report(f"step, {' '.join(given)}", pairs, unit="us", scale=1e6)


if __name__ == "__main__":
    main(sys.argv[1:])
