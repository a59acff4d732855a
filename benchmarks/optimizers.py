"""Every optimizer at the learning rate of its YAML on the default digits run: a table of test accuracies over seeds.

`python -m benchmarks.optimizers [seeds] > docs/optimizers.md`
"""

from __future__ import annotations

import statistics
import sys

import runner.components  # noqa: F401
from benchmarks.cifar_resnet import ours
from benchmarks.experiments import experiment
from runner.registry import names, option

SPECIAL = {"schedulefree": ["average=schedulefree", "scheduler=constant"]}  # it needs no schedule, and averages itself


def main(seeds: int = 3) -> None:
    """Print a Markdown table."""
    print("# Optimizers on digits\n")
    print(
        "`python -m runner optim=<name>`: test accuracy with the last weights, at the learning rate of the YAML, over"
    )
    print(f"seeds 0 to {seeds - 1} (30 epochs, the default ResNet without an average, one CPU core).\n")
    print("| optim | lr | median | lowest | highest | n |\n|---|---|---|---|---|---|")
    for name in names("optim"):
        words = [f"optim={name}", "probe=[]", *SPECIAL.get(name, ["average=none"])]
        found = [ours(experiment([*words, f"seed={seed}"])) for seed in range(seeds)]
        lr = option("optim", name, key="optim")["lr"]
        print(
            f"| {name} | {lr:g} | {statistics.median(found):.4f} | {min(found):.4f} | {max(found):.4f} | {seeds} |",
            flush=True,
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
