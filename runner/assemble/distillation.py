"""The recipe with the teacher of a distillation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from runner.assemble.feature_pairs import feature_distiller, with_plain_forward
from runner.assemble.load_data import Loaded
from runner.assemble.teachers import Student, check_softmax, read_teacher
from runner.assemble.transfer import StagePlans
from runner.engine.distillation import Distillation, Distiller
from runner.engine.recipe import Recipe
from runner.engine.saving.storage import printable
from runner.registry import Config, build
from runner.settings import Settings
from runner.weight_sources import find_teacher, teacher_of

_GROUP = "distillation"


def with_teacher(
    config: Config,
    settings: Settings,
    recipe: Recipe,
    loaded: Loaded,
    model: nn.Module,
    plans: StagePlans,
    preprocess: nn.Module,
    device: torch.device,
    *,
    fit: bool,
) -> tuple[Recipe, list[str]]:
    """Return a recipe with the gradients of a distillation, if there is one, and summary lines about it.

    With `fit`, `preprocess` has its statistics already.

    Raises:
        ConfigError: The teacher is missing, has changed, or knows other classes or images; or no features compare.
        CheckpointError: The teacher's weights are damaged.
    """
    made: Distillation | None = build(_GROUP, config[_GROUP])
    named = teacher_of(config) if made else None
    if made is None or named is None:
        return recipe, []
    check_softmax(recipe.loss, "loss", config["loss"]["name"], "this loss")
    student = _student(config, settings, loaded, preprocess, device, fit=fit)
    source = find_teacher(named[0])
    teacher = read_teacher(source, student, made.sha256)
    what = f"{printable(Path(source.text))} ({teacher.words}, {teacher.parameters:,} parameters)"
    lines = [f"{_GROUP}: the teacher is {what}"]
    distiller = Distiller(made, teacher.teach)
    if made.features:
        recipe = with_plain_forward(recipe, settings)
        distiller, line = feature_distiller(config, made, teacher, model, plans, loaded.data.shape)
        lines.append(line)
    return replace(recipe, gradients=distiller.gradients, probes=[*recipe.probes, distiller.probe]), lines


def _student(
    config: Config, settings: Settings, loaded: Loaded, preprocess: nn.Module, device: torch.device, *, fit: bool
) -> Student:
    """Return the parts of the run that its teacher must fit."""
    return Student(
        settings=settings,
        device=device,
        data=loaded.data,
        fingerprint=loaded.fingerprint,
        preprocess=preprocess,
        option=config["preprocess"],
        accept=config["resume_numerics"] == "new",
        is_fit=fit,
    )
