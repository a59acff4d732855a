"""A trained model with what predictions need: preprocessing, loss, prediction method, precision. It needs no data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from runner.assemble.execution import convert_model
from runner.assemble.model import construct_model
from runner.assemble.recipe import autocaster, build_predict
from runner.assemble.threads import choose
from runner.engine.contracts import Predict
from runner.engine.losses import Loss, as_loss
from runner.engine.parametrized import detach_computed
from runner.engine.posterior import attach_as_in, evaluation_state, load_posterior
from runner.engine.randomness import key, reseeder
from runner.engine.state_dict import StateDict, load_part
from runner.engine.world import ALONE
from runner.registry import Config, build, build_many
from runner.settings import Settings


@dataclass(frozen=True)
class DataFacts:
    """Facts about the data that a model was trained on.

    Attributes:
        shape: (C, H, W) of an example.
        classes: The names of the classes, in the order of the labels.
        counts: The training examples of each class, None if they are not known.
        reading: What the training images decided about reading later ones (`Data.reading`).
        batch_size: The examples of a forward pass in training.
    """

    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    counts: tuple[int, ...] | None
    reading: Mapping[str, Any]
    batch_size: int


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A model in evaluation mode with everything that its predictions depend on (`runner.engine.evaluation`)."""

    facts: DataFacts
    settings: Settings
    device: torch.device
    model: nn.Module
    preprocess: nn.Module
    loss: Loss
    predict: Predict
    autocast: Callable[[], AbstractContextManager[None]]
    reseed: Callable[[int], None]

    def weights(self) -> StateDict:
        """Return the tensors of the model and of `preprocess`, by the names that a checkpoint has."""
        return evaluation_state(self.model, self.preprocess)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Load the tensors that a checkpoint has for evaluation; raises RuntimeError if they are of another model."""
        load_part("model", self.model, weights)
        load_part("preprocess", self.preprocess, weights)
        load_posterior(self.model, weights)


def assemble_predictor(
    config: Config, facts: DataFacts, settings: Settings, device: torch.device, *, threads: bool
) -> Predictor:
    """Return the model of a run as training built it, without weights; torch's random numbers are left as they were.

    With `threads` torch computes with as many threads as in training.

    Raises ConfigError if the model or the prediction method does not fit the data.
    """
    classes = len(facts.classes)
    with torch.random.fork_rng([]):
        # What a model draws when it is built and keeps out of its checkpoint is that of the run
        torch.manual_seed(key(settings.seed, "init"))
        model, _ = construct_model(_without_file(config), facts.shape, classes, build_many("regularizer", config))
    detach_computed(model)
    if threads:
        examples = facts.batch_size * settings.accumulate
        choose(settings.threads, model, shape=facts.shape, examples=examples, world=ALONE)
    convert_model(model, settings)
    model = model.to(device).eval()
    counts = torch.tensor(facts.counts or [1] * classes)
    loss = as_loss(build("loss", config["loss"], num_classes=classes, class_counts=counts))
    preprocess: Any = build("preprocess", config["preprocess"], shape=facts.shape)
    return Predictor(
        facts=facts,
        settings=settings,
        device=device,
        model=model,
        preprocess=preprocess.to(device),
        loss=loss,
        predict=build_predict(config, model, facts.shape, loss),
        autocast=autocaster(settings.precision, device, cache=not settings.cuda_graphs),
        reseed=reseeder(settings.seed, device),
    )


def match_average(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Prepare a model for the weights of a checkpoint, which may be averages.

    Its bfloat16 parameters become float32 where the checkpoint has an average of them in float32. It gets an empty
    distribution over its weights if the checkpoint has one.
    """
    for name, parameter in model.named_parameters():
        saved = weights.get(f"model.{name}")
        if parameter.dtype is torch.bfloat16 and saved is not None and saved.dtype is torch.float32:
            parameter.data = parameter.data.float()
    attach_as_in(model, weights)


def _without_file(config: Config) -> Config:
    """Return a config whose model starts from no file: its weights come from the checkpoint."""
    model = config["model"]
    return {**config, "model": {**model, "weights": None}} if "weights" in model else config
