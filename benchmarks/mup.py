"""The best learning rate over widths, with `init=mup` and with `init=kaiming`, on digits.

`python -m benchmarks.mup [folder]` trains an MLP of three hidden layers at each width, learning rate and seed. It
writes `mup.json` and `mup.png`: the training loss against the learning rate, a line for each width.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean

import torch

from benchmarks.experiments import config_of
from benchmarks.report import describe_machine
from runner.assemble import Experiment, assemble
from runner.engine.logs.log import Log
from runner.engine.train import train
from runner.errors import RunnerError

INITS = ("kaiming", "mup")
WIDTHS = (64, 128, 256, 512)
# Exponents of 2 of the learning rates
EXPONENTS = tuple(range(-12, -3))
SEEDS = (0, 1, 2, 3, 4)
STEPS = 95
_BASE = 64
_FIXED = ["model=mlp", "norm=none", "augment=[]", "probe=[]", "average=none", "scheduler=constant", "optim=adam"]
_FIXED += ["optim.weight_decay=0", "device=cpu", "threads=1", f"steps={STEPS}", "validate_every=100000000steps"]
_FIXED += ["checkpoint_every=100000000steps", "test=never", "figures=never", "predictions=never"]
# The loss that counts for a run which diverged
_WORST = math.log(10) * 10
Losses = dict[tuple[str, int, int], list[float]]  # by init, width and exponent: of each seed


def overrides(init: str, width: int, exponent: int, seed: int) -> list[str]:
    """Return the command line of a run."""
    words = [f"init={init}", f"model.hidden=[{width},{width},{width}]", f"optim.lr={2.0**exponent}", f"seed={seed}"]
    return [*_FIXED, *words, *([f"init.base_width={_BASE}"] if init == "mup" else [])]


def loss_after(words: Sequence[str]) -> float:
    """Train a run and return its loss over all training images, `_WORST` at most."""
    made = assemble(config_of(list(words)))
    try:
        train(made.recipe, made.learner, made.batches, made.validation, Log(), lambda: None)
    except RunnerError:
        return _WORST
    return min(_WORST, _training_loss(made))


@torch.no_grad()
def _training_loss(made: Experiment) -> float:
    """Return the mean loss over an epoch, infinite if it is not finite."""
    losses = [
        float(torch.nn.functional.cross_entropy(made.learner.model(images), labels))
        for images, labels in made.batches.stream(0, made.batches.steps_per_epoch)
    ]
    mean = fmean(losses)
    return mean if math.isfinite(mean) else math.inf


def best_exponents(losses: Mapping[tuple[str, int, int], Sequence[float]], init: str) -> dict[int, int]:
    """Return the exponent of the best learning rate of each width: the smallest mean of the log losses of all seeds."""
    found: dict[int, dict[int, float]] = {}
    for (name, width, exponent), values in losses.items():
        if name == init:
            found.setdefault(width, {})[exponent] = fmean(map(math.log, values))
    return {width: min(means, key=lambda each: means[each]) for width, means in found.items()}


def measure(widths: Sequence[int], exponents: Sequence[int], seeds: Sequence[int]) -> Losses:
    """Return the losses of all runs."""
    losses: Losses = {}
    for init, width, exponent in product(INITS, widths, exponents):
        losses[init, width, exponent] = [loss_after(overrides(init, width, exponent, seed)) for seed in seeds]
        print(init, width, exponent, [f"{loss:.4g}" for loss in losses[init, width, exponent]], flush=True)
    return losses


def draw(losses: Mapping[tuple[str, int, int], Sequence[float]], path: Path) -> None:
    """Draw the loss against the learning rate, a panel for each init and a line for each width."""
    from matplotlib.figure import Figure

    sheet = Figure(figsize=(10, 4), layout="constrained")
    panels = sheet.subplots(1, len(INITS), sharey=True)
    for axes, init in zip(panels, INITS, strict=True):
        for number, width in enumerate(sorted({each for _, each, _ in losses})):
            points = [(2.0**e, values) for (name, size, e), values in losses.items() if (name, size) == (init, width)]
            rates = [rate for rate, _ in points]
            means = [math.exp(fmean(map(math.log, values))) for _, values in points]
            axes.plot(rates, means, marker="o", markersize=3, color=f"C{number}", label=f"width {width}")
            best = min(range(len(means)), key=lambda i: means[i])
            axes.plot(rates[best], means[best], marker="*", markersize=12, color=f"C{number}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.set(xscale="log", yscale="log", xlabel="learning rate (Adam)", title=f"init={init}")
    panels[0].set_ylabel(f"training loss after {STEPS} steps")
    panels[0].legend(frameon=False)
    sheet.savefig(path, dpi=120)


def main(folder: str = "outputs/benchmarks") -> None:
    """Measure, print the best learning rates, and write the files."""
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    losses = measure(WIDTHS, EXPONENTS, SEEDS)
    rows = [
        {"init": init, "width": width, "exponent": exponent, "losses": values}
        for (init, width, exponent), values in losses.items()
    ]
    best = {init: best_exponents(losses, init) for init in INITS}
    document = {"machine": describe_machine(1), "steps": STEPS, "best": best, "runs": rows}
    (out / "mup.json").write_text(json.dumps(document, indent=1))
    draw(losses, out / "mup.png")
    print(best)


if __name__ == "__main__":
    main(*sys.argv[1:])
