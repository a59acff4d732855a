"""A short training in one of several processes, in float64: its losses, gradient norms, scores and weights.

`python joint_run.py <rank> <size> <folder>` reads `<folder>/choices.json` and writes `<folder>/<size>-<rank>.pt`.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

STEPS = 100


def main(rank: int, size: int, folder: Path) -> None:
    """Train each of the given configs, and save what was found."""
    torch.set_num_threads(1)
    store = distributed.FileStore(str(folder / f"store-{size}"), size)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=120))
    found = {}
    for name, choices in json.loads((folder / "choices.json").read_text()).items():
        found[name] = _train(choices, rank, size)
    torch.save(found, folder / f"{size}-{rank}.pt")
    distributed.barrier()
    os._exit(0)


def _train(choices: dict[str, Any], rank: int, size: int) -> dict[str, Any]:
    from small_runs import config, small

    from runner.assemble import assemble
    from runner.engine.evaluation import validate
    from runner.engine.fast_step import torch_stepper
    from runner.engine.interruption import NEVER
    from runner.engine.process_group import ProcessGroup
    from runner.engine.train import update as make_update
    from runner.engine.world import ALONE

    world = ALONE if size == 1 else ProcessGroup(rank, size)
    made = assemble(config(small(choices)), world=world)
    made.learner.model.double()
    for state in made.learner.optimizer.state.values():
        state |= {
            k: v.double() if torch.is_tensor(v) and v.ndim and v.is_floating_point() else v for k, v in state.items()
        }
    made.learner.stepper = torch_stepper(made.learner.optimizer)
    if made.learner.average.module is not made.learner.model:
        made.learner.average.module.double()
    recipe = made.recipe
    forward, predict, mix = recipe.forward, recipe.predict, recipe.mix
    recipe = replace(
        recipe,
        forward=lambda model, images: forward(model, images.double()),
        predict=lambda model, images: predict(model, images.double()),
        mix=lambda images, labels, step: _exact(*mix(images.double(), labels, step)),
    )
    losses, norms = [], []
    total = min(STEPS, recipe.total_steps)
    for images, labels in made.batches.stream(0, total):
        made.learner.set_lr()
        images, labels = recipe.mix(images, labels, made.learner.step)
        norms.append(0.0)
        outcome = make_update(recipe, made.learner, images, labels)
        losses.append(float(outcome.loss))
        norms[-1] = float(
            torch.stack([p.grad.norm() for p in made.learner.model.parameters() if p.grad is not None]).norm()
        )
    recipe.division.settle(made.learner.model, made.learner.average.module)
    made.learner.recalibrate(made.learner, NEVER)
    scores = validate(recipe, made.learner, made.validation, NEVER)
    return {
        "losses": torch.tensor(losses, dtype=torch.float64),
        "norms": torch.tensor(norms, dtype=torch.float64),
        "scores": scores,
        "weights": {key: value.detach().clone() for key, value in made.learner.model.state_dict().items()},
        "average": {key: value.detach().clone() for key, value in made.learner.average.module.state_dict().items()},
    }


def _exact(images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return images, labels.double() if labels.is_floating_point() else labels


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
