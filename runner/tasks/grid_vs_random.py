"""task=grid_vs_random: grid search against random search with the same number of points, over two knobs."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Sequence
from typing import Annotated, Any

from runner.assemble import assemble
from runner.directions import monitor_in
from runner.engine.figures.search import Trial, search_figure
from runner.engine.monitor import Monitor
from runner.engine.saving.folder import Result
from runner.engine.saving.storage import printable, write_atomic
from runner.errors import ConfigError
from runner.printing import counted, write_stdout
from runner.registry import register
from runner.schema import Positive, PositiveInt, Range
from runner.search.samplers import random_points
from runner.search.space import Axis, Space
from runner.status import Status
from runner.tasks.job import Job, Launch, Vary
from runner.tasks.report import print_progress
from runner.tasks.run_folder import continued_run_folder

_Interval = list[Positive]
# Overrides of each training run
_TRAINING_OVERRIDES = {"task": "train", "name": None, "test": "never", "figures": "never"}


@register("task")
def grid_vs_random(
    job: Job,
    vary: Vary,
    launch: Launch,
    *,
    matters: str,
    between: _Interval,
    other: str,
    other_between: _Interval,
    side: Annotated[int, Range(2, 10)],
    draws: PositiveInt,
) -> int:
    """Try side x side points of two knobs on a grid, and as many random points `draws` times, on logarithmic axes.

    Leaves `grid_vs_random.png`, `report.json`, and the trainings as ordinary runs in `runs/`. After an interrupt, the
    same command or `resume=<folder>` continues. The claim (Bergstra & Bengio 2012; CS231n): a grid tries only `side`
    values of the knob that matters, random search a new value with each point, and so it finds a better one.
    """
    axes = (_log_axis(job, "matters", matters, between), _log_axis(job, "other", other, other_between))
    cells = [(index + 0.5) / side for index in range(side)]
    points: list[tuple[Any, Any]] = [
        (axes[0].value_at(a), axes[1].value_at(b)) for a, b in itertools.product(cells, cells)
    ]
    points += [point for seed in range(draws) for point in _random_pairs(axes, side**2, seed)]
    variants = [vary(job.config, _TRAINING_OVERRIDES | {matters: point[0], other: point[1]}) for point in points]
    # Reject unsupported combinations before a folder exists
    experiment = assemble(job.config)
    with continued_run_folder(job, experiment) as run:
        print_progress(f"  {counted(len(points), 'short training')}")
        monitor = monitor_in(job.config)
        results = launch(variants, run.folder / "runs")
        trials = [Trial(*point, _score(each, monitor)) for point, each in zip(points, results, strict=True)]
        grid, *random = [trials[first : first + side**2] for first in range(0, len(trials), side**2)]
        lines, report = _compare(grid, random, (matters, other), monitor)
        write_atomic(run.folder / "report.json", json.dumps(report, indent=1).encode())
        picture = search_figure(grid, random[0], (matters, other), monitor.tag)
        run.afterwards.draw("grid_vs_random.png", picture, tag="grid_vs_random")
    pictures = [f"picture in {printable(run.folder / name)}" for name in run.afterwards.saved]
    write_stdout("\n".join([*lines, *pictures]) + "\n")
    return 0


def _log_axis(job: Job, name: str, key: str, between: Sequence[float]) -> Axis:
    """Return the logarithmic axis of a knob."""
    group, _, knob = key.partition(".")
    monitor = monitor_in(job.config)
    if monitor.changes_with(key):
        other = "use monitor=val/accuracy or val/nll"
        raise ConfigError(f"task.{name}: got '{key}', but {monitor.tag} changes its meaning with it; {other}")
    if not isinstance(job.config.get(group), dict) or not isinstance(job.config[group].get(knob), float):
        raise ConfigError(f"task.{name}: got '{key}', must be a knob that is a number, as in optim.lr")
    if len(between) != 2 or between[0] >= between[1]:
        raise ConfigError(f"task.{'between' if name == 'matters' else 'other_between'}: must be [low, high]")
    return Axis(key=key, kind="float", low=between[0], high=between[1], log=True)


def _random_pairs(axes: Sequence[Axis], count: int, seed: int) -> list[tuple[Any, Any]]:
    """Return independent points."""
    points = itertools.islice(random_points(Space(tuple(axes)), seed), count)
    return [(point[axes[0].name], point[axes[1].name]) for point in points]


def _score(result: Result, monitor: Monitor) -> float:
    """Return the best monitored score of a run, nan if it diverged."""
    value = None if result.status is Status.DIVERGED else result.scores[monitor.split]["best"][monitor.metric]
    return math.nan if value is None else float(value)


def _best(trials: Sequence[Trial], monitor: Monitor) -> Trial:
    """Return the try with the best score."""
    return max(trials, key=lambda each: monitor.rank(each.score))


def _compare(
    grid: Sequence[Trial], random: Sequence[Sequence[Trial]], keys: tuple[str, str], monitor: Monitor
) -> tuple[list[str], dict[str, Any]]:
    """Return the comparison in words and as numbers."""
    best_of_grid, best_of_random = _best(grid, monitor), [_best(each, monitor) for each in random]
    scores = sorted(each.score for each in best_of_random)
    wins = sum(monitor.better(each.score, best_of_grid.score) for each in best_of_random)
    effects = [_effect(grid, axis) for axis in (0, 1)]
    values = len({each.matters for each in grid})
    lines = [
        f"on the grid {keys[0]} changes {monitor.tag} by {effects[0]:.4f}, {keys[1]} by {effects[1]:.4f} "
        "(ranges of means)",
        f"grid:   {len(grid)} points, {values} values of {keys[0]}; "
        f"best {monitor.tag} {best_of_grid.score:.4f} at {best_of_grid.matters:g}",
        f"random: {len(grid)} points, {len(grid)} values of {keys[0]}; "
        f"best {monitor.tag} {statistics.median(scores):.4f} "
        f"(median of {counted(len(scores), 'draw')}, {scores[0]:.4f} to {scores[-1]:.4f})",
        f"random points found a better one than the grid in {wins} of {counted(len(scores), 'draw')}",
    ]
    report = {
        "monitor": monitor.tag,
        "effects": dict(zip(keys, effects, strict=True)),
        "grid": [each._asdict() for each in grid],
        "random": [[each._asdict() for each in draw] for draw in random],
        "best_of_grid": best_of_grid.score,
        "best_of_random": [each.score for each in best_of_random],
        "random_is_better": wins,
    }
    return lines, json.loads(json.dumps(report).replace("NaN", "null"))


def _effect(grid: Sequence[Trial], axis: int) -> float:
    """Return the range of the mean scores over the values of one knob."""
    values = {each[axis] for each in grid}
    means = [statistics.fmean(each.score for each in grid if each[axis] == value) for value in values]
    return max(means) - min(means)
