"""The invariants of a run from its config: the formula of its average, its clipping, and whose fault a violation is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from runner.assemble import Experiment
from runner.assemble.average_formulas import ema, last_mean, means_at, schedule_free
from runner.assemble.recipe import clipped_parameters
from runner.engine.clock import Clock
from runner.engine.forward import FastForward
from runner.engine.invariants.attach import Invariants, NoInvariants
from runner.engine.invariants.clip_limits import Excess, adaptive_excess, norm_excess, value_excess
from runner.engine.invariants.known import Formula, Known
from runner.engine.invariants.violation import Violation
from runner.errors import PluginError
from runner.registry import Config, find, is_plugins, names, wrong_product

# Prediction methods that draw no random numbers
_ALIKE = ("plain", "tta", "ten_crop")


def invariants_of(config: Config, experiment: Experiment, *, resumed: bool) -> NoInvariants:
    """Return the checks of a run; nothing for a resumed run, whose first steps are over."""
    if config["invariants"] == "never" or resumed:
        return NoInvariants()
    recipe, learner = experiment.recipe, experiment.learner
    distillation, predict = config["distillation"], config["predict"]["name"]
    has_teacher = distillation["name"] != "none"
    shares = experiment.world.size > 1
    known = Known(
        classes=len(experiment.classes),
        excess=_excess(experiment),
        formula=_formula_of(config, experiment) if learner.step == 0 else None,
        # What each process adds depends on its share of the examples
        loss_weight=None
        if shares
        else 1.0
        if not has_teacher
        else None
        if distillation.get("features")
        else distillation.get("alpha"),
        each_step=not _plugins(config, ("optim", "update", "regularizer")),
        soft_labels=not _plugins(config, ("mix", "data")),
        sees_modules=not isinstance(recipe.forward, FastForward),
        several_batches=experiment.batches.steps_per_epoch > 1,
        predicts_alike=predict in _ALIKE and not _plugins(config, ("model", "predict", "metric")),
    )
    return Invariants(known)


def blamed(error: Violation, config: Config) -> Violation | PluginError:
    """Return the error of a violation; that of a component of a plugin, with its place, if one may have caused it."""
    for kind, name in _plugins(config, error.kinds):
        return wrong_product(kind, name, f"breaks the invariant '{error.invariant}': {error.problem}")
    return error


def _plugins(config: Config, kinds: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return kind and name of the components of plugins of some kinds that a run is built from."""
    return [(kind, name) for kind in kinds for name in _options(config[kind]) if _is_plugins(kind, name)]


def _options(chosen: Mapping[str, Any] | None) -> list[str]:
    """Return the names of the options of a group."""
    chosen = chosen or {}
    return [str(chosen["name"])] if "name" in chosen else list(map(str, chosen))


def _is_plugins(kind: str, name: str) -> bool:
    return name in names(kind) and is_plugins(find(kind, name))


def _excess(experiment: Experiment) -> Excess | None:
    """Return how far gradients are above the limit of clipping; None without clipping."""
    settings = experiment.settings
    if settings.clip is None:
        return None
    if settings.clip_by == "agc":
        return adaptive_excess(clipped_parameters(experiment.learner.model), settings.clip)
    return (norm_excess if settings.clip_by == "norm" else value_excess)(settings.clip)


def _formula_of(config: Config, experiment: Experiment) -> Formula | None:
    """Return the formula of the weight average in the first steps, apart from its code; None if it is not known."""
    average, recipe = config["average"], experiment.recipe
    if _is_plugins("average", average["name"]):
        return None
    clock = Clock(recipe.total_steps, recipe.steps_per_epoch, experiment.batches.batch)
    if average["name"] == "ema":
        return ema(average["decay"], warmup=average["warmup"])
    if average["name"] in ("swa", "swag"):
        return means_at(clock.steps(average["start"]), float(clock.interval(average["every"])))
    if average["name"] == "polyak":
        return last_mean(clock.total_steps, max(1, clock.steps(average["last"])), average["blocks"])
    if average["name"] == "lookahead":
        return lambda step: {0: 1.0} if step < average["every"] else None
    if average["name"] == "schedulefree":
        return _schedule_free(config, experiment)
    return None


def _schedule_free(config: Config, experiment: Experiment) -> Formula | None:
    """Return the formula of the average of a schedule-free optimizer; None where tensors have rates of their own."""
    optim, learner = config["optim"], experiment.learner
    if optim["rules"] or config["transfer"]["name"] != "none" or learner.scaling:
        return None
    if "momentum" in optim:
        return schedule_free(optim["momentum"], lambda step: learner.schedule(step - 1))
    share, decay = optim["betas"]
    return schedule_free(share, lambda step: learner.schedule(step - 1) * math.sqrt(1 - decay**step))
