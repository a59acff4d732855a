"""Transfer: which stages of a model that starts from weights are trained, when, and at what learning rate.

Stages are those of `runner.components.model.stages`, from the input to the head. An option becomes rules for the
parameter groups of the optimizer. docs/transfer.md says more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from runner.engine.clock import Clock
from runner.engine.stage_plan import StagePlan, Transfer
from runner.errors import ConfigError, unknown
from runner.printing import counted
from runner.registry import register, shared_knobs
from runner.relations import InRun
from runner.roles import Role
from runner.schema import Duration, Positive, PositiveInt, Range

_Cache = Annotated[Literal["auto", "never"], Role.EXECUTION]
_Normalization = Literal["checkpoint", "data"]


@shared_knobs
class _Weights:
    """The source of the statistics of the input normalization, which all options share."""

    def __init__(self, *, normalization: _Normalization) -> None:
        self.normalization = normalization


@shared_knobs
class _Rates:
    """The learning rates of the stages: `lr_factor`, and `layer_decay` once more per stage below the head."""

    def __init__(
        self, weights: _Weights, *, lr_factor: Positive, layer_decay: Annotated[float, Range(0, 1, open_low=True)]
    ) -> None:
        self.lr_factor, self.layer_decay = lr_factor, layer_decay

    def of(self, stages: Sequence[str]) -> list[float]:
        """Return the factor of each stage."""
        return [self.lr_factor * self.layer_decay**below for below in reversed(range(len(stages)))]


@register("transfer")
def none() -> Transfer:
    """Return no plan: all parameters are trained as `optim` says, whatever they start from."""
    return Transfer(())


@register("transfer")
def feature_extraction(stages: Sequence[str], weights: _Weights, *, cache: _Cache) -> Transfer:
    """Return a linear probe: only the head is trained, all below it stays as it was loaded."""
    return Transfer((*[StagePlan(first=None)] * (len(stages) - 1), StagePlan()), cache)


@register("transfer")
def fine_tune(stages: Sequence[str], rates: _Rates) -> Transfer:
    """Return fine-tuning: everything is trained from the first step on."""
    return Transfer(tuple(map(StagePlan, rates.of(stages))))


@register("transfer")
def layerwise(stages: Sequence[str], rates: _Rates) -> Transfer:
    """Return fine-tuning with learning rates that decay with depth (BEiT, arXiv 2106.08254; `--layer-decay` of timm).

    A stage has `layer_decay` times the rate of the stage above it.

    Raises:
        ConfigError: All rates would be equal.
    """
    if rates.layer_decay == 1:
        raise ConfigError(
            "transfer.layer_decay: got 1, must be less with transfer=layerwise; or use transfer=fine_tune"
        )
    return Transfer(tuple(map(StagePlan, rates.of(stages))))


@register("transfer")
def partial(stages: Sequence[str], rates: _Rates, *, trained: PositiveInt | list[str]) -> Transfer:
    """Return fine-tuning of some stages: the others stay as they were loaded. The head is always trained.

    Raises:
        ConfigError: No stage is frozen, or none of that name exists.
    """
    body = stages[:-1]
    if isinstance(trained, int) and trained >= len(stages):
        raise ConfigError(
            f"transfer.trained: got {trained}, must be < {len(stages)}, the stages of this model; "
            "transfer=fine_tune trains all"
        )
    for name in trained if not isinstance(trained, int) else ():
        if name not in stages:
            raise unknown("transfer.trained", "stage", name, stages)
    chosen = set(stages[-trained:] if isinstance(trained, int) else trained)
    if chosen >= set(body):
        raise ConfigError("transfer.trained: names all stages, so that none is frozen; transfer=fine_tune trains all")
    plans = [
        StagePlan(lr, 0 if name in chosen or name == stages[-1] else None)
        for name, lr in zip(stages, rates.of(stages), strict=True)
    ]
    return Transfer(tuple(plans))


@register("transfer")
def staged(
    stages: Sequence[str],
    clock: Clock,
    rates: _Rates,
    *,
    head_for: Annotated[Duration, InRun(before=True)],
    all_from: Annotated[Duration, InRun(before=True)],
    cache: _Cache,
) -> Transfer:
    """Return gradual unfreezing: the head alone first, then stage by stage from the top (ULMFiT, arXiv 1801.06146).

    The first stage below the head is trained after `head_for`, the lowest after `all_from`, the others in equal steps
    between. The head has the whole learning rate, `lr_factor` is for the stages below it.

    Raises:
        ConfigError: `all_from` is before `head_for`, or after the end of the run.
    """
    first, last = _step(clock, "head_for", head_for), _step(clock, "all_from", all_from)
    if last < first:
        raise ConfigError(f"transfer.all_from: got {all_from}, must not be before head_for={head_for}")
    count = len(stages) - 1
    starts = [first + round((last - first) * i / max(1, count - 1)) for i in range(count)]
    body = zip(rates.of(stages)[:-1], reversed(starts), strict=True)
    return Transfer((*(StagePlan(lr, start) for lr, start in body), StagePlan()), cache)


@register("transfer")
def lp_ft(
    stages: Sequence[str],
    clock: Clock,
    rates: _Rates,
    *,
    probe: Annotated[Duration, InRun(before=True)],
    cache: _Cache,
) -> Transfer:
    """Return a linear probe, then fine-tuning of everything (Kumar et al. 2022, arXiv 2202.10054).

    The head is trained alone at the whole learning rate for `probe`. Then everything is trained at `lr_factor` times
    the rate. Both phases go through the whole learning-rate schedule.

    Raises:
        ConfigError: The probe would take the whole run.
    """
    switch, factors = _step(clock, "probe", probe), rates.of(stages)
    body = [StagePlan(lr, switch) for lr in factors[:-1]]
    return Transfer((*body, StagePlan(1.0, 0, (switch, factors[-1]))), cache)


def _step(clock: Clock, knob: str, duration: str) -> int:
    """Return a duration in steps; raise ConfigError if it is not inside the run."""
    step = clock.steps(duration)
    if not 0 < step < clock.total_steps:
        raise ConfigError(
            f"transfer.{knob}: got {duration}, which is step {step}; must be inside the run of "
            f"{counted(clock.total_steps, 'step')}"
        )
    return step
