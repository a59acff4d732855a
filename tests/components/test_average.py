"""Averages against averages of stored weights."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from runner import components  # noqa: F401  (registers all)
from runner.engine.clock import Clock
from runner.engine.contracts import Average
from runner.errors import ConfigError
from runner.registry import build, names

CONF = Path(__file__).parents[2] / "conf" / "average"
CLOCK = Clock(total_steps=20, steps_per_epoch=5, batch=8)
CYCLE_ENDS = (6, 13, 20)


def average(name: str, model: nn.Module, **changes: Any) -> Average:
    config = {**yaml.safe_load((CONF / f"{name}.yaml").read_text()), **changes}
    context = {"optimizer": schedulefree(model), "clock": CLOCK, "cycle_ends": CYCLE_ENDS}
    return build("average", config, model=model, **context)


def schedulefree(model: nn.Module) -> torch.optim.Optimizer:
    """Return the schedule-free optimizer of a model, the same one at each call."""
    if not hasattr(model, "optimizer"):
        config = yaml.safe_load((CONF.parent / "optim" / "schedulefree.yaml").read_text())
        object.__setattr__(model, "optimizer", build("optim", config, model=model))
    return model.optimizer


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))


def flat(model: nn.Module) -> Tensor:
    return torch.cat([t.detach().double().flatten() for t in model.state_dict().values()])


def train_on_noise(model: nn.Module, averaged: Average, steps: range, schedule_free: bool = False) -> list[Tensor]:
    """Train on noise and return the iterates before the average acts on them, running statistics included."""
    optimizer = schedulefree(model) if schedule_free else torch.optim.SGD(model.parameters(), lr=0.3)
    iterates = []
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        model(torch.randn(8, 4, generator=generator)).square().mean().backward()
        optimizer.step()
        iterates.append(flat(model))
        averaged.update(model, step)
    return iterates


def assert_same(averaged: Average, expected: Tensor) -> None:
    """Compare weights and running statistics with those expected; counts are not averaged."""
    floating = torch.cat(
        [torch.full((t.numel(),), t.is_floating_point()) for t in averaged.module.state_dict().values()]
    )
    torch.testing.assert_close(flat(averaged.module)[floating], expected[floating], rtol=1e-5, atol=1e-6)


def test_none_is_the_model_itself() -> None:
    model = network()
    averaged = average("none", model)
    train_on_noise(model, averaged, range(1, 4))
    assert averaged.module is model
    assert averaged.state_dict() == {}


def averages_of(points: list[float], **changes: Any) -> list[float]:
    """Return the average of a model of one weight after each of some steps."""
    model = nn.Linear(1, 1, bias=False)
    averaged = average("ema", model, **changes)
    found = []
    for step, point in enumerate(points, 1):
        nn.init.constant_(model.weight, point)
        averaged.update(model, step)
        found.append(averaged.module.weight.item())
    return found


def test_ema_with_warmup_is_stepped_by_hand() -> None:
    """The decay is 0, 1/10, 2/11 and 3/12; one of 0.2 is reached at the fourth step."""
    points = [10.0, 20.0, 30.0, 40.0]
    assert averages_of(points, decay=0.99, warmup=True) == pytest.approx([10, 19, 28, 37])
    assert averages_of(points, decay=0.2, warmup=True) == pytest.approx([10, 19, 28, 37.6])
    assert averages_of(points, decay=0.05, warmup=True) == pytest.approx([10, 19.5, 29.475, 39.47375])
    assert averages_of(points, decay=0.5, warmup=False) == pytest.approx([10, 50 / 3, 170 / 7, 98 / 3])


def test_ema_with_warmup_is_the_polynomial_average_until_the_decay_is_reached() -> None:
    """The weights of the average are those of Shamir and Zhang 2013 with an exponent of 8; the initial ones count 0."""
    model = network()
    averaged = average("ema", model, decay=0.99, warmup=True)
    iterates = torch.stack(train_on_noise(model, averaged, range(1, 21)))
    weights = torch.tensor([math.comb(i + 7, 8) for i in range(1, 21)], dtype=torch.float64)
    assert_same(averaged, (weights[:, None] * iterates).sum(0) / weights.sum())


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.99])
def test_the_decay_of_ema_with_warmup_is_that_of_tensorflow_two_updates_earlier(decay: float) -> None:
    """A weight that jumps from 0 to 1 in the last step has the average `1 - decay`."""
    for last in (2, 3, 10, 40, 891, 892, 2000):
        expected = 1 - min(decay, (1 + last - 2) / (10 + last - 2))
        found = averages_of([0.0] * (last - 1) + [1.0], decay=decay, warmup=True)
        assert found[-1] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_ema_without_warmup_is_the_normalized_weighted_mean_of_the_stored_iterates(decay: float) -> None:
    model = network()
    averaged = average("ema", model, decay=decay, warmup=False)
    iterates = torch.stack(train_on_noise(model, averaged, range(1, 11)))
    weights = torch.tensor([decay ** (10 - i) for i in range(1, 11)], dtype=torch.float64)
    expected = (weights[:, None] * iterates).sum(0) / weights.sum()
    assert_same(averaged, expected)
    assert averaged.module[1].num_batches_tracked == 10


@pytest.mark.parametrize("warmup", [True, False])
def test_ema_after_one_step_is_the_model_and_leaves_it_alone(warmup: bool) -> None:
    model, twin = network(), network()
    averaged = average("ema", model, decay=0.99, warmup=warmup)
    train_on_noise(model, averaged, range(1, 2))
    torch.testing.assert_close(flat(averaged.module), flat(model))
    train_on_noise(twin, average("none", twin), range(1, 2))
    assert torch.equal(flat(model), flat(twin))


@pytest.mark.parametrize("stop", [3, 14, 15, 16, 20])
def test_polyak_is_the_mean_of_the_last_iterates_and_the_model_before(stop: int) -> None:
    model = network()
    averaged = average("polyak", model, last="1epoch", blocks=1)
    iterates = torch.stack(train_on_noise(model, averaged, range(1, stop + 1)))
    assert_same(averaged, iterates[15:].mean(0) if stop > 15 else iterates[-1])


@pytest.mark.parametrize("stop", [1, 3, 4, 7, 9, 10, 17, 20])
def test_polyak_in_blocks_is_the_mean_over_the_last_blocks_at_any_time(stop: int) -> None:
    model = network()
    averaged = average("polyak", model, last="9steps", blocks=3)
    iterates = torch.stack(train_on_noise(model, averaged, range(1, stop + 1)))
    block = (stop - 1) // 3
    assert_same(averaged, iterates[max(0, block - 2) * 3 :].mean(0))


def test_swa_is_the_mean_of_the_snapshots_from_its_start_on() -> None:
    model = network()
    averaged = average("swa", model, start="50%", every="3steps")
    iterates = torch.stack(train_on_noise(model, averaged, range(1, 10)))
    assert_same(averaged, iterates[-1])
    iterates = torch.stack([*iterates, *train_on_noise(model, averaged, range(10, 21))])
    assert_same(averaged, iterates[[9, 12, 15, 18]].mean(0))


@pytest.mark.parametrize("start", ["0%", "0steps", "1%"])
def test_swa_from_the_start_leaves_out_the_untrained_weights(start: str) -> None:
    model = network()
    averaged = average("swa", model, start=start, every="3steps")
    iterates = train_on_noise(model, averaged, range(1, 3))
    assert_same(averaged, iterates[-1])
    iterates += train_on_noise(model, averaged, range(3, 6))
    assert_same(averaged, iterates[2])
    iterates = torch.stack([*iterates, *train_on_noise(model, averaged, range(6, 21))])
    assert_same(averaged, iterates[[2, 5, 8, 11, 14, 17]].mean(0))


@pytest.mark.parametrize("start", [0, 4])
def test_swa_takes_its_snapshots_at_rounded_dates(start: int) -> None:
    model = network()
    averaged = average("swa", model, start=f"{start}steps", every="0.5epochs")  # 2.5 steps
    iterates = torch.stack(train_on_noise(model, averaged, range(1, 21)))
    dates = [start + round(2.5 * k) for k in range(10) if 0 < start + round(2.5 * k) <= 20]
    assert_same(averaged, iterates[[d - 1 for d in dates]].mean(0))


def test_lookahead_pulls_the_model_back_to_its_slow_weights() -> None:
    model = network()
    slow = {name: p.detach().clone() for name, p in model.named_parameters()}
    averaged = average("lookahead", model, every=3, alpha=0.3)
    for step in range(1, 10):
        torch.manual_seed(step)
        for p in model.parameters():
            p.data.add_(torch.randn_like(p))
        fast = {name: p.detach().clone() for name, p in model.named_parameters()}
        averaged.update(model, step)
        if step % 3 == 0:
            slow = {name: slow[name] + 0.3 * (fast[name] - slow[name]) for name in slow}
            fast = slow
        torch.testing.assert_close(dict(model.named_parameters()), fast)
        torch.testing.assert_close(dict(averaged.module.named_parameters()), slow)


def test_schedulefree_reads_the_averages_of_its_optimizer() -> None:
    model = network()
    model[3].bias.requires_grad_(False)
    averaged = average("schedulefree", model)
    train_on_noise(model, averaged, range(1, 8), schedule_free=True)
    expected = schedulefree(model).averaged()
    for own, p in zip(averaged.module.parameters(), model.parameters(), strict=True):
        assert torch.equal(own, expected.get(p, p.detach()))
    assert not torch.equal(averaged.module[0].weight, model[0].weight)
    assert torch.equal(averaged.module[1].running_mean, model[1].running_mean)


def test_schedulefree_needs_its_optimizer() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(
        ConfigError,
        match=r"^average=schedulefree: needs optim=schedulefree or schedulefree_sgd, whose average it reads$",
    ):
        build("average", {"name": "schedulefree", "statistics": "model"}, model=model, optimizer=optimizer)


@pytest.mark.parametrize("name", ["ema", "polyak", "swa"])
def test_an_average_reads_whichever_model_it_is_given(name: str) -> None:
    first, second = network(), network()
    averaged, expected = average(name, first), average(name, second)
    train_on_noise(second, averaged, range(1, 8))
    twin = network()
    train_on_noise(twin, expected, range(1, 8))
    assert torch.equal(flat(averaged.module), flat(expected.module))


@pytest.mark.parametrize("name", sorted(set(names("average")) - {"none", "snapshots"}))
def test_an_average_has_weights_of_its_own_without_gradients(name: str) -> None:
    model = network()
    averaged = average(name, model)
    assert not any(p.requires_grad for p in averaged.module.parameters())
    assert {p.data_ptr() for p in averaged.module.parameters()}.isdisjoint(p.data_ptr() for p in model.parameters())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("stop", [1, 7, 17])
@pytest.mark.parametrize("name", names("average"))
def test_a_state_saved_in_mid_run_goes_on_bit_for_bit(name: str, stop: int) -> None:
    model = network()
    averaged = average(name, model)
    steer = name == "schedulefree"
    train_on_noise(model, averaged, range(1, stop + 1), steer)
    saved = copy.deepcopy(
        (schedulefree(model).state_dict(), model.state_dict(), averaged.module.state_dict(), averaged.state_dict())
    )
    train_on_noise(model, averaged, range(stop + 1, 21), steer)
    again = network()
    resumed = average(name, again)
    for part, state in zip((schedulefree(again), again, resumed.module, resumed), saved, strict=True):
        part.load_state_dict(state)
    train_on_noise(again, resumed, range(stop + 1, 21), steer)
    assert torch.equal(flat(resumed.module), flat(averaged.module))
    assert torch.equal(flat(again), flat(model))
