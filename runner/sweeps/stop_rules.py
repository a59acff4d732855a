"""Rules that end a sweep before its last trial: time, trainings, no improvement, a target, failures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from runner.engine.monitor import Monitor
from runner.errors import ConfigError, unknown
from runner.printing import counted
from runner.schema import NonNegativeInt, Positive, PositiveInt, check

_KEY = "hydra.sweeper.stop"


@dataclass(frozen=True, kw_only=True)
class StopRules:
    """The checked `hydra.sweeper.stop.*`; None: no such rule. The files in conf/hydra/sweeper hold the defaults."""

    hours: Positive | None = None  # no trial begins later than this after the command began
    trainings: PositiveInt | None = None  # finished, with those of earlier commands
    no_improvement: PositiveInt | None = None  # trials in a row without a better score
    target: float | None = None
    max_failures: NonNegativeInt | None = None  # failed trials; one more ends the sweep

    @property
    def any(self) -> bool:
        """True if there is a rule."""
        return any(getattr(self, each.name) is not None for each in fields(self))


def check_stop_rules(values: Any) -> StopRules:
    """Return the settings of the rules; raises ConfigError for an unknown key or a wrong value."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{_KEY}: got {values}, must be one of its keys, as in {_KEY}.hours=2")
    kinds = get_type_hints(StopRules, include_extras=True)
    for name in values:
        if name not in kinds:
            raise unknown(f"{_KEY}.{name}", "key", str(name), kinds)
    return StopRules(**{name: check(f"{_KEY}.{name}", value, kinds[name]) for name, value in values.items()})


class Stopper:
    """Counts what has ended in a sweep, and says which rule ends it.

    The trials of earlier commands count, too, so the same command stops again and a larger limit continues. The time is
    that of this command. Running trials end as usual; none begins.
    """

    def __init__(self, rules: StopRules, monitor: Monitor, clock: Callable[[], float] = time.monotonic) -> None:
        self._rules, self._monitor, self._clock, self._began = rules, monitor, clock, clock()
        self._trainings = self._failures = self._since_best = 0
        self._best = math.nan
        self._reason: str | None = None

    @property
    def stops_on_failures(self) -> bool:
        """True if the rule that ended the sweep is the one on failures."""
        return self._reason is not None and ".max_failures=" in self._reason

    def training_ended(self) -> None:
        """Count a training that has a result."""
        self._trainings += 1

    def trial_ended(self, score: float, *, failed: bool) -> None:
        """Count a trial: one training of a grid, one point of a search; `score` is NaN if it has none."""
        self._failures += failed
        if failed:
            return
        if self._monitor.better(score, self._best):
            self._best, self._since_best = score, 0
        else:
            self._since_best += 1

    def run_ended(self, score: float, *, failed: bool) -> None:
        """Count a trial that is one training."""
        if not failed:
            self.training_ended()
        self.trial_ended(score, failed=failed)

    def reason(self) -> str | None:
        """Return which rule ends the sweep and why, None if none does; a rule that has ended it stays the reason."""
        self._reason = self._reason or self._first_reason()
        return self._reason

    def _first_reason(self) -> str | None:
        rules, best = self._rules, self._best
        target, tag = rules.target, self._monitor.tag
        if target is not None and not math.isnan(best) and not self._monitor.better(target, best):
            return f"{_KEY}.target={target:g}: {tag} reached {best:.4g}"
        if rules.max_failures is not None and self._failures > rules.max_failures:
            return f"{_KEY}.max_failures={rules.max_failures}: {counted(self._failures, 'trial')} failed"
        if rules.trainings is not None and self._trainings >= rules.trainings:
            return f"{_KEY}.trainings={rules.trainings}: {counted(self._trainings, 'training')} ended"
        if rules.no_improvement is not None and self._since_best >= rules.no_improvement:
            row = f"{counted(self._since_best, 'trial')} in a row"
            return f"{_KEY}.no_improvement={rules.no_improvement}: {row} without a better {tag} than {best:.4g}"
        hours = (self._clock() - self._began) / 3600
        if rules.hours is not None and hours >= rules.hours:
            return f"{_KEY}.hours={rules.hours:g}: this command has run for {hours:.3g} h"
        return None
