"""Gradient clipping by value and adaptive clipping, against torch, timm and numbers by hand."""

from __future__ import annotations

import math

import pytest
import torch
from running import job
from small_runs import build, interrupted, small, uninterrupted
from timm.utils import adaptive_clip_grad
from torch import nn

from runner.engine.clipping import clip_adaptive, clip_value
from runner.errors import ConfigError

BAD = [math.nan, math.inf, -math.inf]


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))


def with_gradients(scale: float = 1.0, dtype: torch.dtype = torch.float32) -> nn.Module:
    model = network().to(dtype)
    torch.manual_seed(4)
    for number, p in enumerate(model.parameters()):
        p.grad = scale * torch.randn(p.shape).to(dtype) * 10.0 ** (number % 3 - 2)
    return model


def gradients(model: nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_clipping_by_value_equals_torch() -> None:
    ours, theirs = with_gradients(), with_gradients()
    norms = clip_value(0.05)(ours)
    before = [p.grad.norm().item() for p in theirs.parameters()]
    nn.utils.clip_grad_value_(theirs.parameters(), 0.05)
    assert all(map(torch.equal, gradients(ours), gradients(theirs)))
    assert norms.tolist() == pytest.approx(before)
    assert max(g.abs().max().item() for g in gradients(ours)) == pytest.approx(0.05)


@pytest.mark.parametrize("limit", [0.01, 0.5, 100.0])
def test_adaptive_clipping_equals_timm(limit: float) -> None:
    ours, theirs = with_gradients(), with_gradients()
    clipped = list(ours.parameters())[:-2]  # all but the classifier
    norms = clip_adaptive(clipped, limit)(ours)
    assert norms.tolist() == pytest.approx([p.grad.norm().item() for p in theirs.parameters()])
    adaptive_clip_grad(list(theirs.parameters())[:-2], limit)
    for a, b in zip(gradients(ours), gradients(theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_a_unit_is_one_output_and_a_bias_is_one_unit() -> None:
    # |w| = 5 and 1, limit .1: largest norms .5 and .1; the gradients have the norms 10 and .05
    layer = nn.Linear(2, 2)
    layer.weight.data = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    layer.bias.data = torch.zeros(2)
    layer.weight.grad = torch.tensor([[6.0, 8.0], [0.03, 0.04]])
    layer.bias.grad = torch.tensor([3.0, 4.0])  # to .1 * .001, the smallest norm that counts
    clip_adaptive(list(layer.parameters()), 0.1)(layer)
    torch.testing.assert_close(layer.weight.grad, torch.tensor([[0.3, 0.4], [0.03, 0.04]]))
    torch.testing.assert_close(layer.bias.grad, torch.tensor([6e-5, 8e-5]))


def test_gradients_of_zero_stay() -> None:
    model = network()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    clip_adaptive(list(model.parameters()), 0.01)(model)
    assert not any(g.any() for g in gradients(model))


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("kind", ["value", "agc"])
def test_a_gradient_that_is_not_finite_is_still_seen(kind: str, number: int, bad: float) -> None:
    model = with_gradients()
    parameters = list(model.parameters())
    parameters[number].grad.view(-1)[-1] = bad
    (clip_value(0.1) if kind == "value" else clip_adaptive(parameters[:-2], 0.1))(model)
    assert not all(g.isfinite().all() for g in gradients(model))


@pytest.mark.parametrize("clip", [clip_value(0.05), None])
def test_half_precision_has_norms_in_float32(clip) -> None:
    model = with_gradients(dtype=torch.bfloat16)
    before = [p.grad.float().norm().item() for p in model.parameters()]
    norms = (clip or clip_adaptive(list(model.parameters()), 0.05))(model)
    assert norms.dtype == torch.float32 and norms.tolist() == pytest.approx(before)
    assert {p.grad.dtype for p in model.parameters()} == {torch.bfloat16}


def test_frozen_parameters_are_left_out() -> None:
    model = with_gradients()
    parameters = list(model.parameters())
    parameters[0].grad = None
    for clip in (clip_value(0.1), clip_adaptive(parameters, 0.1)):
        assert len(clip(model)) == len(parameters) - 1


def test_adaptive_clipping_leaves_out_the_classifier_of_the_model() -> None:
    experiment = build(small({"model": "cnn", "clip": 1e-6, "clip_by": "agc"}))
    model = experiment.learner.model
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    experiment.recipe.clip(model)
    unclipped = {name for name, p in model.named_parameters() if torch.equal(p.grad, torch.ones_like(p))}
    assert unclipped == {"head.weight", "head.bias"}


@pytest.mark.parametrize("kind", ["norm", "value", "agc"])
@pytest.mark.parametrize("more", [{}, {"precision": "bf16"}, {"accumulate": 2, "optim": "adamw"}])
def test_each_kind_resumes_bit_for_bit_and_differs(kind: str, more, tmp_path) -> None:
    given = small({"model": "cnn", "steps": 4, "probe": ["grad_norm"], **more})
    clipped = {**given, "clip": 0.01, "clip_by": kind}
    whole, again = uninterrupted(clipped, 4)[1], interrupted(clipped, 2, 4, tmp_path)
    assert (again.state, again.printed, again.rows) == (whole.state, whole.printed, whole.rows)
    assert whole.state != uninterrupted(given, 4)[1].state


def test_what_cannot_act_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^clip_by: got 'value'; requires clip=\.\.\.$"):
        job("clip_by=value")
    with pytest.raises(ConfigError, match=r"^clip_by: got 'agc', which leaves the classifier out"):
        build(small({"model": "linear", "clip": 0.01, "clip_by": "agc"}))
