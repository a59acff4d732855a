"""Transfer: the stages of the model, what `transfer` does to them, and the table that says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from runner.assemble.model import factors_by_width
from runner.components.model.stages import Stage, stages
from runner.engine.clock import Clock
from runner.engine.contracts import Data
from runner.engine.parts import has_running_statistics
from runner.engine.stage_plan import StageRule, Transfer, stage_rule
from runner.engine.width import WidthFactor
from runner.errors import ConfigError
from runner.registry import Config, asks, build, find, knobs

_KEY = "transfer"
_NO_TRANSFER = Transfer(())


@dataclass(frozen=True)
class StagePlans:
    """The stages of a model with their plans; no stages if all parameters are trained as `optim` says.

    `width_factors` are those of `init=mup` on learning rates and weight decay, by parameter.
    """

    stages: tuple[Stage, ...] = ()
    transfer: Transfer = _NO_TRANSFER
    width_factors: Mapping[str, WidthFactor] | None = None

    @property
    def rules(self) -> dict[str, StageRule] | None:
        """Return the rule of each parameter, by its name."""
        pairs = list(zip(self.stages, self.transfer.stages, strict=True))
        return {
            name: stage_rule(stage.name, order, plan)
            for order, (stage, plan) in enumerate(reversed(pairs))
            for name in stage.parameters
        } or None

    def norms_without_parameters(self, model: nn.Module) -> dict[nn.Module, list[nn.Parameter]]:
        """Return the norms that are frozen with their stage, as they have no parameter, with its parameters."""
        return {
            norm: [model.get_parameter(each) for each in stage.parameters]
            for stage in self.stages
            for norm in map(model.get_submodule, stage.norms)
            if has_running_statistics(norm) and not any(p.requires_grad for p in norm.parameters(recurse=False))
        }


def plan_stages(config: Config, model: nn.Module, data: Data, clock: Clock) -> StagePlans:
    """Return the stages of a model on the CPU, and what the config does to each and to each width.

    Raises:
        ConfigError: The option needs weights, several stages, or an optimizer with parameter groups.
    """
    name, factors = config[_KEY]["name"], factors_by_width(config, data, model)
    if not asks(_KEY, name, "stages"):
        return StagePlans((), build(_KEY, config[_KEY], clock=clock), factors)
    found = stages(model, data.shape)
    if len(found) < 2:
        raise ConfigError(
            f"transfer: got {name}, but model={config['model']['name']} has one stage, the head; "
            "transfer=none trains it from the start"
        )
    if "rules" not in knobs(find("optim", config["optim"]["name"])):
        raise ConfigError(
            f"transfer: got {name}, but optim={config['optim']['name']} takes no parameter groups; "
            "expected an optimizer that asks for `groups`"
        )
    made: Transfer = build(_KEY, config[_KEY], stages=[stage.name for stage in found], clock=clock)
    return StagePlans(tuple(found), made, factors)


def rows_of(plans: StagePlans, model: nn.Module, optimizer: Optimizer, total: int) -> list[dict[str, str]]:
    """Return the table of the stages from input to head: parameters, learning rate, and the steps of their training."""
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    return [
        {
            "stage": stage.name,
            "parameters": f"{sum(model.get_parameter(each).numel() for each in stage.parameters):,}",
            **_schedule_of([groups[i] for i in _ids(model, stage) if i in groups], total),
        }
        for stage in plans.stages
    ]


def _ids(model: nn.Module, stage: Stage) -> Iterator[int]:
    """Yield what identifies the parameters of a stage."""
    return (id(model.get_parameter(each)) for each in stage.parameters)


def _schedule_of(groups: Sequence[Mapping[str, Any]], total: int) -> dict[str, str]:
    """Return the learning rate of a stage's groups, and the step from which they are trained, as text."""
    windows = {tuple(group.get("active", (0, total))) for group in groups}
    if not groups or all(first >= end for first, end in windows):
        return {"lr": "-", "active from": "never"}
    rates = {group["initial_lr"] for group in groups}
    low, high = min(rates), max(rates)
    phases = next((group["phases"] for group in groups if "phases" in group), ())
    lr = f"{high:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
    later = "".join(f", then {high * factor:.4g}" for _, _, _, factor in phases[1:])
    again = "".join(f", anew from {first + 1}" for first, *_ in phases[1:])
    return {"lr": lr + later, "active from": f"step {min(first for first, _ in windows) + 1}{again}"}
