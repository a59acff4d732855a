"""Step time of one run computed in two ways, on the same batch.

`python -m benchmarks.options compile=true compile=false model=resnet model.depth=20` holds its first word against the
second, the rest being what both share; several settings go into one word with semicolons. The seconds until each has
made its first step, compiling included, come first.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch

from benchmarks.rounds import interleave, report
from runner.assemble import assemble
from runner.door.compose import checked, compose_parts, hydra_opened
from runner.door.options import find_conf
from runner.door.overrides import read_overrides
from runner.engine.train import update

ROUND = 0.5  # seconds of steps in a round
PLAIN = ["augment=[]", "probe=[]", "average=none"]


def stepping(overrides: list[str]) -> Callable[[int], float]:
    """Return a function that makes so many steps on one batch and returns the seconds that one takes."""
    conf = find_conf()
    given = read_overrides(conf, overrides)
    with hydra_opened(conf):
        made = assemble(checked(conf, compose_parts(conf, given), given))
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


def main(first: str, second: str, *shared: str, rounds: int = 9) -> None:
    """Print the first steps' seconds and the ratio of the others."""
    ways = [stepping([*PLAIN, *shared, *word.split(";")]) for word in (first, second)]
    begun = [way(1) for way in ways]
    print(f"first step: {first} {begun[0]:.2f} s, {second} {begun[1]:.2f} s")
    count = max(1, round(ROUND / min(way(2) for way in ways)))
    pairs = interleave(lambda: ways[0](count), lambda: ways[1](count), rounds)
    report(f"{first} / {second}, {' '.join(shared)}", pairs, unit="ms a step", scale=1e3)


if __name__ == "__main__":
    main(*sys.argv[1:])
