"""What the probes cost a step: update ratio, gradient norm and weight norm of every layer, each 50 steps.

`python -m benchmarks.probes [rounds] [probe ...]` holds runs with those probes, or the ones named, against runs without
any (`lanes`), for the MLP and the small CNN on the CPU, and for ResNet-18 where there is a GPU.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from benchmarks.experiments import CNN, MLP, RESNET
from benchmarks.lanes import side_by_side
from benchmarks.rounds import Pairs, report

NORMS = ("update_ratio", "grad_norm", "weight_norm")
NETWORKS = {"mlp": (MLP, 30), "cnn": (CNN, 4), "resnet18": (RESNET, 4)}  # overrides, and turns of a round
TURN = 50  # steps: each probe looks once in a turn


def probes(network: str, rounds: int = 15, names: Sequence[str] = NORMS) -> Pairs:
    """Return the seconds of a step (with the probes, without any) for each round."""
    overrides, turns = NETWORKS[network]
    ways = [([*overrides, f"probe=[{','.join(some)}]"], lambda made: None) for some in (names, ())]
    return side_by_side(ways[0], ways[1], steps=TURN, turns=turns, rounds=rounds)


def main(rounds: int = 15, *names: str) -> None:
    """Print the medians and their ratio for each network that this machine can take."""
    torch.set_num_threads(1)
    for network in NETWORKS:
        if network != "resnet18" or torch.cuda.is_available():
            pairs = probes(network, rounds, names or NORMS)
            report(f"probes, {network}", pairs, unit="us a step", scale=1e6)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *sys.argv[2:])
