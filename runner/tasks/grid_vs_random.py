"""task=grid_vs_random: as many points on a grid as at random, for a knob that matters and one that hardly does."""

from __future__ import annotations

import itertools
import json
import math
import statistics
import sys
from collections.abc import Sequence
from typing import Annotated, Any

from runner.assemble import assemble
from runner.assemble.data import keep
from runner.engine.figures.search import Try, search_figure
from runner.engine.logs.log import Log
from runner.engine.monitor import Monitor
from runner.engine.saving.storage import write_atomic
from runner.engine.train import train
from runner.errors import ConfigError, Diverged
from runner.registry import register
from runner.schema import Positive, PositiveInt, Range, check
from runner.search.samplers import random_points
from runner.search.space import Axis, Space
from runner.tasks.job import Job
from runner.tasks.report import tell
from runner.tasks.run_folder import run_folder

Between = list[Positive]


@register("task")
def grid_vs_random(
    job: Job,
    *,
    matters: str,
    between: Between,
    other: str,
    other_between: Between,
    side: Annotated[int, Range(2, 10)],
    draws: PositiveInt,
) -> int:
    """Try side x side points of two knobs on a grid, and as many at random, `draws` times; both on logarithmic axes.

    Leaves `grid_vs_random.png` and `report.json`. The claim (Bergstra & Bengio 2012; CS231n): the grid tries only
    `side` values of the knob that matters, random points as many as there are points, and so find a better one.
    """
    axes = (axis_of(job, "matters", matters, between), axis_of(job, "other", other, other_between))
    experiment = assemble(job.config)  # what does not fit together is refused before there is a folder
    keep(job.config["data"])
    with run_folder(job, experiment) as run:
        tell(f"  {side**2 * (1 + draws)} short trainings")
        cells = [(index + 0.5) / side for index in range(side)]
        points = [(axes[0].at(a), axes[1].at(b)) for a, b in itertools.product(cells, cells)]
        grid = [tried(job, axes, point) for point in points]
        random = [[tried(job, axes, point) for point in drawn(axes, side**2, seed)] for seed in range(draws)]
        monitor = job.config["monitor"]
        write_atomic(run.folder / "grid_vs_random.png", search_figure(grid, random[0], (matters, other), monitor))
        lines, report = compared(grid, random, (matters, other), monitor)
        write_atomic(run.folder / "report.json", json.dumps(report, indent=1).encode())
    sys.stdout.write("\n".join([*lines, f"picture in {run.folder / 'grid_vs_random.png'}"]) + "\n")
    return 0


def axis_of(job: Job, name: str, key: str, between: Sequence[float]) -> Axis:
    """Return the logarithmic axis of a knob of the config."""
    group, _, knob = key.partition(".")
    if not isinstance(job.config.get(group), dict) or not isinstance(job.config[group].get(knob), float):
        raise ConfigError(f"task.{name}: got '{key}', must be a knob that is a number, as in optim.lr")
    if len(between) != 2 or between[0] >= between[1]:
        raise ConfigError(f"task.{'between' if name == 'matters' else 'other_between'}: must be [low, high]")
    return Axis(key=key, kind="float", low=between[0], high=between[1], log=True)


def drawn(axes: Sequence[Axis], count: int, seed: int) -> list[tuple[Any, Any]]:
    """Return independent points."""
    points = itertools.islice(random_points(Space(tuple(axes)), seed), count)
    return [(point[axes[0].name], point[axes[1].name]) for point in points]


def tried(job: Job, axes: Sequence[Axis], point: tuple[Any, Any]) -> Try:
    """Train with a point and return its best monitored score, nan if it diverged."""
    config = dict(job.config)
    for axis, value in zip(axes, point, strict=True):
        group, _, knob = axis.key.partition(".")
        config[group] = {**config[group], knob: check(axis.key, value, float)}
    experiment = assemble(config)
    learner = experiment.learner
    try:
        train(experiment.recipe, learner, experiment.batches, experiment.validation, Log(), lambda: None)
    except Diverged:
        return Try(*point, math.nan)
    score = learner.patience.best[config["monitor"]]
    tell(f"  {axes[0].key}={point[0]:<12} {axes[1].key}={point[1]:<12} {config['monitor']} {score:.4f}")
    return Try(*point, score)


def best(tries: Sequence[Try], monitor: str) -> Try:
    """Return the one with the best score."""
    return max(tries, key=lambda each: Monitor(monitor).rank(each.score))


def compared(
    grid: Sequence[Try], random: Sequence[Sequence[Try]], keys: tuple[str, str], monitor: str
) -> tuple[list[str], dict[str, Any]]:
    """Return what came of it, in words and as numbers."""
    ours, theirs = best(grid, monitor), [best(each, monitor) for each in random]
    scores = sorted(each.score for each in theirs)
    wins = sum(Monitor(monitor).better(each.score, ours.score) for each in theirs)
    effects = [effect(grid, axis) for axis in (0, 1)]
    values = len({each.matters for each in grid})
    lines = [
        f"on the grid {keys[0]} changes {monitor} by {effects[0]:.4f}, {keys[1]} by {effects[1]:.4f} (ranges of means)",
        f"grid:   {len(grid)} points, {values} values of {keys[0]}; "
        f"best {monitor} {ours.score:.4f} at {ours.matters:g}",
        f"random: {len(grid)} points, {len(grid)} values of {keys[0]}; best {monitor} {statistics.median(scores):.4f} "
        f"(median of {len(scores)} draws, {scores[0]:.4f} to {scores[-1]:.4f})",
        f"random points found a better one than the grid in {wins} of {len(scores)} draws",
    ]
    report = {
        "monitor": monitor,
        "effects": dict(zip(keys, effects, strict=True)),
        "grid": [each._asdict() for each in grid],
        "random": [[each._asdict() for each in draw] for draw in random],
        "best_of_grid": ours.score,
        "best_of_random": [each.score for each in theirs],
        "random_is_better": wins,
    }
    return lines, json.loads(json.dumps(report).replace("NaN", "null"))


def effect(grid: Sequence[Try], axis: int) -> float:
    """Return the range of the mean scores over the values of one knob."""
    values = {each[axis] for each in grid}
    means = [statistics.fmean(each.score for each in grid if each[axis] == value) for value in values]
    return max(means) - min(means)
