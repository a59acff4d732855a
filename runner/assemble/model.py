"""The model: built, rewired, initialised."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from runner.assemble.config import Config
from runner.assemble.inventory import inventory
from runner.assemble.norms import check_norms
from runner.components.init.layers import classifier
from runner.engine.batches import TrainBatches
from runner.engine.contracts import Data, Regularizer
from runner.engine.parts import close_slots, notes
from runner.errors import ConfigError
from runner.registry import asks, build


def build_model(
    config: Config, data: Data, batches: TrainBatches, regularizers: list[Regularizer]
) -> tuple[nn.Module, list[str]]:
    """Return the initialised, rewired model on the CPU and what was done to it in words."""
    model: nn.Module = build(
        "model",
        config["model"],
        shape=data.shape,
        num_classes=len(data.classes),
        activation=partial(build, "activation", config["activation"]),
        norm=build("norm", config["norm"]),
    )
    rewired = [regularizer.rewire(model) for regularizer in regularizers if regularizer.rewire]
    close_slots(model)
    check_norms(model, data, batches.batch)
    context: dict[str, Any] = {}
    if asks("init", config["init"]["name"], "images"):
        context["images"] = next(batches.stream(0, 1))[0]
    build("init", config["init"], **context)(model)
    prior = [set_prior(classifier(model), data)] if config["init"]["head"] == "prior" else []
    count = sum(parameter.numel() for parameter in model.parameters())
    first = f"{config['model']['name']}: {count:,} parameters; {inventory(model)}"
    return model, [first, *notes(model), *rewired, *prior]


@torch.no_grad()
def set_prior(head: nn.Linear, data: Data) -> str:
    """Set the classifier's bias to the log of each class's share of the training examples and say so.

    With weights of zero the first loss is then the entropy of the shares (Karpathy 2019, "init well"). A class without
    examples counts as one, so that its logit is finite.
    """
    if head.bias is None:
        raise ConfigError("init.head: got 'prior', but this model's classifier has no bias to hold it")
    counts = data.train.labels.bincount(minlength=len(data.classes)).clamp_min(1)
    head.bias.copy_((counts / counts.sum()).log())
    return "the classifier starts at the classes' shares"
