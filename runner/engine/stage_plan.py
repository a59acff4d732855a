"""How transfer trains the stages of a model: their learning rates, and the steps in which they are trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class StagePlan:
    """How one stage is trained.

    Attributes:
        lr: The factor on its learning rate.
        first: The number of steps before its first one; None if it is never trained.
        then: (steps before, factor): from there on another factor, with the learning-rate schedule anew.
    """

    lr: float = 1.0
    first: int | None = 0
    then: tuple[int, float] | None = None


@dataclass(frozen=True)
class Transfer:
    """How a run trains a model that starts from weights.

    Attributes:
        stages: The plan of each stage, from the input to the head.
        cache: Whether the features before the head are computed once while only the head is trained.
    """

    stages: tuple[StagePlan, ...]
    cache: Literal["auto", "never"] = "never"

    def steps_of_head_alone(self, total: int) -> int:
        """Return the number of steps, from the first on, in which no stage but the head is trained."""
        return min((total if plan.first is None else plan.first for plan in self.stages[:-1]), default=0)


@dataclass(frozen=True)
class StageRule:
    """The plan of one stage for the parameter groups of an optimizer.

    Attributes:
        stage: The name of the stage.
        order: Its place in the list of groups; the head's is 0.
        lr: The factor on the learning rate.
        entries: What its groups have besides, such as `active`.
    """

    stage: str
    order: int
    lr: float
    entries: Mapping[str, Any]


def stage_rule(stage: str, order: int, plan: StagePlan) -> StageRule:
    """Return the rule of a stage with durations, as those of the user have them."""
    entries: dict[str, Any] = {}
    if plan.first is None:
        entries["active"] = ["100%", None]
    elif plan.first:
        entries["active"] = [f"{plan.first}steps", None]
    if plan.then is not None:
        entries["then"] = list(plan.then)
    return StageRule(stage, order, plan.lr, entries)
