"""Runs with a non-finite number planted at a given step and place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from runner.assemble import Experiment
from runner.engine.schedules import Pure

WEIGHT, LAYER, NORM = "hidden.fc2.linear.weight", "hidden.fc2.linear", "hidden.fc1.norm"  # of model=mlp


def planted(experiment: Experiment, where: str, bad: float, step: int) -> Experiment:
    """Return a run with a non-finite number in the step after `step` steps, also if that step is repeated."""
    return PLANTS[where](experiment, bad, step)


def before_step(experiment: Experiment, step: int, act: Callable[[], object]) -> Experiment:
    """Do something just before the step after `step` steps."""
    mix = experiment.recipe.mix

    def mixed(images, labels, at):
        if at == step:
            act()
        return mix(images, labels, at)

    return replace(experiment, recipe=replace(experiment.recipe, mix=mixed))


def in_input(experiment, bad, step):
    stream = experiment.batches.stream

    def spoilt(start, stop):
        for number, (images, labels) in enumerate(stream(start, stop), start):
            if number == step:
                images = images.clone()
                images[3, 0, 0, 0] = bad
            yield images, labels

    experiment.batches.stream = spoilt
    return experiment


def in_loss(experiment, bad, step):
    loss, learner = experiment.recipe.loss, experiment.learner

    def spoilt(logits, labels):
        value = loss.train(logits, labels)
        return value * bad if learner.step == step else value

    return replace(experiment, recipe=replace(experiment.recipe, loss=replace(loss, train=spoilt)))


def in_gradient(experiment, bad, step):
    learner = experiment.learner

    def spoilt(gradient):
        if learner.step == step:
            gradient = gradient.clone()
            gradient.view(-1)[5] = bad
        return gradient

    learner.parameters[WEIGHT].register_hook(spoilt)
    return experiment


def in_output(experiment, bad, step):
    learner = experiment.learner

    def spoilt(module, inputs, output):
        if learner.step == step and module.training:
            output = output.clone()
            output[0, 0] = bad
        return output

    learner.model.get_submodule(LAYER).register_forward_hook(spoilt)
    return experiment


def in_weight(experiment, bad, step):
    return before_step(experiment, step, lambda: experiment.learner.parameters[WEIGHT].data[1, 2].fill_(bad))


def in_statistics(experiment, bad, step):
    norm = experiment.learner.model.get_submodule(NORM)
    return before_step(experiment, step, lambda: norm.running_mean[1].fill_(bad))


def in_lr(experiment, bad, step):
    factor = experiment.learner.schedule
    experiment.learner.schedule = Pure(lambda at: bad if at == step else factor(at))
    return experiment


def in_score(experiment, bad, step):
    predict, learner = experiment.recipe.predict, experiment.learner

    def spoilt(model, images):
        found, factor = predict(model, images), bad if learner.step == step + 1 else 1
        return replace(found, logits=found.logits * factor, log_p=found.log_p * factor)

    return replace(experiment, recipe=replace(experiment.recipe, predict=spoilt))


PLANTS = {name.removeprefix("in_"): function for name, function in list(globals().items()) if name.startswith("in_")}


def tensor_bytes(tensors: dict[str, torch.Tensor]) -> dict[str, bytes]:
    """Return the bytes of tensors, so that NaN equals itself."""
    return {name: tensor.detach().contiguous().view(torch.uint8).numpy().tobytes() for name, tensor in tensors.items()}
