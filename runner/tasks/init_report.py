"""task=init_report: activations and gradients of each layer before training, per activation and init."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from runner.assemble import Experiment, assemble
from runner.engine.activations import acts, measure
from runner.engine.batches import EvalBatches
from runner.engine.parts import Residual
from runner.engine.randomness import generator, order
from runner.errors import ConfigError
from runner.registry import checked, find, option, register
from runner.schema import Range
from runner.tasks.init_tables import save, show
from runner.tasks.init_verdicts import Case, judge
from runner.tasks.job import Job
from runner.tasks.run_folder import run_folder

Values = Mapping[str, Any]
Entry = str | dict[str, int | float | bool | str | None]  # an option's word, or its name with some of its knobs


@register("task")
def init_report(
    job: Job,
    *,
    activation: str | list[Entry] | None,
    init: str | list[Entry] | None,
    examples: Annotated[int, Range(2)],
    cotangent: Literal["loss", "normal"],
) -> int:
    """Report the activations of the untrained model and their gradients, for each activation with each init.

    Leaves a run folder with `report.json` (all numbers), `report.png`, `depth.png` and an event file.
    """
    pairs = list(itertools.product(options(job, "activation", activation), options(job, "init", init)))
    experiments = (assemble({**job.config, "activation": a, "init": i}) for a, i in pairs)
    first = next(experiments)  # what does not fit together is refused before there is a folder
    if not any(map(acts, first.learner.model.modules())):
        raise ConfigError(f"model={job.config['model']['name']}: has no activation that task=init_report could show")
    with run_folder(job, first) as run:
        cases = [
            case(job, activation, init, experiment, examples, cotangent)
            for (activation, init), experiment in zip(pairs, itertools.chain([first], experiments), strict=True)
        ]
        save(run.folder, job, cases)
    show(run.folder, job, cases)
    return 0


def options(job: Job, kind: str, given: str | list[Entry] | None) -> list[Values]:
    """Return the config of each option given: the run's own for None and for its own word, else that of its YAML.

    Raises ConfigError for an unknown name, a wrong knob, or an option that is given twice.
    """
    entries: list[Entry] = [given] if isinstance(given, str) else [job.config[kind]] if given is None else given
    if not entries:
        raise ConfigError(f"task.{kind}: got [], must be a list of options, or null for the config's own")
    found: list[Values] = []
    for place_, entry in enumerate(entries):
        key = f"task.{kind}[{place_}]"
        mapping = {"name": entry} if isinstance(entry, str) else entry
        if "name" not in mapping:
            raise ConfigError(f"{key}: has no name, must be an option or {{name: <option>, <knob>: <value>}}")
        values = base(job, kind, str(mapping["name"]), key) | mapping
        checked(find(kind, values["name"]), key, {k: v for k, v in values.items() if k != "name"})
        if values in found:
            raise ConfigError(f"{key}: '{values['name']}' is given twice")
        found.append(values)
    return found


def base(job: Job, kind: str, name: str, key: str) -> dict[str, Any]:
    """Return the values of an option: the run's own where it chose that one, else those of its YAML."""
    own: dict[str, Any] = job.config[kind]
    return own if own["name"] == name else option(kind, name, key=key, folders=job.folders)


def label(job: Job, kind: str, values: Values) -> str:
    """Return an option's name, with the knobs that are not as in its YAML."""
    shipped = option(kind, values["name"], key=kind, folders=job.folders)
    return " ".join(
        [
            values["name"],
            *(f"{k}={v:g}" if type(v) is float else f"{k}={v}" for k, v in values.items() if shipped.get(k, v) != v),
        ]
    )


def case(
    job: Job,
    activation: Values,
    init: Values,
    experiment: Experiment,
    examples: int,
    cotangent: Literal["loss", "normal"],
) -> Case:
    """Return what an untrained model's layers give, with what is wrong with them."""
    batches, recipe, model = experiment.batches, experiment.recipe, experiment.learner.model
    index = order(recipe.seed, 0, len(batches.split.labels))[:examples]
    clean = EvalBatches(
        batches.split, batch=len(index), preprocess=batches.preprocess, device=experiment.device, index=index
    )
    images, labels = next(iter(clean))
    backward = {"loss": of_loss(experiment, labels), "normal": of_normal(recipe.seed)}[cotangent]
    recipe.reseed(0)
    with recipe.autocast():
        layers = measure(model, images, backward)
    residual = any(isinstance(module, Residual) for module in model.modules())
    return Case(
        activation=label(job, "activation", activation),
        init=label(job, "init", init),
        layers=layers,
        findings=judge(layers, residual=residual, examples=len(index)),
    )


def of_loss(experiment: Experiment, labels: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss to differentiate: added up over the examples, so that their number does not scale gradients."""
    return lambda logits, last: experiment.recipe.loss(logits, labels) * len(labels)


def of_normal(seed: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return what has random N(0, 1) gradients at the last activation; the classifier plays no part."""

    def project(logits: Tensor, last: Tensor) -> Tensor:
        noise = torch.randn(last.shape, generator=generator(seed, "cotangent"))
        return (last * noise.to(last)).sum()

    return project
