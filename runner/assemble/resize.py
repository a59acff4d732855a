"""The size of training images: the option of `resize`, and the check that the model takes all its sizes."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn

from runner.assemble.norms import check_norms
from runner.engine.batches import TrainBatches
from runner.engine.clock import Clock
from runner.engine.contracts import Data, Resize
from runner.engine.parts import mode
from runner.engine.recipe import Batch
from runner.errors import ConfigError, brief, short_reason
from runner.registry import Config, build

_MixStep = Callable[[Tensor, Tensor, int], Batch]
_GROUP = "resize"
# Images of a trial: batch norms need more than one
_EXAMPLES = 2


def build_resize(config: Config, data: Data, batches: TrainBatches, model: nn.Module, clock: Clock) -> Resize:
    """Return what gives training images their size; raises ConfigError if the model or the teacher has one size."""
    resize: Resize = build(_GROUP, config[_GROUP], shape=data.shape, clock=clock)
    sizes = getattr(resize, "sizes", ())
    name = config[_GROUP]["name"]
    if sizes and config["distillation"]["name"] != "none":
        raise ConfigError(
            f"{_GROUP}: got '{name}', must be none with distillation={config['distillation']['name']}, whose teacher "
            "was trained on images of one size"
        )
    for height, width in sizes:
        shape = (data.shape[0], height, width)
        if reason := _why_not(model, shape):
            raise ConfigError(
                f"{_GROUP}={name}: model={config['model']['name']} does not take images of {height}x{width} "
                f"({reason}); expected convolutions with global pooling, or larger sizes"
            )
        check_norms(model, replace(data, shape=shape), batches)
    return resize


def _why_not(model: nn.Module, shape: tuple[int, int, int]) -> str | None:
    """Return why a model fails on images of a shape (C, H, W) in training, None if it works; it stays as it is."""
    trial = deepcopy(model).float()
    with torch.random.fork_rng(devices=[]), torch.no_grad(), mode(trial, training=True):
        try:
            trial(torch.zeros(_EXAMPLES, *shape))
        # What a model raises is up to it
        except Exception as error:
            return brief(short_reason(error))
    return None


def resized(mix: _MixStep, resize: Resize) -> _MixStep:
    """Return a mix of batches that are then resized."""

    def mixed(images: Tensor, labels: Tensor, step: int) -> Batch:
        made = mix(images, labels, step)
        # A mix of a plugin may return anything, which is checked before the run
        return (resize(made[0], step), *made[1:]) if isinstance(made, tuple) and made else made

    return mixed
