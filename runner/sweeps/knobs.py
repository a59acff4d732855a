"""What `hydra.launcher.*` sets: how many trials at once, how long one may take, how much it may use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from runner.errors import unknown
from runner.schema import NonNegativeInt, Positive, PositiveInt, check


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """The launcher's settings, checked; the values stand in conf/hydra/launcher/runner.yaml."""

    workers: PositiveInt | None  # trials at once
    threads: PositiveInt  # of each trial
    timeout: Positive | None  # seconds that a trial may take
    retries: NonNegativeInt  # times that a failed trial is tried again
    memory: Positive | None  # gigabytes that a trial may take

    @property
    def on_cores(self) -> int:
        """Return how many trials run at once where trials compute on the processor's cores."""
        return self.workers or max(1, cores() // self.threads)


def read_knobs(values: Mapping[str, Any]) -> Knobs:
    """Return the checked settings of the launcher; raises ConfigError, in one line, for what is none."""
    kinds = get_type_hints(Knobs, include_extras=True)
    for name in values:
        if name not in kinds:
            raise unknown(f"hydra.launcher.{name}", "key", name, kinds)
    named = [each.name for each in fields(Knobs)]
    return Knobs(**{name: check(f"hydra.launcher.{name}", values[name], kinds[name]) for name in named})


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
