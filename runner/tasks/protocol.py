"""task=protocol: checks, searches and changes in seven steps, each with a gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from runner.protocol.check_curves import CheckCurves
from runner.protocol.check_init import CheckInit
from runner.protocol.coarse import Coarse
from runner.protocol.context import Step
from runner.protocol.find_lr import FindLr
from runner.protocol.goto import Goto
from runner.protocol.overfit import Overfit
from runner.protocol.refine import Refine
from runner.registry import register
from runner.schema import NotEmpty, PositiveInt
from runner.tasks.job import Job, Launch, Vary
from runner.tasks.run_protocol import knobs_of, run_protocol

_Knobs = dict[str, int | float | bool | str | list[float] | None]


@register("task")
def protocol(
    job: Job,
    vary: Vary,
    launch: Launch,
    *,
    steps: Annotated[list[Literal[1, 2, 3, 4, 5, 6, 7]], NotEmpty()],
    keep_going: bool,
    budget: str | None,
    rounds: PositiveInt,
    final_test: bool,
    check_init: _Knobs | None,
    overfit: _Knobs | None,
    find_lr: _Knobs | None,
    coarse: _Knobs | None,
    refine: _Knobs | None,
) -> int:
    """Run steps of the protocol: initial loss, small sample, learning rate, search, refine, curves, changes.

    Each step hands on what it found. One that fails ends the protocol with exit code 1. A step that is done is not
    repeated: the same command, or `resume=<folder>`, continues. The end is a report, and a recipe to train with. The
    test split is read with `final_test` only, once.
    """
    given = {
        "check_init": check_init or {},
        "overfit": overfit or {},
        "find_lr": find_lr or {},
        "coarse": coarse or {},
        "refine": refine or {},
    }
    # Also of steps that are not chosen: a misspelled knob must not wait for its step
    knobs = {name: knobs_of(job, vary, name, given[name], f"task.{name}") for name in _NAMES.values()}
    made = [_MAKE[name](knobs[name]) for number, name in _NAMES.items() if number in steps]
    made += [CheckCurves()] if _CURVES in steps else []
    made += [Goto(rounds=rounds, metric=knobs["refine"]["metric"])] if _GOTO in steps else []
    return run_protocol(job, vary, launch, made, keep_going=keep_going, budget=budget, final_test=final_test)


def _find_lr(knobs: Mapping[str, Any]) -> Step:
    """Return step 3."""
    lrs = knobs["lrs"]
    return FindLr(**{**knobs, "lrs": None if lrs == "auto" else tuple(lrs)})


def _coarse(knobs: Mapping[str, Any]) -> Step:
    """Return step 4."""
    decays = knobs["weight_decays"]
    return Coarse(
        **{
            **knobs,
            "lr_factors": tuple(knobs["lr_factors"]),
            "weight_decays": None if decays == "auto" else tuple(decays),
        }
    )


_CURVES, _GOTO = 6, 7
_NAMES = {1: "check_init", 2: "overfit", 3: "find_lr", 4: "coarse", 5: "refine"}
_MAKE: dict[str, Callable[[Mapping[str, Any]], Step]] = {
    "check_init": lambda knobs: CheckInit(**knobs),
    "overfit": lambda knobs: Overfit(**{**knobs, "lr_ladder": tuple(knobs["lr_ladder"])}),
    "find_lr": _find_lr,
    "coarse": _coarse,
    "refine": lambda knobs: Refine(**knobs),
}
