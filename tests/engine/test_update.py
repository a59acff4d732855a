"""SAM against its formula: by hand, on a quadratic, and with torch.autograd on a run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_runs import build, small, train_to, uninterrupted
from test_recipe import bowl, plane
from test_train import examples, flat, learner, net, recipe
from torch import Tensor, nn
from torch.nn import functional as F

from runner.components.update import sam
from runner.engine.logs.log import Log
from runner.engine.loss_scaler import LossScaler
from runner.engine.recipe import plain_update
from runner.engine.train import update
from runner.errors import ConfigError
from runner.registry import build as build_part


def test_two_steps_by_hand() -> None:
    # w = (3, 4): g = w, |g| = 5, e = (.6, .8); the gradient at w + e is (3.6, 4.8); w - .5 of it = (1.2, 1.6).
    # Then |g| = 2, e = (.6, .8) again, the gradient is (1.8, 2.4), and w = (.3, .4).
    made, images, labels = plane([3.0, 4.0])
    given = recipe(loss=bowl, update=sam(rho=1.0, adaptive=False))
    for loss, weights in ((12.5, [1.2, 1.6]), (2.0, [0.3, 0.4])):
        assert update(given, made, images, labels).loss.item() == pytest.approx(loss, rel=1e-11)
        assert made.model.weight.tolist()[0] == pytest.approx(weights, rel=1e-11)
    assert made.step == 2


def test_an_adaptive_step_by_hand() -> None:
    # w = (3, 4) = g: |w| * g = (9, 16), whose norm is sqrt(337); e = (27, 64) / sqrt(337)
    made, images, labels = plane([3.0, 4.0])
    update(recipe(loss=bowl, update=sam(rho=1.0, adaptive=True)), made, images, labels)
    norm = 337**0.5
    assert made.model.weight.tolist()[0] == pytest.approx([1.5 - 13.5 / norm, 2 - 32 / norm], rel=1e-11)


def test_a_quadratic_has_the_closed_form() -> None:
    """L = w.Aw / 2 has the gradient A w, so that the step is w - lr * A (w + rho * A w / |A w|)."""
    torch.manual_seed(0)
    a = torch.randn(2, 2, dtype=torch.double)
    a = a @ a.T
    made, images, labels = plane([1.5, -0.5])
    w = made.model.weight.detach()[0].clone()
    given = recipe(
        loss=lambda logits, labels: 0.5 * logits[:, 0] @ a @ logits[:, 0], update=sam(rho=0.3, adaptive=False)
    )
    for _ in range(5):
        g = a @ w
        w = w - 0.5 * a @ (w + 0.3 * g / g.norm())
        update(given, made, images, labels)
    torch.testing.assert_close(made.model.weight.detach()[0], w, rtol=1e-10, atol=1e-12)


def gradients_of(model: nn.Module, weights: list[Tensor], images: Tensor, labels: Tensor) -> list[Tensor]:
    names = [name for name, _ in model.named_parameters()]
    given = [w.detach().requires_grad_() for w in weights]
    logits = torch.func.functional_call(model, dict(zip(names, given, strict=True)), (images,))
    return list(torch.autograd.grad(F.cross_entropy(logits, labels), given))


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_run_equals_the_formula_in_torch(adaptive: bool) -> None:
    given = small({"optim": "sgd", "optim.lr": 0.3, "norm": "none", "scheduler": "constant", "average": "none"})
    given |= {"optim.weight_decay": 0.0, "update": "sam", "update.rho": 0.2, "update.adaptive": adaptive}
    made = build(given)
    weights = [p.detach().clone() for p in made.learner.model.parameters()]
    for images, labels in made.batches.stream(0, 4):
        g = gradients_of(made.learner.model, weights, images, labels)
        t = [w.abs() if adaptive else torch.ones_like(w) for w in weights]
        norm = sum((ti * gi).square().sum() for ti, gi in zip(t, g, strict=True)).sqrt()
        ahead = [w + 0.2 * ti**2 * gi / norm for w, ti, gi in zip(weights, t, g, strict=True)]
        weights = [
            w - 0.3 * s for w, s in zip(weights, gradients_of(made.learner.model, ahead, images, labels), strict=True)
        ]
    experiment, _ = uninterrupted(given, 4)
    for p, w in zip(experiment.learner.model.parameters(), weights, strict=True):
        torch.testing.assert_close(p.detach(), w, rtol=1e-4, atol=1e-6)


def one_step(**more: Any) -> Any:
    experiment, _ = uninterrupted(small({"model": "cnn", "norm": "batch", **more}), 1)
    return experiment.learner


def test_buffers_are_those_of_the_first_pass() -> None:
    plain, sharp = one_step(), one_step(update="sam", **{"update.rho": 1.0})
    buffers = [dict(each.model.named_buffers()) for each in (plain, sharp)]
    assert any("running_mean" in name for name in buffers[0])
    assert all(torch.equal(tensor, buffers[1][name]) for name, tensor in buffers[0].items())
    assert not torch.equal(flat(plain.model), flat(sharp.model))


def test_both_passes_have_the_same_images_labels_and_dropout_masks() -> None:
    made = build(small({"update": "sam", "mix": "mixup", "regularizer": ["dropout"], "update.rho": 1e-9}))
    seen: list[tuple[Tensor, Tensor]] = []
    drop = next(m for m in made.learner.model.modules() if isinstance(m, nn.Dropout))
    drop.register_forward_hook(lambda module, given, out: seen.append((given[0].detach(), out.detach() == 0)))
    train_to(made, 2, Log())
    first, again, second, _ = seen
    torch.testing.assert_close(first[0], again[0], rtol=1e-4, atol=1e-5)
    assert torch.equal(first[1], again[1]) and not torch.equal(first[1], second[1])


@pytest.mark.parametrize("adaptive", [False, True])
def test_gradients_of_zero_move_nothing(adaptive: bool) -> None:
    made, images, labels = plane([0.0, 0.0])
    update(recipe(loss=bowl, update=sam(rho=1.0, adaptive=adaptive)), made, images, labels)
    assert made.model.weight.tolist() == [[0.0, 0.0]]


def test_an_error_in_the_second_pass_leaves_weights_and_buffers() -> None:
    made = learner(nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.BatchNorm1d(3)).double())
    calls: list[Tensor] = []

    def failing(logits: Tensor, labels: Tensor) -> Tensor:
        calls.append(made.model[2].running_mean.clone())
        if len(calls) == 2:
            raise ValueError("in the second pass")
        return F.cross_entropy(logits, labels)

    before = flat(made.model)
    with pytest.raises(ValueError, match="in the second pass"):
        update(recipe(loss=failing, update=sam(rho=0.5, adaptive=False)), made, *examples())
    assert torch.equal(flat(made.model), before)
    assert torch.equal(made.model[2].running_mean, calls[0])


def test_the_factor_of_the_loss_scaler_cancels_out() -> None:
    plain, scaled = learner(net()), learner(net())
    scaled.scaler, scaled.scaling = LossScaler("cpu", init_scale=1024.0), True
    given = recipe(update=sam(rho=0.5, adaptive=False))
    for each in (plain, scaled):
        update(given, each, *examples())
    torch.testing.assert_close(flat(plain.model), flat(scaled.model), rtol=1e-12, atol=1e-14)


def test_the_loss_scaler_skips_a_first_pass_that_overflows() -> None:
    made = learner(net().float())
    made.scaler, made.scaling = LossScaler("cpu", init_scale=2.0**127), True
    images, labels = examples()
    before = flat(made.model)
    given = recipe(update=sam(rho=0.5, adaptive=False), loss=lambda x, y: 1e3 * F.cross_entropy(x, y))
    out = update(given, made, images.float(), labels)
    assert out.loss.isfinite()
    assert torch.equal(flat(made.model), before)
    assert made.scaler.get_scale() == 2.0**126


def test_frozen_parameters_do_not_move() -> None:
    made = learner(net())
    frozen = made.model[1].weight.requires_grad_(False)
    before, seen = frozen.clone(), []

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        seen.append(frozen.clone())
        return F.cross_entropy(logits, labels)

    update(recipe(loss=loss, update=sam(rho=0.5, adaptive=False)), made, *examples())
    assert len(seen) == 2 and all(torch.equal(each, before) for each in seen)


@pytest.mark.parametrize(
    "more",
    [
        {"accumulate": 2, "clip": 0.1, "optim": "adamw"},
        {"precision": "bf16", "regularizer": ["l2"], "probe": ["confusion", "activations", "grad_norm"]},
        {"precision": "fp16", "average": "lookahead", "average.every": 2},
    ],
)
def test_it_combines(more: dict[str, Any]) -> None:
    experiment, left = uninterrupted(small({"update": "sam", **more}), 3)
    assert experiment.learner.step == 3
    assert left.state != uninterrupted(small(more), 3)[1].state


def test_plain_is_the_default_of_a_recipe() -> None:
    assert build_part("update", {"name": "plain"}) is plain_update is recipe().update


def test_weights_that_would_not_move_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^precision: got 'pure_bf16', must be another one with update=sam"):
        build(small({"update": "sam", "precision": "pure_bf16"}))
