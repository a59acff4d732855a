"""The metrics of a config: a monitored one is computed, although `metric` does not list it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.door.options import Conf, option_values
from runner.engine.monitor import Monitor
from runner.errors import ConfigError, unknown
from runner.settings import SCORES

_GROUP = "metric"
_Chosen = Mapping[str, list[str]]


def with_monitored_metric(conf: Conf, config: dict[str, Any], chosen: _Chosen) -> tuple[dict[str, Any], _Chosen]:
    """Return a config, and the options of each group, with the metric that `monitor` names among the chosen ones.

    Knobs that the config sets for it stay.
    """
    monitor, metrics = Monitor(str(config.get("monitor"))), config.get(_GROUP)
    name = monitor.metric
    listed = chosen.get(_GROUP, [])
    if monitor.split != "val" or name not in _options(conf) or name in listed or not isinstance(metrics, dict):
        return config, chosen
    values = option_values(conf, _GROUP, name)
    merged = {
        entry: {**knobs, **(metrics.get(entry) or {})} if isinstance(knobs, dict) else knobs
        for entry, knobs in values.items()
    }
    return {**config, _GROUP: {**metrics, **merged}}, {**chosen, _GROUP: [*listed, name]}


def _options(conf: Conf) -> Mapping[str, Path]:
    """Return the options of the group, none if a config has no such group."""
    return conf.files.get(_GROUP, {})


def check_scores(conf: Conf, config: Mapping[str, Any]) -> None:
    """Raise ConfigError for a score that no metric has, in `monitor` and in `task.metric` of a comparison."""
    known = (*SCORES, *(f"val/{name}" for name in _options(conf)))
    if config["monitor"] not in known:
        raise _unknown("monitor", config["monitor"], known)
    metric = config["task"].get("metric") if config["task"].get("name") == "compare" else None
    compared = [score for score in known if score.startswith("val/")]
    if metric is not None and metric not in compared:
        raise _unknown("task.metric", str(metric), compared)


def _unknown(key: str, given: str, known: Sequence[str]) -> ConfigError:
    """Return the error for an unknown score; a name without its split gets it."""
    if (full := f"val/{given}") in known:
        return ConfigError(f"{key}: unknown value '{given}'; did you mean '{full}'?")
    return unknown(key, "value", given, known)
