"""The first losses of each recipe stay what they are: a refactoring leaves them, a change of numbers says so.

`RUNNER_GOLDEN=write python -m pytest tests/test_golden.py` writes the files anew. Processors sum in different orders,
so losses are compared within 2 %, which the first 20 steps stay well below.
"""

import os
from pathlib import Path

import pytest
from running import job

from runner.assemble import assemble
from runner.engine.train import update

GOLDEN = Path(__file__).parent / "golden"
STEPS = 20
CASES = {
    "default": [],
    "recipe_digits": ["recipe=digits"],
    "recipe_cifar10_resnet_on_digits": ["recipe=cifar10_resnet", "data=digits", "model.depth=8", "data.batch_size=64"],
    "recipe_speedrun_on_shapes": [
        *("recipe=speedrun_cifar10", "data=synthetic", "data.kind=shapes", "data.size=16", "data.batch_size=64"),
        *("model.channels=[16,32,32]", "optim.sgd_lr=3.4"),
    ],
    "tour_mlp": [
        *("model=mlp", "activation=tanh", "init=small_normal", "norm=none", "optim.lr=0.1"),
        *("augment=[crop,hflip]", "regularizer=[dropout,l2]"),
    ],
    "mixed": ["model=cnn", "mix=cutmix", "optim=adamw", "regularizer=[dropout]", "accumulate=2", "average=ema"],
}


def losses(overrides):
    experiment = assemble(job(*overrides).config)
    learner, recipe = experiment.learner, experiment.recipe
    for images, labels in experiment.batches.stream(0, STEPS):
        learner.set_lr()
        yield update(recipe, learner, *recipe.mix(images, labels, learner.step)).loss.item()


@pytest.mark.parametrize("name", CASES)
def test_the_first_losses_are_what_they_were(name):
    found = list(losses(CASES[name]))
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("RUNNER_GOLDEN") == "write":
        path.write_text("".join(f"{step} {loss:.6f}\n" for step, loss in enumerate(found, 1)))
    lines = [line.split() for line in path.read_text().splitlines()]
    assert [int(step) for step, _ in lines] == list(range(1, STEPS + 1))
    assert found == pytest.approx([float(loss) for _, loss in lines], rel=0.02)
