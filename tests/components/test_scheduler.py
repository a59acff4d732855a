"""Schedules against the formulas of the notes and torch's own schedulers, at every step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from runner import components  # noqa: F401  (registers all)
from runner.engine.clock import Clock
from runner.engine.contracts import Schedule
from runner.engine.schedules import Pure, Shifted, cycle_ends
from runner.errors import ConfigError
from runner.registry import build, names

CONF = Path(__file__).parents[2] / "conf" / "scheduler"
TOTAL, PER_EPOCH = 120, 12
CYCLIC = {"cosine_restarts", "cyclic", "triangular", "onecycle"}


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


def ends_of(factor: Schedule) -> list[int]:
    """Return the steps at which a falling learning rate rises again."""
    values = curve(factor)
    return [s for s in range(2, TOTAL) if values[s - 1] < values[s - 2] and values[s] > values[s - 1]]


@pytest.mark.parametrize("warmup", ["0%", "10%", "7steps"])
@pytest.mark.parametrize("growth", [1, 2])
def test_the_cycles_of_cosine_restarts_end_where_the_rate_jumps_up(growth: int, warmup: str) -> None:
    factor = schedule("cosine_restarts", cycle="11steps", growth=growth, warmup=warmup)
    assert cycle_ends(Pure(factor)) == (*ends_of(factor), TOTAL)


@pytest.mark.parametrize(("half", "warmup"), [("8steps", "0%"), ("1.25epochs", "0%"), ("8steps", "9steps")])
def test_the_cycles_of_cyclic_end_where_the_rate_is_lowest(half: str, warmup: str) -> None:
    """The lowest rate is the first of the next cycle, as the highest one of a cycle of cosines is its first."""
    factor = schedule("cyclic", half=half, warmup=warmup)
    lowest = [end - 1 for end in ends_of(factor)]
    assert [end for end in cycle_ends(factor) if end < TOTAL] == lowest and len(lowest) > 2


def test_a_last_cycle_that_is_not_complete_has_no_end() -> None:
    assert cycle_ends(schedule("cyclic", half="25steps")) == (50, 100)
    assert cycle_ends(schedule("cyclic", half="60steps")) == (120,)
    assert cycle_ends(schedule("cyclic", half="61steps")) == ()


def test_one_triangle_and_one_cycle_end_with_the_run_and_decay_has_no_cycles() -> None:
    assert cycle_ends(schedule("triangular", warmup="5%")) == cycle_ends(schedule("onecycle")) == (TOTAL,)
    assert {cycle_ends(schedule(name)) for name in set(names("scheduler")) - CYCLIC} == {()}


def test_the_cycles_of_a_schedule_that_begins_later_end_later() -> None:
    assert cycle_ends(Shifted(Pure(schedule("cosine_restarts", cycle="60steps")), 30)) == (90, 150)


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


@pytest.mark.parametrize(("growth", "total"), [(1, 24), (1, 120), (2, 72), (2, 168), (3, 312), (10, 264)])
def test_cosine_restarts_equals_torch_where_whole_cycles_fill_the_run(growth: int, total: int) -> None:
    expected = of_torch(lambda o: lr.CosineAnnealingWarmRestarts(o, T_0=24, T_mult=growth, eta_min=0.05), total)
    found = curve(schedule("cosine_restarts", total, cycle="2epochs", growth=growth, final=0.05), total)
    assert found == pytest.approx(expected, rel=1e-9)


def lengths_of_cycles(values: list[float]) -> list[int]:
    """Return the lengths of half cosines in a row of factors, each of which begins with 1."""
    starts = [i for i, value in enumerate(values) if value == 1]
    return [b - a for a, b in zip(starts, [*starts[1:], len(values)], strict=True)]


@pytest.mark.parametrize("growth", [1, 2, 3])
@pytest.mark.parametrize("cycle", ["20%", "7%", "1epoch", "37steps", "2.5epochs", "150%"])
@pytest.mark.parametrize("warmup", ["0%", "10%", "3steps"])
def test_restarts_tile_every_run_after_its_warmup(warmup: str, cycle: str, growth: int) -> None:
    for total in [*range(4, 80), *range(83, 601, 37), 600]:
        factor = schedule("cosine_restarts", total, cycle=cycle, growth=growth, warmup=warmup)
        skipped = 3 if warmup == "3steps" else round(total * 0.1) if warmup == "10%" else 0
        values = [factor(s) for s in range(skipped, total)]
        lengths = lengths_of_cycles(values)
        assert values[0] == 1 and values[-1] == min(values) and (values[-1] <= 0.5 or len(values) == 1)
        assert sum(lengths) == total - skipped
        assert lengths[-1] == max(lengths)
        ideal = [growth**k / sum(growth**j for j in range(len(lengths))) * len(values) for k in range(len(lengths))]
        assert all(abs(a - b) < 1 for a, b in zip(lengths, ideal, strict=True))
        for length, start in zip(lengths, [sum(lengths[:k]) for k in range(len(lengths))], strict=True):
            cosine = [(1 + math.cos(math.pi * t / length)) / 2 for t in range(length)]
            assert values[start : start + length] == pytest.approx(cosine)


def test_the_number_of_cycles_needs_the_least_stretching() -> None:
    # 100 steps: three cycles of 14, 28 and 57 are nearer to a first one of 20 than two of 33 and 67
    values = curve(schedule("cosine_restarts", 100, cycle="20steps", growth=2), 100)
    assert lengths_of_cycles(values) == [14, 28, 58]
    # 90 steps after the warm-up: five of 18, not four of 22.5
    values = curve(schedule("cosine_restarts", 100, warmup="10%"), 100)[10:]
    assert lengths_of_cycles(values) == [18] * 5


def test_a_cycle_has_two_steps_if_the_run_has_them() -> None:
    assert lengths_of_cycles(curve(schedule("cosine_restarts", 7, cycle="1step"), 7)) == [2, 2, 3]
    assert curve(schedule("cosine_restarts", 2), 2) == pytest.approx([1, 0.5])
    assert curve(schedule("cosine_restarts", 1), 1) == [1]


def test_onecycle_equals_torch() -> None:
    expected = of_torch(
        lambda o: lr.OneCycleLR(o, 1.0, TOTAL, pct_start=0.3, div_factor=25, final_div_factor=1e4), TOTAL - 1
    )
    assert curve(schedule("onecycle"), TOTAL - 1) == pytest.approx(expected, rel=1e-9)
    assert schedule("onecycle")(TOTAL - 1) == pytest.approx(4e-6)


@pytest.mark.parametrize("total", [1, 2, 3, 7, 10, 37, 64, 101])
def test_onecycle_equals_torch_at_peaks_between_two_steps(total: int) -> None:
    for percent in ("0", "0.3", "4", "7.1", "12.5", "30", "33.3333", "50", "77.7", "95", "99.9", "100"):
        share = float(percent) / 100
        if share * total == 1:
            continue  # torch divides by zero
        expected = of_torch(
            lambda o, share=share: lr.OneCycleLR(o, 1.0, total, pct_start=share, div_factor=25, final_div_factor=1e4),
            max(1, total - 1),
        )
        factor = schedule("onecycle", total, peak=f"{percent}%")
        assert curve(factor, max(1, total - 1)) == pytest.approx(expected, rel=1e-9), percent
        assert factor(total - 1) == pytest.approx(1 if percent == "100" else 4e-6, rel=1e-9), percent


def test_onecycle_whose_rise_ends_with_the_first_step_begins_at_its_peak() -> None:
    factor = schedule("onecycle", 10, peak="1step")
    assert [factor(0), factor(9)] == pytest.approx([1, 4e-6])


PERIODS = [
    ("0.3epochs", 3.6),
    ("1.5steps", 1.5),
    ("2.5steps", 2.5),
    ("7%", 8.4),
    ("0.01epochs", 1),
    ("100examples", 3.125),
]


@pytest.mark.parametrize(("every", "period"), PERIODS)
def test_step_drops_at_rounded_dates(every: str, period: float) -> None:
    dates = [round(k * period) for k in range(1, 200)]
    expected = [0.9 ** sum(d <= s for d in dates) for s in range(TOTAL)]
    assert curve(schedule("step", every=every, gamma=0.9)) == pytest.approx(expected)


@pytest.mark.parametrize(("half", "period"), PERIODS)
def test_cyclic_turns_at_rounded_dates(half: str, period: float) -> None:
    dates = [round(k * period) for k in range(200)]
    corners = [0.1 if k % 2 == 0 else 1.0 for k in range(200)]
    expected = np.interp(range(TOTAL), dates, corners)
    assert curve(schedule("cyclic", low=0.1, half=half)) == pytest.approx(expected)


@pytest.mark.parametrize(("every", "period"), PERIODS)
def test_exponential_has_the_exact_period(every: str, period: float) -> None:
    expected = [0.9 ** (s / period) for s in range(TOTAL)]
    assert curve(schedule("exponential", every=every, gamma=0.9)) == pytest.approx(expected)


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


@pytest.mark.parametrize("name", names("scheduler"))
@pytest.mark.parametrize("start", [0.001, 0.25, 1.0])
def test_a_warmup_with_a_start_is_a_straight_line_from_it_as_torchs(name: str, start: float) -> None:
    factor, plain = schedule(name, warmup="10steps", warmup_start=start), schedule(name, warmup="10steps")
    line = of_torch(lambda o: lr.LinearLR(o, start_factor=start, end_factor=1.0, total_iters=9), 10)
    assert [factor(s) for s in range(10)] == pytest.approx([plain(9) * share for share in line])
    assert curve(factor)[10:] == curve(plain)[10:]


def test_a_warmup_of_one_step_has_its_start() -> None:
    assert curve(schedule("constant", warmup="1step", warmup_start=0.3), 3) == [0.3, 1.0, 1.0]
    assert curve(schedule("constant", warmup="1step"), 3) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("warmup", ["0%", "0steps", "0.3steps"])
def test_a_start_without_a_warmup_is_refused(warmup: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^scheduler.warmup_start: got 0.1, but scheduler.warmup={warmup} is no step"
    ):
        schedule("cosine", warmup=warmup, warmup_start=0.1)


FLOORED: dict[str, dict[str, Any]] = {
    "step": {"every": "25steps", "gamma": 0.3},
    "multistep": {"milestones": ["30steps", "60steps", "90steps"], "gamma": 0.3},
    "exponential": {"every": "1epoch", "gamma": 0.5},
    "inverse_sqrt": {"timescale": "1epoch"},
}


@pytest.mark.parametrize("name", FLOORED)
def test_the_factor_never_falls_below_its_final_value(name: str) -> None:
    low, unlimited = schedule(name, final=0.35, **FLOORED[name]), curve(schedule(name, **FLOORED[name]))
    assert min(unlimited) < 0.35
    assert curve(low) == [max(0.35, value) for value in unlimited]
    assert schedule(name, final=0.35, warmup="10steps", **FLOORED[name])(0) < 0.35  # the warm-up is below it


@pytest.mark.parametrize("shape", ["linear", "cosine", "sqrt"])
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_wsd_is_constant_and_then_decays(shape: str, final: float) -> None:
    found = curve(schedule("wsd", warmup="12steps", decay="30steps", shape=shape, final=final))
    assert found[11:91] == [1.0] * 80  # up to the step after which 30 remain
    p = np.arange(30) / 30
    left = {"linear": 1 - p, "cosine": (1 + np.cos(np.pi * p)) / 2, "sqrt": 1 - np.sqrt(p)}[shape]
    assert found[90:] == pytest.approx(final + (1 - final) * left)


@pytest.mark.parametrize(("shape", "theirs"), [("linear", "LinearLR"), ("cosine", "CosineAnnealingLR")])
def test_the_decay_of_wsd_equals_torch(shape: str, theirs: str) -> None:
    make = {
        "LinearLR": lambda o: lr.LinearLR(o, start_factor=1.0, end_factor=0.05, total_iters=24),
        "CosineAnnealingLR": lambda o: lr.CosineAnnealingLR(o, T_max=24, eta_min=0.05),
    }[theirs]
    found = curve(schedule("wsd", decay="20%", shape=shape, final=0.05))
    assert found == pytest.approx([1.0] * 96 + of_torch(make, 24))


def test_a_decay_of_wsd_as_long_as_the_run_has_no_hold() -> None:
    assert curve(schedule("wsd", decay="100%", shape="linear")) == pytest.approx(curve(schedule("linear")))


@pytest.mark.parametrize("total", [2, 3, 10, 37, 120])
@pytest.mark.parametrize("percent", [4, 12.5, 30, 50, 95])
def test_the_momentum_of_onecycle_equals_torch(total: int, percent: float) -> None:
    if percent / 100 * total == 1:
        return  # torch divides by zero
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    theirs = lr.OneCycleLR(optimizer, 1.0, total, pct_start=percent / 100, base_momentum=0.8, max_momentum=0.95)
    ours = schedule("onecycle", total, peak=f"{percent}%", momentum=[0.8, 0.95])
    for step in range(total):
        assert ours.momentum(step) == pytest.approx(optimizer.param_groups[0]["momentum"], rel=1e-9), step
        if step < total - 1:
            optimizer.step()
            theirs.step()


def test_the_momentum_of_onecycle_is_high_during_the_warmup() -> None:
    plain, warmed = (
        schedule("onecycle", total, peak="30steps", momentum=[0.8, 0.95], **more)
        for total, more in ((TOTAL, {}), (TOTAL + 10, {"warmup": "10steps"}))
    )
    assert [warmed.momentum(s) for s in range(10)] == [0.95] * 10
    assert [warmed.momentum(10 + s) for s in range(TOTAL)] == [plain.momentum(s) for s in range(TOTAL)]
    assert curve(plain) == curve(schedule("onecycle", peak="30steps"))


IN_STEPS: dict[str, dict[str, Any]] = {  # durations that stand for shares of the run in the YAML
    "cyclic": {"half": "11steps"},
    "triangular": {"peak": "20steps"},
    "onecycle": {"peak": "30steps"},
    "cosine_restarts": {"cycle": "25steps"},
    "wsd": {"decay": "30steps"},
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
