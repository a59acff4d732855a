"""The model: built, rewired, initialised."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from runner.assemble.config import Config
from runner.assemble.inventory import inventory
from runner.assemble.norms import check_norms
from runner.engine.batches import TrainBatches
from runner.engine.contracts import Data, Regularizer
from runner.engine.parts import told
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
    check_norms(model, data, batches.batch)
    context: dict[str, Any] = {}
    if asks("init", config["init"]["name"], "images"):
        context["images"] = next(batches.stream(0, 1))[0].cpu()
    build("init", config["init"], **context)(model)
    count = sum(parameter.numel() for parameter in model.parameters())
    first = f"{config['model']['name']}: {count:,} parameters; {inventory(model)}"
    return model, [first, *told(model), *rewired]
