"""What it costs that no step is made of a loss or a gradient that is not finite.

`python -m benchmarks.finite [rounds]` has runs step with the gate and without it, by turns (`switched`), for the MLP
and the small CNN on the CPU, and for ResNet-18 where there is a GPU, with probes and logs as they are by default. The
losses go down, so nothing is shut.
"""

from __future__ import annotations

import sys

import torch

from benchmarks.experiments import CNN, MLP, RESNET
from benchmarks.rounds import Pairs, report
from benchmarks.switched import switched
from runner.assemble import Experiment
from runner.engine.direct import gradients

NETWORKS = {"mlp": (MLP, 50), "cnn": (CNN, 5), "resnet18": (RESNET, 10)}  # overrides, and steps of a turn
TURNS = 15


def gate(made: Experiment, on: bool) -> None:
    """Put the gate into a run, or take it out."""
    learner = made.learner
    if on:
        vars(learner).pop("take_step", None)
    else:
        learner.take_step = lambda loss: learner._move(gradients(learner.optimizer))  # type: ignore[method-assign]


def finite(network: str, rounds: int = 15) -> Pairs:
    """Return the seconds of a step (with the gate, without it) for each round."""
    overrides, steps = NETWORKS[network]
    return switched(overrides, gate, steps=steps, turns=TURNS, rounds=rounds)


def main(rounds: int = 15) -> None:
    """Print the medians and their ratio for each network that this machine can take."""
    torch.set_num_threads(1)
    for network in NETWORKS:
        if network != "resnet18" or torch.cuda.is_available():
            report(f"gate, {network}", finite(network, rounds), unit="us a step", scale=1e6)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
