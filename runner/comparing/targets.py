"""A target score, and the steps and seconds after which a run reached it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from runner.comparing.runs import Run
from runner.comparing.score_meaning import check_same_score
from runner.directions import monitor_by_tag
from runner.engine.monitor import Monitor
from runner.errors import unknown, wrong

_UNTIL = re.compile(r"\s*([\w./-]+)\s*(>=|<=)\s*([-+.\w]+)\s*")
_STEP_MS = "time/step_ms"
_KEY = "task.until"
# The splits whose scores a run logs at validations
_SPLITS = ("val", "train_eval")


@dataclass(frozen=True)
class Target:
    """A score to reach: `val/accuracy>=0.97`."""

    score: Monitor
    value: float

    def __str__(self) -> str:
        return f"{self.score.tag} {'>=' if self.score.larger_is_better else '<='} {self.value:g}"

    def is_reached(self, value: float) -> bool:
        """Return True if a score is as good as the target; NaN never is."""
        return value >= self.value if self.score.larger_is_better else value <= self.value


@dataclass(frozen=True)
class Arrival:
    """When a run reached the target, both infinite if it never did: after so many steps and seconds of training."""

    steps: float
    seconds: float


NEVER = Arrival(math.inf, math.inf)


def read_target(text: str, runs: Sequence[Run], plugins: Sequence[str] = ()) -> Target:
    """Return the target of an expression such as `val/accuracy>=0.97`.

    Raises:
        ConfigError: It is no such expression, no run logged the score, or the sign is that of a worse score.
    """
    found = _UNTIL.fullmatch(text)
    try:
        tag, sign, value = (found[1], found[2], float(found[3])) if found else ("", "", math.nan)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise wrong(_KEY, text, "a score, >= or <=, and a number, as in val/accuracy>=0.97 or val/loss<=0.1")
    if not any(run.series(tag) for run in runs):
        logged = {name for run in runs for _, row in run.metrics for name in row if name.partition("/")[0] in _SPLITS}
        raise unknown(_KEY, "score", tag, logged)
    score = monitor_by_tag(tag, plugins, key=_KEY)
    better = ">=" if score.larger_is_better else "<="
    if sign != better:
        raise wrong(_KEY, text, f"{tag}{better}{found[3] if found else ''}: a {_better(score)} {tag} is better")
    if score.metric == "accuracy" and not 0 <= value <= 1:
        raise wrong(_KEY, text, "an accuracy between 0 and 1")
    check_same_score(runs, tag, key=_KEY)
    return Target(score, value)


def _better(score: Monitor) -> str:
    """Return the word for better values."""
    return "larger" if score.larger_is_better else "smaller"


def arrival(run: Run, target: Target) -> Arrival:
    """Return when a run reached the target for the first time; a run that failed later has arrived.

    Seconds are the time of the training steps, without validations and checkpoints; for a log without them, the same
    share of the run's duration as of its steps.
    """
    step = next((step for step, value in run.series(target.score.tag) if target.is_reached(value)), None)
    if step is None:
        return NEVER
    seconds, before, last = 0.0, 0, 0.0
    for end, mean in run.series(_STEP_MS):
        if before >= step:
            break
        seconds += (min(end, step) - before) * mean / 1000
        before, last = end, mean
    if not before:
        return Arrival(step, run.result.seconds * step / max(step, run.result.steps))
    return Arrival(step, seconds + max(0, step - before) * last / 1000)
