"""Schedules against the formulas of the notes and torch's own schedulers, at every step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from runner import components  # noqa: F401  (registers all)
from runner.engine.contracts import Clock, Schedule
from runner.errors import ConfigError
from runner.registry import build, names

CONF = Path(__file__).parents[2] / "conf" / "scheduler"
TOTAL, PER_EPOCH = 120, 12


def schedule(name: str, total: int = TOTAL, **changes: Any) -> Schedule:
    config = {**yaml.safe_load((CONF / f"{name}.yaml").read_text()), **changes}
    return build("scheduler", config, clock=Clock(total, PER_EPOCH, batch=32))


def curve(factor: Schedule, steps: int = TOTAL) -> list[float]:
    return [factor(step) for step in range(steps)]


def of_torch(make: Any, steps: int = TOTAL) -> list[float]:
    """Return the learning rates that one of torch's schedulers gives a rate of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


lr = torch.optim.lr_scheduler


def test_constant_is_one() -> None:
    assert curve(schedule("constant")) == [1.0] * TOTAL


def test_step_equals_torch() -> None:
    expected = of_torch(lambda o: lr.StepLR(o, step_size=25, gamma=0.3))
    assert curve(schedule("step", every="25steps", gamma=0.3)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine_equals_torch(final: float) -> None:
    expected = of_torch(lambda o: lr.CosineAnnealingLR(o, T_max=TOTAL, eta_min=final))
    assert curve(schedule("cosine", final=final)) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_cosine_starts_at_one_is_half_way_in_the_middle_and_ends_at_its_final_value() -> None:
    factor = schedule("cosine", final=0.2)
    assert [factor(0), factor(60), factor(120)] == pytest.approx([1.0, 0.6, 0.2])


def test_inverse_sqrt_is_the_formula_of_the_notes_begun_at_one() -> None:
    factor = schedule("inverse_sqrt", timescale="1epoch")
    assert [factor(epoch * PER_EPOCH) for epoch in range(10)] == pytest.approx([1 / math.sqrt(t) for t in range(1, 11)])


def test_inverse_sqrt_is_finite_at_the_start() -> None:
    assert schedule("inverse_sqrt")(0) == 1.0


def test_inverse_sqrt_with_equal_warmup_is_the_transformer_schedule() -> None:
    factor = schedule("inverse_sqrt", timescale="20steps", warmup="20steps")
    expected = [math.sqrt(20) * min((s + 1) * 20**-1.5, max(s, 1) ** -0.5) for s in range(TOTAL)]
    assert curve(factor) == pytest.approx(expected)


def test_multistep_equals_torch() -> None:
    expected = of_torch(lambda o: lr.MultiStepLR(o, milestones=[30, 90, 96], gamma=0.3))
    found = curve(schedule("multistep", milestones=["75%", "8epochs", "30steps"], gamma=0.3))
    assert found == pytest.approx(expected, rel=1e-12)


def test_exponential_equals_torch() -> None:
    expected = of_torch(lambda o: lr.ExponentialLR(o, gamma=0.95))
    assert curve(schedule("exponential", every="1step", gamma=0.95)) == pytest.approx(expected, rel=1e-12)


def test_exponential_falls_by_gamma_over_each_period() -> None:
    factor = schedule("exponential", every="1epoch", gamma=0.5)
    assert [factor(0), factor(6), factor(12), factor(24)] == pytest.approx([1, 0.5**0.5, 0.5, 0.25])


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_polynomial_equals_torch(power: float) -> None:
    expected = of_torch(lambda o: lr.PolynomialLR(o, total_iters=TOTAL, power=power))
    assert curve(schedule("polynomial", power=power)) == pytest.approx(expected, rel=1e-9)


def test_linear_equals_torch() -> None:
    expected = of_torch(lambda o: lr.LinearLR(o, start_factor=1.0, end_factor=0.2, total_iters=TOTAL))
    assert curve(schedule("linear", final=0.2)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("gamma", "mode"), [(1.0, "triangular"), (0.5, "triangular2")])
def test_cyclic_equals_torch(gamma: float, mode: str) -> None:
    expected = of_torch(lambda o: lr.CyclicLR(o, base_lr=0.1, max_lr=1.0, step_size_up=12, mode=mode))
    assert curve(schedule("cyclic", low=0.1, half="10%", gamma=gamma)) == pytest.approx(expected, rel=1e-9)


def test_triangular_goes_up_once_and_down() -> None:
    factor = schedule("triangular", start=0.2, peak="25%", final=0.1)
    assert [factor(s) for s in (0, 15, 30, 75, 120)] == pytest.approx([0.2, 0.6, 1.0, 0.55, 0.1])


@pytest.mark.parametrize("growth", [1, 2])
def test_cosine_restarts_equals_torch(growth: int) -> None:
    expected = of_torch(lambda o: lr.CosineAnnealingWarmRestarts(o, T_0=24, T_mult=growth, eta_min=0.05))
    found = curve(schedule("cosine_restarts", cycle="2epochs", growth=growth, final=0.05))
    assert found == pytest.approx(expected, rel=1e-9)


def test_onecycle_equals_torch() -> None:
    expected = of_torch(
        lambda o: lr.OneCycleLR(o, 1.0, TOTAL, pct_start=0.3, div_factor=25, final_div_factor=1e4), TOTAL - 1
    )
    assert curve(schedule("onecycle"), TOTAL - 1) == pytest.approx(expected, rel=1e-9)
    assert schedule("onecycle")(TOTAL - 1) == pytest.approx(4e-6)


SCORES = [0.1, 0.5, 0.5, 0.4, 0.45, 0.5004, 0.6, 0.6, 0.6, 0.6, 0.6, math.nan, 0.6, 0.7, 0.6, 0.6, 0.6, 0.6]


@pytest.mark.parametrize("cooldown", [0, 2])
def test_plateau_equals_torch(cooldown: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    rule = {"patience": 1, "threshold": 1e-3, "cooldown": cooldown}
    theirs = lr.ReduceLROnPlateau(optimizer, "max", factor=0.3, threshold_mode="abs", min_lr=0.01, eps=0, **rule)
    ours = schedule("plateau", gamma=0.3, final=0.01, **rule)
    for score in SCORES * 2:
        theirs.step(score)
        ours.observe(score)
        assert ours(50) == pytest.approx(optimizer.param_groups[0]["lr"])
    assert ours(50) < 0.1


def test_plateau_goes_on_from_its_state() -> None:
    ours, again = schedule("plateau", patience=1), schedule("plateau", patience=1)
    for score in SCORES[:7]:
        ours.observe(score)
    again.load_state_dict(ours.state_dict())
    for score in SCORES[7:]:
        ours.observe(score)
        again.observe(score)
        assert again(3) == ours(3)
        assert again.state_dict() == ours.state_dict()


@pytest.mark.parametrize("name", names("scheduler"))
def test_warmup_rises_in_equal_steps_from_one_share_to_the_start_of_the_curve(name: str) -> None:
    factor, plain = schedule(name, warmup="10steps"), schedule(name, warmup="0%")
    assert [factor(s) for s in range(10)] == pytest.approx([plain(0) * (s + 1) / 10 for s in range(10)])


IN_STEPS: dict[str, dict[str, Any]] = {  # durations that stand for shares of the run in the YAML
    "cyclic": {"half": "11steps"},
    "triangular": {"peak": "20steps"},
    "onecycle": {"peak": "30steps"},
    "cosine_restarts": {"cycle": "25steps"},
}


@pytest.mark.parametrize("name", sorted(set(names("scheduler")) - {"step", "multistep"}))
def test_after_the_warmup_comes_the_curve_over_the_remaining_steps(name: str) -> None:
    factor, short = schedule(name, warmup="25%", **IN_STEPS.get(name, {})), schedule(name, 90, **IN_STEPS.get(name, {}))
    assert [factor(30 + s) for s in range(90)] == pytest.approx(curve(short, 90))


def test_drops_are_dated_from_the_start_of_the_run_under_a_warmup() -> None:
    factor = schedule("step", every="3epochs", gamma=0.1, warmup="1epoch")
    assert [factor(35), factor(36), factor(72)] == pytest.approx([1.0, 0.1, 0.01])


@pytest.mark.parametrize("warmup", ["0%", "5%", "2epochs", "100%"])
@pytest.mark.parametrize("name", names("scheduler"))
def test_factors_are_positive_at_every_step_of_the_run_and_finite_after_it(name: str, warmup: str) -> None:
    factor = schedule(name, warmup=warmup)
    values = curve(factor, TOTAL)
    assert all(0 < value <= 1 + 1e-12 for value in values)
    assert all(math.isfinite(factor(s)) and factor(s) >= 0 for s in range(TOTAL, TOTAL + 50))
    assert curve(factor, TOTAL) == values


@pytest.mark.parametrize("name", names("scheduler"))
def test_a_run_of_one_step_has_a_factor(name: str) -> None:
    assert 0 < schedule(name, 1)(0) <= 1


@pytest.mark.parametrize("name", names("scheduler"))
def test_a_warmup_longer_than_the_run_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^scheduler.warmup: 11epochs is 132 steps, more than the run's 120$"):
        schedule(name, warmup="11epochs")


def test_warmup_counts_examples_in_batches() -> None:
    assert schedule("constant", warmup="320examples")(4) == pytest.approx(0.5)
