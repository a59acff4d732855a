"""SWAG against stored iterates, the covariance of its definition, and the closed form of SGD on a quadratic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from runner import components  # noqa: F401  (registers all)
from runner.engine.clock import Clock
from runner.engine.contracts import Average
from runner.engine.losses import Prediction, as_loss
from runner.engine.posterior import Posterior, posterior_of
from runner.registry import build

CONF = Path(__file__).parents[2] / "conf"


def swag(model: nn.Module, total: int, **changes: Any) -> Average:
    config = {**yaml.safe_load((CONF / "average" / "swag.yaml").read_text()), **changes}
    return build("average", config, model=model, clock=Clock(total, steps_per_epoch=5, batch=8))


def posterior(averaged: Average) -> Posterior:
    found = posterior_of(averaged.module)
    assert found is not None
    return found


def line(values: Tensor) -> nn.Module:
    """Return a linear model of one output with these weights."""
    model = nn.Linear(len(values), 1, bias=False)
    model.weight.data[0] = values
    return model


def collect(points: Tensor, **changes: Any) -> Average:
    """Return the average of a linear model that has each of the points (T, D) as its weights after a step."""
    model = line(points[0])
    averaged = swag(model, len(points), **changes)
    for step, point in enumerate(points, 1):
        model.weight.data[0] = point
        averaged.update(model, step)
    return averaged


def covariance_of_definition(points: np.ndarray, rank: int) -> np.ndarray:
    """Return (diag + D D^T / (k - 1)) / 2 by equations 1 to 3 of the paper, from all collected weights (T, D)."""
    variance = (points**2).mean(0) - points.mean(0) ** 2
    differences = np.stack([point - points[: i + 1].mean(0) for i, point in enumerate(points)])[-rank:]
    return (np.diag(variance) + differences.T @ differences / (len(differences) - 1)) / 2


def covariance_of_samples(averaged: Average, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the covariance of sampled weights."""
    drawn = torch.cat([posterior(averaged).sample(seed)["weight"] for seed in range(count)]).double().numpy()
    return drawn.mean(0), np.cov(drawn.T)


def test_mean_variance_and_differences_are_those_of_the_collected_weights() -> None:
    points = torch.randn(23, 3, generator=torch.Generator().manual_seed(0)) + 5
    averaged = collect(points, start="7steps", every="3steps", rank=4)
    kept = points[6::3].double().numpy()
    state = averaged.state_dict()
    np.testing.assert_allclose(averaged.module.weight[0].numpy(), kept.mean(0), rtol=1e-5)
    np.testing.assert_allclose(state["swag.variance.weight"][0].numpy(), kept.var(0), rtol=1e-4)
    differences = np.stack([point - kept[: i + 1].mean(0) for i, point in enumerate(kept)])
    found = state["swag.differences.weight"][:, 0].numpy()
    # A ring: the fifth difference replaces the first one
    order = [max(range(i, len(kept), 4)) for i in range(4)]
    np.testing.assert_allclose(found, differences[order], rtol=1e-4, atol=1e-6)
    assert state["swag.count"] == len(kept) == 6


def test_small_variances_of_large_weights_are_not_rounded_away() -> None:
    points = 100 + 1e-3 * torch.randn(50, 2, generator=torch.Generator().manual_seed(1))
    averaged = collect(points, start="0%", every="1step")
    expected = points.double().numpy().var(0)
    np.testing.assert_allclose(averaged.state_dict()["swag.variance.weight"][0].numpy(), expected, rtol=0.05)


def test_weights_that_do_not_move_have_no_variance() -> None:
    averaged = collect(torch.full((9, 2), 0.3), start="0%", every="1step")
    assert not any(t.any() for name, t in averaged.state_dict().items() if name != "swag.count")
    assert torch.equal(posterior(averaged).sample(0)["weight"], averaged.module.weight)


@pytest.mark.parametrize("rank", [2, 5, 40])
def test_samples_have_the_covariance_of_the_definition(rank: int) -> None:
    """With a rank above the number of collected weights, all differences count."""
    mix = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.3, -0.6], [0.0, 0.0, 0.2]])
    points = torch.randn(30, 3, generator=torch.Generator().manual_seed(2)) @ mix + torch.tensor([1.0, -2.0, 0.5])
    averaged = collect(points, start="0%", every="1step", rank=rank)
    mean, found = covariance_of_samples(averaged, 6000)
    expected = covariance_of_definition(points.double().numpy(), rank)
    # Six standard errors of a covariance of Gaussian numbers
    errors = np.sqrt((np.outer(expected.diagonal(), expected.diagonal()) + expected**2) / 6000)
    assert (np.abs(found - expected) < 6 * errors).all()
    np.testing.assert_allclose(mean, points.double().numpy().mean(0), atol=6 * np.sqrt(expected.max() / 6000))


def test_the_covariance_is_that_of_the_iterates_of_sgd_on_a_linear_gaussian_model() -> None:
    """The gradient of a quadratic with curvatures a and correlated noise S: w <- w - r (a w + noise).

    Its stationary covariance is r^2 S_ij / (1 - (1 - r a_i)(1 - r a_j)). SWAG takes half of it, and half its diagonal.
    """
    rate, curvatures = 0.2, torch.tensor([1.0, 0.5])
    noise = torch.tensor([[1.0, 0.6], [0.6, 0.5]])
    generator, root = torch.Generator().manual_seed(3), torch.linalg.cholesky(noise)
    points, weights = [], torch.zeros(2)
    for _ in range(12_000):
        weights = weights - rate * (curvatures * weights + root @ torch.randn(2, generator=generator))
        points.append(weights)
    averaged = collect(torch.stack(points), start="2000steps", every="1step", rank=10_001)
    decay = 1 - rate * curvatures
    theory = (rate**2 * noise / (1 - decay[:, None] * decay)).double().numpy()
    state = averaged.state_dict()
    differences = state["swag.differences.weight"][:, 0].double().numpy()
    found = (np.diag(state["swag.variance.weight"][0].double().numpy()) + differences.T @ differences / 10_000) / 2
    np.testing.assert_allclose(found, (np.diag(theory.diagonal()) + theory) / 2, rtol=0.1)
    np.testing.assert_allclose(averaged.module.weight[0].numpy(), 0, atol=0.1)


def method(samples: int) -> Any:
    loss = as_loss(lambda outputs, labels: F.cross_entropy(outputs, labels))
    return build("predict", {"name": "swag", "samples": samples}, loss=loss)


def trained() -> Average:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))
    averaged = swag(model, 20, start="0%", every="1step")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    for step in range(1, 21):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
        averaged.update(model, step)
    averaged.module.eval()
    return averaged


def predicted(averaged: Average, images: Tensor, samples: int, seed: int) -> Prediction:
    torch.manual_seed(seed)
    with torch.no_grad():
        return method(samples)(averaged.module, images)


def test_the_prediction_is_the_mean_over_sampled_models_and_leaves_the_mean_alone() -> None:
    averaged, images = trained(), torch.randn(5, 4)
    before = {name: tensor.clone() for name, tensor in averaged.module.state_dict().items()}
    one, two = (predicted(averaged, images, samples, 7) for samples in (1, 2))
    twice = {name: tensor.clone() for name, tensor in averaged.module.state_dict().items()}
    assert all(torch.equal(before[name], tensor) for name, tensor in twice.items())
    # The second model alone, from the mean of both
    second = 2 * two.log_p.exp() - one.log_p.exp()
    torch.testing.assert_close(second, (2 * two.logits - one.logits).softmax(1))
    assert not torch.allclose(second, one.log_p.exp())


def test_all_batches_see_the_same_models_and_the_seed_decides_which() -> None:
    averaged, images = trained(), torch.randn(6, 4)
    whole = predicted(averaged, images, 3, 7).logits
    torch.manual_seed(7)
    with torch.no_grad():
        parts = [method(3)(averaged.module, part).logits for part in (images[:2], images[2:])]
    torch.testing.assert_close(torch.cat(parts), whole)
    assert not torch.allclose(predicted(averaged, images, 3, 8).logits, whole)


@pytest.mark.parametrize("count", [0, 1])
def test_before_two_weights_are_collected_the_mean_predicts(count: int) -> None:
    averaged = trained()
    posterior(averaged)._count.fill_(count)
    images = torch.randn(3, 4)
    assert torch.equal(predicted(averaged, images, 5, 0).logits, averaged.module(images))


def test_an_extended_run_whose_dates_begin_later_starts_anew() -> None:
    points = torch.randn(20, 2, generator=torch.Generator().manual_seed(4))
    shorter = collect(points[:10], start="5steps", every="1step", rank=3)
    model = line(points[0])
    longer = swag(model, 20, start="15steps", every="1step", rank=3)
    longer.load_state_dict(shorter.state_dict())
    for step in range(11, 21):
        model.weight.data[0] = points[step - 1]
        longer.update(model, step)
    whole = collect(points, start="15steps", every="1step", rank=3)
    assert all(torch.equal(longer.state_dict()[name], tensor) for name, tensor in whole.state_dict().items())
