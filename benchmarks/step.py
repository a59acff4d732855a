"""Step time of the loop, with default logging and probes, against loops written by hand and by others.

`python -m benchmarks.step [model=mlp 'model.hidden=[128,128]' ...]` takes overrides as `python -m runner` does and
compares with the loop by hand; `python -m benchmarks --only step` takes all peers.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from benchmarks.contest import BY_HAND, BY_HAND_BF16, CHANNELS_LAST, OURS, PEERS, TUNED, UNPROBED, Outcome, Size, hold
from benchmarks.rounds import report

if TYPE_CHECKING:
    from runner.assemble import Experiment

PLAIN = ["augment=[]", "norm=none", "scheduler=constant", "seed=0", "validate_every=100000000steps"]
PLAIN += ["checkpoint_every=100000000steps", "average=none"]  # all else, logs and probes too, is a run's default
MLP = ["model=mlp", "model.hidden=[128,128]", "device=cpu"]
SHAPES = ["data=synthetic", "data.kind=shapes", "data.size=32", "data.classes=6", "norm=batch"]
CNN = [*SHAPES, "model=cnn", "model.channels=[16,32,64]", "model.hidden=[]", "device=cpu", "optim.lr=0.01"]
RESNET = [*SHAPES, "data.train=8192", "data.batch_size=512", "model=resnet", "model.depth=18", "model.width=64"]
RESNET += ["device=cuda", "precision=bf16"]


def words(given: list[str]) -> list[str]:
    """Return overrides after the plain ones, the last of each key."""
    return list({word.partition("=")[0]: word for word in (*PLAIN, *given)}.values())


def experiment(overrides: list[str]) -> Experiment:
    """Return a fresh experiment."""
    from runner.assemble import assemble
    from runner.door.compose import checked, compose_parts, hydra_opened
    from runner.door.options import find_conf
    from runner.door.overrides import read_overrides

    conf = find_conf()
    given = read_overrides(conf, overrides)
    with hydra_opened(conf):
        return assemble(checked(conf, compose_parts(conf, given), given))


def mlp(turns: int, turn: int = 2000, threads: int = 1) -> Outcome:
    """Hold the contest of all loops on 64-128-128-10, 64 images a step, on the CPU.

    A turn is some multiple of 500 steps, so that every probe and every write of the logs falls into each.
    """
    return hold((OURS, BY_HAND, UNPROBED, TUNED, *PEERS), "mlp", words(MLP), Size(50, turn, turns, threads))


def cnn(turns: int, turn: int = 500, threads: int = 1) -> Outcome:
    """Hold the contest with the loop by hand on a small convolutional net, 64 images of 32x32 a step, on the CPU."""
    return hold((OURS, BY_HAND, UNPROBED, CHANNELS_LAST), "cnn", words(CNN), Size(20, turn, turns, threads, check=2))


def resnet18(turns: int, turn: int = 250, threads: int = 1) -> Outcome:
    """Hold the contest with the loop by hand on ResNet-18, 512 images of 32x32 a step, bf16, on the GPU."""
    return hold((OURS, BY_HAND_BF16, UNPROBED), "resnet18", words(RESNET), Size(50, turn, turns, threads, check=2))


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
