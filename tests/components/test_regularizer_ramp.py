"""Drop rates that grow during training: the rate of each step by hand, what they drop, compiled steps, resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from running import job
from small_runs import build, interrupted, results_after, small, uninterrupted
from torch import nn

from runner.components.regularizer.ramped import RampedDropout
from runner.components.regularizer.structured_dropout import DropBlock
from runner.engine.ramps import Ramp, Ramped
from runner.errors import ConfigError
from runner.numerics import completed

NAMES = ("dropblock", "dropout", "dropout2d", "stochastic_depth")


def ramped(name: str, **more: Any) -> dict[str, Any]:
    """Return a run of six steps whose rates grow to 0.2 over the first four."""
    given = {f"regularizer.{name}.p": 0.2, f"regularizer.{name}.ramp": "4steps", "regularizer": [name]}
    return small({"model": "resnet9", "steps": 6, "average": "none", **given, **more})


def rates_by_step(given: dict[str, Any], steps: int) -> list[list[float]]:
    """Return the rates of all ramped modules in each step of a real run, as the forward passes of training see them."""
    experiment = build(given)
    modules = [m for m in experiment.learner.model.modules() if isinstance(m, Ramped)]
    seen: list[list[float]] = []

    def look(*_: object) -> None:
        if experiment.learner.model.training:
            seen.append([float(module.rate) for module in modules])

    experiment.learner.model.register_forward_pre_hook(look)
    results_after(experiment, steps)
    return seen


@pytest.mark.parametrize("name", ["dropblock", "dropout", "dropout2d"])
def test_rates_of_a_run_by_hand(name: str) -> None:
    seen = rates_by_step(ramped(name), 6)
    for found, wanted in zip(seen, [0.0, 0.05, 0.1, 0.15, 0.2, 0.2], strict=True):
        assert found and found == pytest.approx([wanted] * len(found))


def test_each_branch_of_stochastic_depth_grows_to_its_own_rate() -> None:
    seen = rates_by_step(ramped("stochastic_depth"), 6)
    wanted = [[0.0, 0.0], [0.025, 0.05], [0.05, 0.1], [0.075, 0.15], [0.1, 0.2], [0.1, 0.2]]
    assert all(found == pytest.approx(each) for found, each in zip(seen, wanted, strict=True))


@pytest.mark.parametrize(("ramp", "wanted"), [("100%", [0, 1, 2, 3, 4, 5]), ("1step", [0, 6, 6, 6, 6, 6])])
def test_shares_of_a_run_are_durations(ramp: str, wanted: list[int]) -> None:
    seen = rates_by_step(ramped("dropblock", **{"regularizer.dropblock.ramp": ramp}), 6)
    assert [found[0] for found in seen] == pytest.approx([0.2 * share / 6 for share in wanted])


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_dropblock_with_a_share_of_its_rate_drops_as_with_that_rate(share: float) -> None:
    x = torch.ones(8, 3, 9, 9)
    module = DropBlock(0.4, 3, ramped=True)
    Ramp(4, [module])(int(4 * share))
    torch.manual_seed(0)
    found = module(x)
    torch.manual_seed(0)
    assert torch.equal(found, DropBlock(0.4 * share, 3)(x))
    assert torch.allclose(found, x) == (share == 0)


@pytest.mark.parametrize(("apart", "alone"), [(None, 0), (2, 2), (1, 3)])
def test_ramped_dropout_drops_units_channels_or_examples_and_keeps_the_expectation(
    apart: int | None, alone: int
) -> None:
    module = RampedDropout(0.4, apart=apart)
    Ramp(2, [module])(1)
    torch.manual_seed(0)
    out = module(torch.full((2000, 5, 3, 3), 2.0))
    assert out.unique().tolist() == pytest.approx([0.0, 2 / 0.8])
    assert (out == 0).float().mean().item() == pytest.approx(0.2, abs=0.03)
    # Dropped together along the last dimensions, and apart along the others
    together = (out == 0).flatten(4 - alone).float().mean(-1) if alone else out
    assert alone == 0 or set(together.unique().tolist()) == {0.0, 1.0}
    assert (out[:, 0] != out[:, 1]).any() == (apart != 1)
    assert torch.equal(module.eval()(out), out)


def test_a_ramp_compiles_once() -> None:
    compiled: list[int] = []

    def backend(graph: Any, inputs: object) -> Any:
        compiled.append(1)
        return graph.forward

    model = nn.Sequential(nn.Conv2d(1, 4, 3), DropBlock(0.5, 2, ramped=True), RampedDropout(0.5))
    ramp = Ramp(10, [m for m in model if isinstance(m, Ramped)])
    step = torch.compile(model, backend=backend, fullgraph=True, dynamic=False)
    x, dropped = torch.ones(16, 1, 9, 9), []
    for number in range(11):
        ramp(number)
        dropped.append((step(x) == 0).float().mean().item())
    assert len(compiled) == 1
    assert dropped[0] == 0 and dropped[10] > dropped[5] > dropped[1] > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_run_within_its_ramp_resumes_bit_for_bit(name: str, tmp_path: Path) -> None:
    given = ramped(name, average="ema")
    whole, again = uninterrupted(given, 6)[1], interrupted(given, 2, 6, tmp_path)
    assert (again.state, again.printed, again.rows) == (whole.state, whole.printed, whole.rows)
    assert not any("reached" in key for key in whole.state), "a ramp is no part of a checkpoint"


def test_predictions_with_dropout_use_the_full_rate_whatever_the_step() -> None:
    """Those of weights from within the ramp are those of the same weights later."""
    given = ramped("dropout", predict="mc_dropout", **{"regularizer.dropout.p": 0.9})
    within, after = (build(given) for _ in range(2))
    within.learner.set_lr()
    after.learner.step = 5
    after.learner.set_lr()
    images = next(iter(within.validation["val"]))[0]
    found = []
    for made in (within, after):
        torch.manual_seed(0)
        made.learner.model.eval()
        found.append(made.recipe.predict(made.learner.model, images).logits)
        module = next(m for m in made.learner.model.modules() if isinstance(m, Ramped))
        assert float(module.reached) == (0 if made is within else 1), "training goes on at the step's rate"
    assert torch.equal(*found)


def test_a_ramp_longer_than_the_run_is_refused() -> None:
    words = ("model=resnet9", "regularizer=[dropblock]", "steps=6")
    with pytest.raises(ConfigError, match=r"^regularizer.dropblock.ramp: got '7steps', .* at most the run's 6 steps$"):
        job(*words, "regularizer.dropblock.ramp=7steps")
    line = next(line for line in build(ramped("dropblock")).summary if line.startswith("dropblock"))
    assert line.endswith("(block), growing from 0 over 4 steps")


@pytest.mark.parametrize("name", NAMES)
def test_a_run_of_an_earlier_version_has_no_ramp(name: str) -> None:
    assert completed({"regularizer": {name: {"p": 0.1}}})["regularizer"][name] == {"p": 0.1, "ramp": None}
