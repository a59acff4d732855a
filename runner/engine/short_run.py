"""A short training for a measurement: the run's own loop, without a folder; its curves come back as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from runner.engine.batches import EvalBatches, TrainBatches
from runner.engine.contracts import Probe
from runner.engine.learner import Learner
from runner.engine.logs.log import Log
from runner.engine.logs.sinks import Row, Sink
from runner.engine.recipe import NEVER_DUE, Recipe
from runner.engine.saving.cadence import Never
from runner.engine.train import train


class _Curve(NamedTuple):
    """The numbers of one tag over the steps."""

    steps: NDArray[np.int64]  # (n,), the optimizer steps done, from 1
    values: NDArray[np.float64]  # (n,)


_Curves = dict[str, _Curve]


def short_run(
    recipe: Recipe,
    learner: Learner,
    batches: TrainBatches,
    *,
    steps: int,
    validation: Mapping[str, EvalBatches] | None = None,
    log_every: int | None = None,
    probes: Sequence[Probe] = (),
    sinks: Sequence[Sink] = (),
) -> _Curves:
    """Train some steps from the learner's step on, and return what the run logs; nothing is written to the disk.

    The steps are those of the whole run, bit for bit; a second call continues after them. Raises Diverged as it would.

    Args:
        recipe: The recipe of the whole run.
        learner: Changed in place.
        batches: The training batches.
        steps: Optimizer steps to make; fewer are made if validation ends the run early.
        validation: Splits to score when the recipe says so, and after the last step; None never validates.
        log_every: Steps between two checks that all losses are finite; None checks only after the last step.
        probes: Probes beside those of the recipe.
        sinks: Other sinks that get each row.

    Returns:
        The curve of each tag: `train/loss` of each step, `train/lr` and `time/` at each check, scores, probes.
    """
    short = replace(
        recipe,
        total_steps=learner.step + steps,
        validate_every=NEVER_DUE if validation is None else recipe.validate_every,
        cadence=Never(),
        log_every=log_every or learner.step + steps,
        probes=[*recipe.probes, *probes],
    )
    recorder = _Recorder()
    with closing(Log(screens=[recorder, *sinks])) as log:
        train(short, learner, batches, dict(validation or {}), log, lambda: None)
    return recorder.curves()


class _Recorder:
    """A sink that keeps the numbers of all rows in memory."""

    def __init__(self) -> None:
        self._points: dict[str, list[tuple[int, float]]] = {}

    def write(self, rows: Sequence[Row]) -> None:
        """Append the numbers of each row."""
        for row in rows:
            for tag, value in row.values.items():
                if type(value) is float:
                    self._points.setdefault(tag, []).append((row.step, value))

    def close(self) -> None:
        """Do nothing: the numbers stay in memory."""

    def curves(self) -> _Curves:
        """Return the curve of each tag."""
        return {
            tag: _Curve(np.array([step for step, _ in points]), np.array([value for _, value in points]))
            for tag, points in self._points.items()
        }
