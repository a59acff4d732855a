"""Weights that are views of other memory: every optimizer makes the same steps as for contiguous weights."""

import pytest
import torch
from running import job
from torch import nn

from runner.assemble import assemble
from runner.engine.learner import is_dense
from runner.engine.recipe import drive
from runner.registry import names


class Strided(nn.Module):
    """A network with a hidden layer whose weights are views: every second column, transposed, permuted, or plain."""

    def __init__(self, layout):
        super().__init__()
        self.hidden, self.head = nn.Linear(64, 12), nn.Linear(12, 10)
        self.hidden.weight = nn.Parameter(layout(self.hidden.weight.detach()))

    def forward(self, images):
        return self.head(self.hidden(images.flatten(1)).relu())


def every_second(weight):
    """Return the weight as every second column of a wider tensor."""
    wide = torch.full((weight.shape[0], 2 * weight.shape[1]), 7.0)
    wide[:, ::2] = weight
    return wide[:, ::2]


LAYOUTS = {
    "every second column": every_second,
    "the first columns": lambda weight: torch.cat([weight, torch.ones(12, 3)], 1)[:, :64],
    "with an offset": lambda weight: torch.cat([torch.ones(1, 64), weight])[1:],
    "transposed": lambda weight: weight.t().contiguous().t(),
}
DENSE = {"with an offset", "transposed"}


def trained(monkeypatch, optim, layout, steps=4):
    """Return the weights after some steps, and the groups of the optimizer."""

    def build_model(config, data, batches, regularizers, weights):
        torch.manual_seed(3)
        return Strided(layout), []

    monkeypatch.setattr("runner.assemble.build_model", build_model)
    words = ("preprocess=standardize", "augment=[]", "average=none", "init=torch_default", "probe=[]", "steps=4")
    experiment = assemble(job(f"optim={optim}", *words).config)
    learner, recipe = experiment.learner, experiment.recipe
    for images, labels in experiment.batches.stream(0, steps):
        learner.set_lr()
        drive(recipe.update(recipe, learner, images, labels), recipe, learner)
    return {name: value.detach().clone() for name, value in learner.model.named_parameters()}, learner.optimizer


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("optim", sorted(names("optim")))
def test_the_memory_layout_of_a_weight_does_not_change_its_steps(monkeypatch, optim, layout):
    expected, _ = trained(monkeypatch, optim, lambda weight: weight.clone())
    found, optimizer = trained(monkeypatch, optim, LAYOUTS[layout])
    assert not torch.equal(expected["hidden.weight"], Strided(lambda weight: weight).hidden.weight)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=f"{name} with {optim}")
    if layout not in DENSE:
        assert not any(group.get("fused") for group in optimizer.param_groups)


def test_dense_is_what_torch_calls_non_overlapping_and_dense():
    base = torch.zeros(4, 6, 5)
    tensors = [base, base.permute(2, 0, 1), base[:2], base[:, :2], base[:, :, ::2], base[1:3, :, :], base[:, :1, :1]]
    tensors += [torch.zeros(()), torch.zeros(0, 3), torch.zeros(1, 3)[:, :1], torch.zeros(1).expand(3), base[0, 0, ::5]]
    tensors += [torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last), torch.zeros(3, 1, 1, 1)[::2]]
    # Torch keeps the strides of such a tensor in a copy, and makes all others contiguous
    for tensor in tensors:
        copied = torch.empty_like(tensor, memory_format=torch.preserve_format)
        kept = [(a, n) for a, n in zip(tensor.stride(), tensor.shape, strict=True) if n > 1]
        same = kept == [(a, n) for a, n in zip(copied.stride(), copied.shape, strict=True) if n > 1]
        assert is_dense(tensor) == (same or tensor.numel() == 0), (tensor.shape, tensor.stride())
