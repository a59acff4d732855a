"""task=init_report: activations and gradients of each layer before training, per activation and init."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from runner.assemble import Experiment, assemble
from runner.decoration import decorative
from runner.engine.activations import is_activation, measure
from runner.engine.batches import EvalBatches
from runner.engine.parts import Residual
from runner.engine.randomness import epoch_order, generator
from runner.errors import ConfigError
from runner.registry import register
from runner.roles import Role
from runner.schema import Range
from runner.tasks.init_tables import save_report, show_report
from runner.tasks.init_verdicts import Case, find_problems
from runner.tasks.job import Job, Vary
from runner.tasks.run_folder import run_folder

# An option, or a mapping of its name and some of its knobs
_Entry = str | dict[str, int | float | bool | str | None]


@register("task")
def init_report(
    job: Job,
    vary: Vary,
    *,
    activation: str | list[_Entry] | None,
    init: str | list[_Entry] | None,
    examples: Annotated[int, Range(2)],
    cotangent: Literal["loss", "normal"],
    tensorboard: Annotated[bool, Role.OBSERVATION],
) -> int:
    """Report the activations of the untrained model and their gradients, for each activation with each init.

    Leaves a run folder with `report.json` (all numbers), `report.png` and `depth.png`, with `tensorboard` also an event
    file.
    """
    activations = _choices(job, vary, "activation", activation)
    pairs = list(itertools.product(activations, _choices(job, vary, "init", init)))
    experiments = (assemble(vary(job.config, {**a.overrides, **i.overrides})) for a, i in pairs)
    # Reject unsupported combinations before a folder exists
    first = next(experiments)
    if not any(map(is_activation, first.learner.model.modules())):
        raise ConfigError(f"model={job.config['model']['name']}: has no activation that task=init_report could show")
    with run_folder(job, first) as run:
        cases = [
            _measure_case(activation.label, init.label, experiment, examples, cotangent)
            for (activation, init), experiment in zip(pairs, itertools.chain([first], experiments), strict=True)
        ]
        save_report(run, job, cases)
    with decorative("report: not shown"):
        show_report(run, job, cases)
    return 0


@dataclass(frozen=True)
class _Choice:
    """One option to report: its label, and the overrides that choose it."""

    label: str
    overrides: Mapping[str, Any]


def _choices(job: Job, vary: Vary, kind: str, given: str | list[_Entry] | None) -> list[_Choice]:
    """Return the options to report: the config's for None; the config's own option keeps the config's knobs.

    Raises ConfigError for an unknown name, a wrong knob, or an option that is given twice.
    """
    own = job.config[kind]["name"]
    entries: list[_Entry] = [own if given is None else given] if not isinstance(given, list) else given
    if not entries:
        raise ConfigError(f"task.{kind}: got [], must be a list of options, or null for the config's own")
    found: list[_Choice] = []
    for index, entry in enumerate(entries):
        key = f"task.{kind}[{index}]"
        mapping = {"name": entry} if isinstance(entry, str) else entry
        if "name" not in mapping:
            raise ConfigError(f"{key}: has no name, must be an option or {{name: <option>, <knob>: <value>}}")
        overrides = {} if mapping["name"] == own else {kind: mapping["name"]}
        overrides |= {f"{kind}.{knob}": value for knob, value in mapping.items() if knob != "name"}
        try:
            values = vary(job.config, overrides)[kind]
            shipped = vary(job.config, {kind: mapping["name"]})[kind]
        except ConfigError as error:
            raise ConfigError(f"{key}{str(error).removeprefix(kind)}") from error
        each = _Choice(_label(values, shipped), overrides)
        if each.label in [one.label for one in found]:
            raise ConfigError(f"{key}: '{mapping['name']}' is given twice")
        found.append(each)
    return found


def _label(values: Mapping[str, Any], shipped: Mapping[str, Any]) -> str:
    """Return an option's name, with the knobs that differ from its YAML."""
    changed = {knob: value for knob, value in values.items() if shipped[knob] != value}
    words = [f"{knob}={value:g}" if type(value) is float else f"{knob}={value}" for knob, value in changed.items()]
    return " ".join([str(values["name"]), *words])


def _measure_case(
    activation: str,
    init: str,
    experiment: Experiment,
    examples: int,
    cotangent: Literal["loss", "normal"],
) -> Case:
    """Return the measurements of an untrained model's layers, with the problems found."""
    batches, recipe, model = experiment.batches, experiment.recipe, experiment.learner.model
    index = epoch_order(recipe.seed, 0, len(batches.split.labels))[:examples]
    clean = EvalBatches(
        batches.split, batch=len(index), preprocess=batches.preprocess, device=experiment.device, index=index
    )
    images, labels = next(iter(clean))
    backward = {"loss": _differentiate_loss(experiment, labels), "normal": _differentiate_noise(recipe.seed)}[cotangent]
    recipe.reseed(0)
    with recipe.autocast():
        layers = measure(model, images, backward)
    residual = any(isinstance(module, Residual) for module in model.modules())
    return Case(
        activation=activation,
        init=init,
        layers=layers,
        findings=find_problems(layers, residual=residual, examples=len(index)),
    )


def _differentiate_loss(experiment: Experiment, labels: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss, summed over the examples, so that gradients do not depend on their number."""
    return lambda logits, last: experiment.recipe.loss(logits, labels) * len(labels)


def _differentiate_noise(seed: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function whose gradients at the last activation are N(0, 1); the classifier has no effect."""

    def project(logits: Tensor, last: Tensor) -> Tensor:
        noise = torch.randn(last.shape, generator=generator(seed, "cotangent"))
        return (last * noise.to(last)).sum()

    return project
