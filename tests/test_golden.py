"""The first losses of each recipe equal stored ones, unless a change of numbers is declared.

`RUNNER_GOLDEN=write python -m pytest tests/test_golden.py` writes the files anew. The first line of a file is the key
of the machine that wrote it: where it is the same, losses are equal to the bit. Other processors and versions of torch
sum in other orders. In float32 some recipes amplify that to percents within 20 steps, so there the same steps made in
float64 are compared, within 0.1 %.
"""

import os
import platform
from pathlib import Path

import pytest
import torch
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


def losses(overrides, dtype):
    experiment = assemble(job(*overrides).config)
    learner, recipe = experiment.learner, experiment.recipe
    learner.model.to(dtype)
    for state in learner.optimizer.state.values():
        state.update({name: value.to(dtype) for name, value in state.items() if isinstance(value, torch.Tensor)})
    for images, labels in experiment.batches.stream(0, STEPS):
        learner.set_lr()
        yield update(recipe, learner, *recipe.mix(images.to(dtype), labels, learner.step)).loss.item()


def machine():
    """Return what the last bits of a loss depend on."""
    capability = torch.backends.cpu.get_cpu_capability()
    return f"# torch {torch.__version__}, {processor()}, {capability}, {torch.get_num_threads()} thread(s)"


def processor():
    """Return the name of the processor: two of one capability may still call different kernels."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


@pytest.mark.parametrize("name", CASES)
def test_the_first_losses_are_what_they_were(name):
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("RUNNER_GOLDEN") == "write":
        both = zip(losses(CASES[name], torch.float32), losses(CASES[name], torch.float64), strict=True)
        rows = [f"{step} {single!r} {double!r}\n" for step, (single, double) in enumerate(both, 1)]
        path.write_text("".join([f"{machine()}\n", *rows]))
    key, *lines = path.read_text().splitlines()
    steps, single, double = zip(*(map(float, line.split()) for line in lines), strict=True)
    assert steps == tuple(range(1, STEPS + 1))
    if key == machine():
        assert tuple(losses(CASES[name], torch.float32)) == single
    else:
        assert tuple(losses(CASES[name], torch.float64)) == pytest.approx(double, rel=1e-3)
