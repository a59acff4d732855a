"""Directions of scores, in which they get better: of the monitored one of a config, or of a tag. Imports no torch.

The direction of a metric belongs to its component (`@lower_is_better`). It is read from the source, because the front
door, the tables of sweeps and comparisons work without importing plugins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runner.annotations import lower_is_better
from runner.engine.monitor import Monitor
from runner.errors import ConfigError


def monitor_in(config: Mapping[str, Any]) -> Monitor:
    """Return the monitored score of a config; raises ConfigError if the component of its metric is not found."""
    return monitor_by_tag(str(config["monitor"]), config.get("plugins") or ())


def monitor_by_tag(tag: str, plugins: Sequence[str] = (), *, key: str = "monitor") -> Monitor:
    """Return a score by its tag; a metric of the user is searched in the source of the plugins, which is only read.

    `key` is the config's key in the error.
    """
    monitor = Monitor(tag)
    if not monitor.is_of_component:
        return monitor
    lower = lower_is_better(monitor.metric, tuple(plugins))
    if lower is None:
        where = f"the plugins {', '.join(plugins)}" if plugins else "runner"
        raise ConfigError(
            f"{key}: got '{tag}', but {where} registers no metric '{monitor.metric}'; "
            "name its module: plugins=[<module>]"
        )
    return Monitor(tag, lower_is_better=lower)
