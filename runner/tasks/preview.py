"""task=preview: data, learning-rate schedule, augmented images and parameter groups of a run, without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from runner.assemble import Experiment, assemble
from runner.engine.figures.picture import Picture
from runner.engine.figures.preview import counts_figure, image_figure, lr_figure
from runner.engine.logs.log import open_logs
from runner.engine.saving.storage import printable
from runner.printing import counted, write_stdout
from runner.registry import register
from runner.roles import Role
from runner.schema import PositiveInt
from runner.screen_tables import print_table
from runner.tasks.job import Job
from runner.tasks.next_steps import tensorboard_folder
from runner.tasks.preview_images import image_rows
from runner.tasks.run_folder import Run, run_folder_if_writable
from runner.tasks.settings_check import check_settings

_FOLDER = "preview"
# Points of the learning-rate curve in the figure.
_FIGURE_POINTS = 2000
# Points of it in TensorBoard.
_SCALAR_POINTS = 500
# Rows of the table of classes on the terminal.
_MAX_CLASS_ROWS = 24


@register("task")
def preview(
    job: Job,
    *,
    examples: PositiveInt,
    lr_axis: Literal["linear", "log"],
    tensorboard: Annotated[bool, Role.OBSERVATION],
) -> int:
    """Draw the learning rate of each step and a few augmented images, and list parameter groups and classes.

    Leaves a run folder with `preview/lr.png`, `preview/classes.png` (examples per class and split),
    `preview/images.png` (unless the examples are single points), with `tensorboard` also an event file.
    """
    experiment = assemble(job.config)
    check_settings(job, experiment, saved=False)
    pictures = {"lr": _draw_lr(job, experiment, log=lr_axis == "log"), "classes": _draw_counts(experiment)}
    rows = list(image_rows(job, experiment, examples))
    if rows[0].images.shape[2:] != (1, 1):
        pictures["images"] = image_figure(rows, experiment.classes)
    with run_folder_if_writable(job, experiment) as run:
        if run:
            if tensorboard:
                run.afterwards.add("TensorBoard pages: not written", partial(_log_pages, job, experiment))
            for name, picture in pictures.items():
                run.afterwards.draw(f"{_FOLDER}/{name}.png", picture, tag=f"preview/{name}")
    _show(run, job, experiment)
    return 0


def _draw_lr(job: Job, experiment: Experiment, *, log: bool) -> Picture:
    """Return the picture of the learning rate over all steps."""
    recipe = experiment.recipe
    steps = evenly_spaced_steps(recipe.total_steps, _FIGURE_POINTS)
    about = ", ".join(f"{knob} {value}" for knob, value in job.config["scheduler"].items() if knob != "name")
    title = f"{job.config['scheduler']['name']}{f': {about}' if about else ''}"
    return lr_figure(steps, lr_curves(experiment, steps), title=title, steps_per_epoch=recipe.steps_per_epoch, log=log)


def _draw_counts(experiment: Experiment) -> Picture:
    """Return the picture of the examples per class and split."""
    about = experiment.data
    return counts_figure(about.counts, about.classes, noun=about.noun)


def lr_curves(experiment: Experiment, steps: Sequence[int]) -> dict[str, list[float]]:
    """Return the learning rate of each parameter group at some steps; groups with equal rates share a curve.

    A schedule that depends on scores is drawn as if it never reduced the rate.
    """
    learner = experiment.learner
    named: dict[tuple[float, ...], list[str]] = {}
    for number, group in enumerate(learner.optimizer.param_groups):
        named.setdefault(tuple(learner.rate(group, step) for step in steps), []).append(_group_name(group, number))
    return {"all" if len(named) == 1 else ", ".join(names): list(rates) for rates, names in named.items()}


def evenly_spaced_steps(count: int, most: int) -> list[int]:
    """Return at most `most` of the numbers 0 to count - 1, evenly spaced, with the first and the last."""
    if count <= most:
        return list(range(count))
    return [i * (count - 1) // (most - 1) for i in range(most)]


def _log_pages(job: Job, experiment: Experiment, folder: Path) -> None:
    """Write the event file, without the pictures."""
    with closing(open_logs(folder, positions=None, step=0)) as log:
        text = yaml.safe_dump(job.config, sort_keys=False, allow_unicode=True)
        log.add(
            0,
            {
                "preview/groups": _group_table(experiment),
                "preview/classes_table": _class_table(experiment),
                "config": f"```yaml\n{text}```",
            },
        )
        steps = evenly_spaced_steps(experiment.recipe.total_steps, _SCALAR_POINTS)
        found = lr_curves(experiment, steps)
        for index, step in enumerate(steps):
            log.add(step + 1, {f"preview/lr/{name}": values[index] for name, values in found.items()})


def _group_name(group: dict[str, Any], number: int) -> str:
    """Return the name of a parameter group."""
    return str(group.get("name", f"group {number + 1}"))


def _group_rows(experiment: Experiment) -> list[dict[str, str]]:
    """Return a table row per parameter group."""
    learner = experiment.learner
    last = experiment.recipe.total_steps - 1
    return [
        {
            "group": _group_name(group, number),
            "tensors": f"{len(group['params'])}",
            "parameters": f"{sum(p.numel() for p in group['params']):,}",
            "lr": f"{group['initial_lr']:g}",
            "lr, first step": f"{learner.rate(group, 0):.4g}",
            "lr, last step": f"{learner.rate(group, last):.4g}",
            "weight decay": f"{group['weight_decay']:g}",
        }
        for number, group in enumerate(learner.optimizer.param_groups)
    ]


def _group_table(experiment: Experiment) -> str:
    """Return the parameter groups as a Markdown table, with the names of their tensors."""
    rows = _group_rows(experiment)
    names = {parameter: name for name, parameter in experiment.learner.model.named_parameters()}
    tensors = [
        f"* {row['group']}: {', '.join(f'`{names[parameter]}`' for parameter in group['params'])}"
        for row, group in zip(rows, experiment.learner.optimizer.param_groups, strict=True)
    ]
    return "\n".join([*_markdown_table(rows), "", *tensors])


def _class_table(experiment: Experiment) -> str:
    """Return what the data hold as Markdown: the line of the run's start, and examples per class and split."""
    rows = experiment.data.rows()
    cells = [
        {key: "" if value is None else str(value).replace("|", "\\|") for key, value in row.items()} for row in rows
    ]
    return "\n".join([experiment.data.line, "", *_markdown_table(cells)])


def _markdown_table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the lines of a Markdown table of rows with the same keys."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _show(run: Run | None, job: Job, experiment: Experiment) -> None:
    """Print the data, the parameter groups and the paths of the figures."""
    for line in (experiment.data.line, *experiment.data.notes):
        write_stdout(f"{line}\n")
    print_table(shortened_rows(experiment.data.rows()), keys=("label", "class"))
    recipe = experiment.recipe
    steps, examples = counted(recipe.total_steps, "step"), counted(experiment.batches.batch, "example")
    title = f"{steps} of {examples}, {counted(recipe.steps_per_epoch, 'step')} per epoch"
    print_table(_group_rows(experiment), title=title)
    if run is None:
        return
    for name in run.afterwards.saved:
        write_stdout(f"view          {printable(run.folder / name)}\n")
    if job.config["task"]["tensorboard"]:
        write_stdout(f"              tensorboard --logdir {tensorboard_folder(run.folder, job)}\n")


def shortened_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the first rows of a long table, a row that counts those left out, and the last row."""
    cut = len(rows) - _MAX_CLASS_ROWS
    if cut <= 0:
        return rows
    gap = {**dict.fromkeys(rows[0]), "class": f"... {cut + 1} more"}
    return [*rows[: _MAX_CLASS_ROWS - 2], gap, rows[-1]]
