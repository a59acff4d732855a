"""What the probes cost a step: update ratio, gradient norm and weight norm of every layer, each 50 steps.

`python -m benchmarks.probes [rounds] [probe ...]` has runs step with those probes, or the ones named, and without any,
by turns (`switched`), for the MLP and the small CNN on the CPU, and for ResNet-18 where there is a GPU.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from benchmarks.experiments import CNN, MLP, RESNET
from benchmarks.rounds import Pairs, report
from benchmarks.switched import switched
from runner.assemble import Experiment
from runner.engine.contracts import Probe

NORMS = ("update_ratio", "grad_norm", "weight_norm")
NETWORKS = {"mlp": (MLP, 15), "cnn": (CNN, 3), "resnet18": (RESNET, 5)}  # overrides, and turns of a round
TURN = 50  # steps: each probe looks once in a turn


def probes(network: str, rounds: int = 15, names: Sequence[str] = NORMS) -> Pairs:
    """Return the seconds of a step (with the probes, without any) for each round."""
    overrides, turns = NETWORKS[network]
    kept: list[Probe] = []

    def switch(made: Experiment, on: bool) -> None:
        kept[:] = kept or made.recipe.probes
        object.__setattr__(made.recipe, "probes", kept if on else [])

    return switched([*overrides, f"probe=[{','.join(names)}]"], switch, steps=TURN, turns=turns, rounds=rounds)


def main(rounds: int = 15, *names: str) -> None:
    """Print the medians and their ratio for each network that this machine can take."""
    torch.set_num_threads(1)
    for network in NETWORKS:
        if network != "resnet18" or torch.cuda.is_available():
            pairs = probes(network, rounds, names or NORMS)
            report(f"probes, {network}", pairs, unit="us a step", scale=1e6)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *sys.argv[2:])
