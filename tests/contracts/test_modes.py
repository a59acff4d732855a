"""Training and evaluation mode differ where dropout or batch statistics are used."""

from __future__ import annotations

import pytest
import torch
from cases import choices
from small_runs import build
from torch import Tensor

from runner.assemble import Experiment
from runner.registry import names

RANDOM = {
    "alpha_dropout",
    "dropblock",
    "dropconnect",
    "dropout",
    "dropout2d",
    "dropout_vanilla",
    "fractional_pooling",
    "stochastic_depth",
}
ALSO_IN_EVALUATION = {
    "dropout_vanilla": "scales by 1 - p, the expectation",
    "fractional_pooling": "pools by fixed regions, which are not the 2x2 squares",
    "weight_standardization": "standardizes the weights that are evaluated",
}


def outputs(experiment: Experiment) -> tuple[Tensor, Tensor, Tensor]:
    """Return the logits of one batch in evaluation mode, then twice in training mode."""
    model = experiment.learner.model
    images = next(experiment.batches.stream(0, 1))[0]
    torch.manual_seed(0)
    with torch.no_grad():
        return model.eval()(images), model.train()(images), model(images)


@pytest.mark.parametrize("name", [name for name in names("model") if name not in ("timm", "torchvision")])
def test_models_alone_are_the_same_in_both_modes(name: str) -> None:
    evaluated, trained, again = outputs(build(choices("model", name) | {"norm": "none"}))
    torch.testing.assert_close(trained, evaluated)
    assert torch.equal(trained, again)


@pytest.mark.parametrize("name", names("activation"))
def test_activations_are_the_same_in_both_modes(name: str) -> None:
    evaluated, trained, _ = outputs(build(choices("activation", name) | {"norm": "none"}))
    assert torch.equal(trained, evaluated)


@pytest.mark.parametrize("name", names("norm"))
def test_of_the_norms_batch_norms_alone_look_at_other_examples(name: str) -> None:
    evaluated, trained, again = outputs(build(choices("norm", name)))
    assert torch.equal(trained, again)
    assert torch.allclose(trained, evaluated, atol=1e-5) == (name not in ("batch", "sync_batch"))


@pytest.mark.parametrize("name", names("regularizer"))
def test_regularizers_act_at_random_in_training_only(name: str) -> None:
    without, *_ = outputs(build(choices("regularizer", "l2") | {"norm": "layer", "regularizer": []}))
    evaluated, trained, again = outputs(build(choices("regularizer", name) | {"norm": "layer"}))
    assert torch.equal(trained, again) == (name not in RANDOM)
    assert torch.equal(evaluated, without) == (name not in ALSO_IN_EVALUATION)
